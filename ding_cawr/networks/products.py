"""The products of a hidden layer by the fastest back end of this processor.

torch's own products call MKL, which on some processors does not use their widest vector units; oneDNN, which torch
carries too, does. Which of the two is faster differs between processors, so both are timed at the start.
"""
from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from ding_cawr.checks import one_of
from ding_cawr.networks.lanes import lanes

#: Environment variable that names a back end, which is then taken untimed.
VARIABLE = 'DING_CAWR_PRODUCTS'
#: A back end is taken instead of the plain one where the plain one takes this many times as long. Results of the two
#: differ by rounding, so a choice by a small margin could differ between two runs on one machine.
MARGIN = 1.25
#: Numbers of weights from which on there is a choice: smaller layers take no time.
SMALLEST = 1 << 14
#: Inputs and outputs of the layer that is timed, in the place of every other: at other widths the ratio is nearer to
#: the margin on some processors, and what else runs decides.
WIDTH = 256
#: Rows of the batch that is timed, rounds, and the largest relative difference of results.
ROWS, ROUNDS, TOLERANCE = 512, 9, 1e-3


class Plain:
    """Products as torch computes them by itself. Weights are (I, O), biases (1, O), batches (B, width)."""
    name = 'plain'

    def relu(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        """Return max(x W + b, 0) (B, O); ``out`` is memory that may be used for it."""
        return torch.addmm(bias, x, weight, out=out).relu_()

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """Return G Wᵀ (B, I), of a gradient G (B, O); ``out`` is memory that may be used for it."""
        return torch.matmul(gradient, weight.mT, out=out)

    def weight_gradient(self, x: Tensor, gradient: Tensor, out: Tensor) -> None:
        """Write xᵀ G (I, O) to ``out``."""
        torch.matmul(x.mT, gradient, out=out)


class OneDNN(Plain):
    """Products by oneDNN, in float32 on a CPU. The operator is that of torch's compiler for a fully connected layer."""
    name = 'onednn'

    def __init__(self) -> None:
        """Find the operator.

        Raises:
            AttributeError: this torch does not have it.
        """
        self._linear = torch.ops.mkldnn._linear_pointwise.default

    def relu(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        return self._linear(x, weight.mT, bias[0], 'relu', [], '')

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return self._linear(gradient, weight, None, 'none', [], '')

    def weight_gradient(self, x: Tensor, gradient: Tensor, out: Tensor) -> None:
        out.copy_(self._linear(x.mT, gradient.mT, None, 'none', [], ''))


BACK_ENDS: Mapping[str, type[Plain]] = {each.name: each for each in (Plain, OneDNN)}


def fastest(inputs: int, outputs: int, like: Tensor) -> Plain:
    """Return the back end for hidden layers of this width: the plain one, or one that is clearly faster.

    Arguments:
        inputs, outputs: I and O of the layer.
        like: a tensor of the device and dtype of the weights. Only float32 on a CPU has a choice.

    Raises:
        ValueError: the environment variable DING_CAWR_PRODUCTS names no back end.
    """
    forced = os.environ.get(VARIABLE)
    if forced:
        one_of(VARIABLE, forced, BACK_ENDS)
    is_small = not forced and inputs * outputs < SMALLEST
    if like.is_cuda or like.dtype != torch.float32 or forced == Plain.name or is_small:
        return Plain()
    usable = _usable(inputs, outputs)
    if forced and forced not in usable:
        raise ValueError(f'{VARIABLE} is {forced!r}, which this torch or processor does not have; unset it')
    if not forced and len(usable) == 1:
        return usable[Plain.name]
    return usable.get(forced or _fastest(), usable[Plain.name])


def available(name: str, inputs: int, outputs: int, like: Tensor) -> Plain | None:
    """Return a back end by its name; None where it cannot be had here."""
    if name == Plain.name:
        return Plain()
    usable = name in BACK_ENDS and not like.is_cuda and like.dtype == torch.float32
    return _usable(inputs, outputs).get(name) if usable else None


@functools.lru_cache
def _usable(inputs: int, outputs: int) -> dict[str, Plain]:
    """Return the back ends that are there and agree with the plain one, by name; warn of those that do not."""
    usable = {}
    for name, kind in BACK_ENDS.items():
        try:
            back_end = kind()
            difference = _difference(back_end, inputs, outputs)
        except (AttributeError, RuntimeError, NotImplementedError):  # not in this torch, or not for this processor
            continue
        if difference > TOLERANCE:
            warnings.warn(
                f'the products of {name} differ from the plain ones by {difference:.1e} and are not used; it must be '
                f'at most {TOLERANCE:g}', stacklevel=2
            )
        else:
            usable[name] = back_end
    return usable


@functools.lru_cache
def _fastest() -> str:
    """Return the name of the back end that is clearly faster in one thread: the plain one, or another.

    That is a property of the processor. With several threads, or by the clock, the choice would depend on what else
    runs at the time, and two runs on one machine could differ.
    """
    usable = _usable(WIDTH, WIDTH)
    seconds = {name: [] for name in usable}
    work = {name: _layer(back_end, WIDTH, WIDTH) for name, back_end in usable.items()}
    with lanes():
        for _ in range(ROUNDS):
            for name, iteration in work.items():
                start = time.thread_time()
                iteration()
                seconds[name].append(time.thread_time() - start)
    best, middle = ({name: of(times) for name, times in seconds.items()} for of in (min, median))
    name = min(best, key=best.get)
    is_clear = all(each[Plain.name] > MARGIN * each[name] for each in (best, middle))
    return name if is_clear else Plain.name


def _operands(inputs: int, outputs: int) -> tuple[Tensor, ...]:
    """Return x, W, b and G of a layer; the run's random numbers stay as they are."""
    generator = torch.Generator().manual_seed(0)
    shapes = (ROWS, inputs), (inputs, outputs), (1, outputs), (ROWS, outputs)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _layer(back_end: Plain, inputs: int, outputs: int) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that does the three products of a layer."""
    x, weight, bias, gradient = _operands(inputs, outputs)
    memory, into = torch.empty_like(gradient), torch.empty_like(weight)

    def iteration() -> tuple[Tensor, ...]:
        with torch.no_grad():
            hidden = back_end.relu(x, weight, bias, memory)
            back_end.weight_gradient(x, gradient, into)
            return hidden, back_end.input_gradient(gradient, weight), into

    iteration()  # the first call prepares
    return iteration


def _difference(back_end: Plain, inputs: int, outputs: int) -> float:
    """Return the largest difference from the plain results, relative to the largest of those."""
    found, wanted = (_layer(each, inputs, outputs)() for each in (back_end, Plain()))
    return max(float((got - want).abs().max() / want.abs().max()) for got, want in zip(found, wanted))
