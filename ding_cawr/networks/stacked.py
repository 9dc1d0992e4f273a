"""Networks of one shape, those of all replicas, run at once under autograd.

To autograd a call is one function. On a CPU its networks run side by side (``lanes.py``), and their gradients are
worked out by hand: with a node for each layer, autograd itself takes a fifth of an iteration.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ding_cawr.networks.lanes import beside, lanes, side_by_side
from ding_cawr.networks.layers import Later, Network, check_layers
from ding_cawr.networks.memory import empty
from ding_cawr.networks.optimizers import Optimizer
from ding_cawr.networks.products import Plain, available, fastest

#: Rows of the largest batch whose memory stays; a whole dataset comes seldom.
LARGEST = 1 << 12
#: Sizes of batches whose views of the memory stay.
SIZES = 16
#: Least rows of half a batch.
HALF = 64


#: For each network and each of its layers, the tensors that hold what the layer gives.
Memory = list[list[list[Tensor]]]


def in_one_batch(like: Tensor) -> bool:
    """Return whether all networks are one batch of products: on a GPU they are, on a CPU they run one by one."""
    return like.is_cuda


class Stacked:
    """E networks of each of R replicas, all of the same layers, as one function of tensors.

    The modules stay usable: their parameters become views of the stacked ones.

    Arguments:
        replicas: for each replica its E networks, each a ``Sequential`` of ``nn.Linear``, ``nn.ReLU`` after one,
            ``nn.LayerNorm`` over the last dimension, and ``nn.Tanh``.

    Raises:
        ValueError: there is another layer.
    """

    def __init__(self, replicas: Sequence[Sequence[nn.Sequential]]) -> None:
        nets = [net for networks in replicas for net in networks]
        for net in nets:
            check_layers(net)
        self._layers = list(nets[0])
        self._shape = len(replicas), len(replicas[0])
        #: By name, with R * E as the first dimension, for the optimizer.
        self.parameters: dict[str, nn.Parameter] = {}
        named = dict(nets[0].named_parameters())
        memory = iter(empty([(len(nets), *each.shape) for each in named.values() for _ in range(2)], nets[0][0].weight))
        for name, place, gradient in zip(named, memory, memory):
            torch.stack([net.get_parameter(name).detach() for net in nets], out=place)
            self.parameters[name] = nn.Parameter(place)
            self.parameters[name].grad = gradient.zero_()
            for number, net in enumerate(nets):
                net.get_parameter(name).data = place[number]
        like = next(iter(self.parameters.values()))
        linears = [layer for layer in self._layers if isinstance(layer, nn.Linear)]
        hidden = max(linears[1:-1] or linears[:1], key=lambda layer: layer.weight.numel())
        #: Columns in and out of the widest hidden layer.
        self.widest = hidden.in_features, hidden.out_features
        #: The back end of the hidden layers' products; ``take_fastest`` chooses it.
        self.products = Plain()
        self.in_one_batch = in_one_batch(like)
        parts = [...] if self.in_one_batch else range(len(nets))
        self._leaves = [
            {name: each.detach()[part].requires_grad_() for name, each in self.parameters.items()} for part in parts
        ]
        self._frozen = [{name: each.detach() for name, each in part.items()} for part in self._leaves]
        places = [{name: each.grad[part] for name, each in self.parameters.items()} for part in parts]
        #: The tensors that autograd differentiates by, and the memory of their gradients.
        self.leaves = [leaf for part in self._leaves for leaf in part.values()]
        self.gradients = [gradient for part in places for gradient in part.values()]
        self.nets = [] if self.in_one_batch else [Network(nets[0], *each) for each in zip(self._frozen, places)]
        #: By use, the memory of each network by layer, for the largest batch so far; and views of it, by rows and use.
        self._memory: dict[str, Memory] = {}
        self._views: dict[tuple[int, str], Memory] = {}
        #: Passes so far that kept their outputs, one that was interrupted included.
        self.passes = 0

    def __call__(self, inputs: Tensor, frozen: bool = False, count: int | None = None) -> Tensor:
        """Return the outputs (R, E, B, O) for inputs (R, B, I) that the E networks of a replica share.

        A loss may call a network only once: the next pass with gradients overwrites the stored outputs.

        Arguments:
            frozen: whether the parameters are constants, so that gradients pass to the inputs alone.
            count: networks of each replica to run, the first ones; None: all E.
        """
        replicas, networks = self._shape
        count = count or networks
        if self.in_one_batch:
            x = inputs.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
            leaves = (self._frozen if frozen else self._leaves)[0]
            first = {name: each.unflatten(0, self._shape)[:, :count].flatten(0, 1) for name, each in leaves.items()}
            return self._batch(x, first).unflatten(0, (replicas, count))
        numbers = [r * networks + e for r in range(replicas) for e in range(count)]
        keeps = torch.is_grad_enabled() and (inputs.requires_grad or not frozen)
        leaves = [leaf for number in numbers for leaf in self._leaves[number].values()] if keeps and not frozen else []
        return _SideBySide.apply(inputs, self, numbers, keeps, *leaves).unflatten(0, (replicas, count))

    def __reduce_ex__(self, protocol: int) -> Any:
        raise TypeError('stacked networks share memory with their modules and cannot be copied; copy those')

    def memory(self, rows: int, use: str) -> Memory:
        """Return memory for a batch of each network by layer; new memory for every pass would cost page faults.

        Arguments:
            use: 'kept' (outputs that the backward pass reads), 'back' (gradients of those outputs), or 'passed' (a pass
                without gradients: two buffers in turn).
        """
        if rows > LARGEST:
            return self._new_memory(rows, use)
        if (rows, use) not in self._views:
            if use not in self._memory or len(self._memory[use][0][0][0]) < rows:
                self._memory[use] = self._new_memory(rows, use)
            if len(self._views) == SIZES:
                self._views.clear()
            self._views[rows, use] = [_part(each, slice(rows)) for each in self._memory[use]]
        return self._views[rows, use]

    def _new_memory(self, rows: int, use: str) -> Memory:
        like, layers = next(iter(self.parameters.values())), self.nets[0].widths
        if use == 'passed':
            shapes = [(2, rows, max(width for width, *_ in layers))]
        else:
            shapes = [(rows, width) for widths in layers for width in widths]
        tensors, memory = iter(empty(shapes * len(self.nets), like)), []
        for _ in self.nets:
            if use == 'passed':
                pair = next(tensors)
                memory.append([[pair[number % 2, :, :width], *(like.new_empty(rows, each) for each in rest)]
                               for number, (width, *rest) in enumerate(layers)])
            else:
                memory.append([[next(tensors) for _ in widths] for widths in layers])
        return memory

    def _batch(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of a batch of networks (R * E, B, I), layer by layer under autograd."""
        for number, layer in enumerate(self._layers):
            own = [parameters[f'{number}.{name}'].unsqueeze(1) for name, _ in layer.named_parameters()]
            if isinstance(layer, nn.Linear):
                weight, bias = own
                x = torch.baddbmm(bias, x, weight.squeeze(1).mT)
            elif isinstance(layer, nn.LayerNorm):
                weight, bias = own
                x = F.layer_norm(x, layer.normalized_shape, eps=layer.eps) * weight + bias
            else:
                x = layer(x)
        return x

    def use_products(self, name: str) -> bool:
        """Take the products of a back end; return whether it can be had here."""
        found = available(name, *self.widest, next(iter(self.parameters.values())))
        self.products = found or self.products
        return found is not None

    @torch.no_grad()
    def move(self, towards: Stacked, theta: float) -> None:
        """Move all parameters a little: φ ← φ + theta (φ' - φ)."""
        torch._foreach_lerp_(list(self.parameters.values()), list(towards.parameters.values()), theta)


class _SideBySide(torch.autograd.Function):
    """Networks of a ``Stacked`` side by side, as a function of inputs (R, B, I) and of their parameters.

    Where a replica has one alone, the halves of its batch are side by side. How a batch is cut depends on nothing else,
    so that results do not depend on the number of threads.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, stacked: Stacked, numbers: Sequence[int], keeps: bool, *leaves: Tensor
    ) -> Tensor:
        rows, memory = inputs.shape[1], stacked.memory(inputs.shape[1], 'kept' if keeps else 'passed')
        of_each = len(numbers) // len(inputs)
        parts = _parts(rows, alone=of_each == 1)

        def forward(place: int, number: int, part: slice) -> Tensor:
            own = _part(memory[number], part)
            return stacked.nets[number].forward(inputs[place // of_each, part], own, stacked.products)

        stacked.passes += keeps
        with lanes():  # a single call, too, has one thread, so that results do not depend on their number
            outputs = side_by_side(forward, *_calls(numbers, parts))
        ctx.stacked, ctx.numbers, ctx.number, ctx.memory = stacked, numbers, stacked.passes, memory
        ctx.save_for_backward(inputs)
        return torch.cat(outputs).unflatten(0, (len(numbers), rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, ), stacked, numbers = ctx.saved_tensors, ctx.stacked, ctx.numbers
        if ctx.number != stacked.passes:
            raise RuntimeError('a later pass has overwritten what this one kept; a loss may call a network only once')
        passes, writes = ctx.needs_input_grad[0], any(ctx.needs_input_grad[4:])
        rows, of_each = inputs.shape[1], len(numbers) // len(inputs)
        memory, back = ctx.memory, stacked.memory(rows, 'back')
        # Gradients of parameters are sums over the batch.
        parts = _parts(rows, alone=of_each == 1 and not writes)

        def backward(place: int, number: int, part: slice, later: Later | None) -> Tensor | None:
            return stacked.nets[number].backward(
                gradient[place, part], inputs[place // of_each, part], _part(memory[number], part),
                _part(back[number], part), stacked.products, passes, later
            )

        calls = _calls(numbers, parts)
        with lanes():
            if writes and len(numbers) == 1:
                with beside() as later:
                    found = [backward(*call, later) for call in zip(*calls)]
            else:
                found = side_by_side(partial(backward, later=_now if writes else None), *calls)
        of_inputs = torch.cat(found).unflatten(0, (len(inputs), of_each, rows)).sum(dim=1) if passes else None
        of_leaves = [each for number in numbers for each in stacked.nets[number].gradients] if writes else []
        return of_inputs, None, None, None, *of_leaves


def _parts(rows: int, alone: bool) -> list[slice]:
    """Return the batch, or its halves."""
    halves = 2 if alone and rows >= 2 * HALF else 1
    return [slice(number * rows // halves, (number + 1) * rows // halves) for number in range(halves)]


def _calls(numbers: Sequence[int], parts: Sequence[slice]) -> tuple[Sequence, ...]:
    """Return the columns of all calls: the place of a network among the numbers, its number, and a part."""
    return tuple(zip(*((place, number, part) for place, number in enumerate(numbers) for part in parts)))


def _part(memory: Sequence[Sequence[Tensor]], part: slice) -> list[list[Tensor]]:
    return [[each[part] for each in places] for places in memory]


def _now(call: Callable[[], None]) -> None:
    call()


def take_fastest(nets: Sequence[Stacked]) -> None:
    """Have networks take the fastest back end, which agrees with the plain one on the widest hidden layer of all."""
    widest = max(nets, key=lambda net: net.widest[0] * net.widest[1])
    name = fastest(*widest.widest, next(iter(widest.parameters.values()))).name
    for net in nets:
        net.use_products(name)


def descend(loss: Tensor, optimizer: Optimizer, *nets: Stacked) -> None:
    """Take a step of the optimizer of these networks along the gradient of a loss (R,), each replica its own."""
    leaves = [leaf for net in nets for leaf in net.leaves]
    found = torch.autograd.grad(loss.sum(), leaves)
    if any(net.in_one_batch for net in nets):  # otherwise they are there already
        torch._foreach_copy_([gradient for net in nets for gradient in net.gradients], found)
    optimizer.step()
