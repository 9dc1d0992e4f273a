"""One network, layer by layer, with gradients worked out by hand.

A layer's ``forward`` gives its output and what its ``backward`` needs; ``backward`` gives the gradient of its input
where that passes on, and writes those of its parameters where they are wanted. x is (B, I), gradients are as what they
belong to. Each hidden layer has a place in ``memory``, by its index among them, for its output or, on the way back, for
the gradient of that.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ding_cawr.networks.products import Plain

Saved = tuple[Tensor, ...]


class Layer(Protocol):
    """What each kind of layer has."""

    def forward(self, x: Tensor, memory: Sequence[Tensor], products: Plain) -> tuple[Tensor, Saved]:
        """Return the output, and what ``backward`` needs."""

    def backward(
        self, gradient: Tensor, saved: Saved, memory: Sequence[Tensor], products: Plain, passes: bool, writes: bool
    ) -> Tensor | None:
        """Return the gradient of x if it ``passes`` on, and write those of the parameters if it ``writes``."""


class Linear:
    """x Wᵀ + b, without or, where it is hidden, with ReLU behind.

    Arguments:
        weight, bias: W (O, I) and b (O,).
        into: memory for the gradients of both.
        index: of the hidden layer that it is, or how many there are before it.
        hidden: whether it is one.
    """

    def __init__(self, weight: Tensor, bias: Tensor, into: Sequence[Tensor], index: int, hidden: bool) -> None:
        self._weight, self._bias, (self._of_weight, self._of_bias) = weight.mT, bias.unsqueeze(0), into
        self._index, self._hidden = index, hidden

    def forward(self, x: Tensor, memory: Sequence[Tensor], products: Plain) -> tuple[Tensor, Saved]:
        if not self._hidden:
            return torch.addmm(self._bias, x, self._weight), (x, )
        if self._index == 0:  # few columns, for which this is fastest
            products = Plain()
        output = products.relu(x, self._weight, self._bias, memory[self._index])
        return output, (x, output)

    def backward(
        self, gradient: Tensor, saved: Saved, memory: Sequence[Tensor], products: Plain, passes: bool, writes: bool
    ) -> Tensor | None:
        x = saved[0]
        is_first, is_wide = self._index == 0, self._hidden and self._index > 0
        if self._hidden:  # the gradient is in the memory of this layer, or of no one else
            torch.ops.aten.threshold_backward.grad_input(gradient, saved[1], 0, grad_input=gradient)
        if writes:
            torch.sum(gradient, dim=0, out=self._of_bias)
            if is_wide:
                products.weight_gradient(gradient, x, self._of_weight)
            elif is_first:  # few columns, for which this order of the factors is faster
                self._of_weight.copy_(torch.matmul(x.mT, gradient).mT)
            else:
                torch.matmul(gradient.mT, x, out=self._of_weight)
        if not passes:
            return None
        place = None if is_first else memory[self._index - 1]
        if is_wide:
            return products.input_gradient(gradient, self._weight, place)
        return torch.matmul(gradient, self._weight.mT, out=place)


class Norm:
    """LayerNorm over the last dimension, with weight and bias (I,), and memory for the gradients of both."""

    def __init__(self, weight: Tensor, bias: Tensor, into: Sequence[Tensor], eps: float) -> None:
        self._affine, self._into, self._eps = (weight, bias), into, eps

    def forward(self, x: Tensor, memory: Sequence[Tensor], products: Plain) -> tuple[Tensor, Saved]:
        output, *moments = torch.native_layer_norm(x, x.shape[1:], *self._affine, self._eps)
        return output, (x, *moments)

    def backward(
        self, gradient: Tensor, saved: Saved, memory: Sequence[Tensor], products: Plain, passes: bool, writes: bool
    ) -> Tensor | None:
        x, *moments = saved
        of_x, *found = torch.ops.aten.native_layer_norm_backward(
            gradient, x, x.shape[1:], *moments, *self._affine, [passes, writes, writes]
        )
        for place, each in zip(self._into, found if writes else ()):
            place.copy_(each)
        return of_x


class Tanh:
    """The hyperbolic tangent."""

    def forward(self, x: Tensor, memory: Sequence[Tensor], products: Plain) -> tuple[Tensor, Saved]:
        output = x.tanh()
        return output, (output, )

    def backward(
        self, gradient: Tensor, saved: Saved, memory: Sequence[Tensor], products: Plain, passes: bool, writes: bool
    ) -> Tensor | None:
        return torch.ops.aten.tanh_backward(gradient, *saved)


class Network:
    """A ``Sequential`` of ``nn.Linear``, ``nn.ReLU`` behind all of those but the last, ``nn.LayerNorm``, ``nn.Tanh``.

    Arguments:
        net: says which layers there are; its parameters are not read.
        parameters: by the names that they have in ``net``.
        gradients: memory for those of the parameters.
    """

    def __init__(self, net: nn.Sequential, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self.gradients = list(gradients.values())
        #: Widths of the hidden layers.
        self.widths: list[int] = []
        self._layers: list[Layer] = []
        for (number, layer), behind in zip(net.named_children(), [*list(net)[1:], None]):
            names = [f'{number}.{name}' for name, _ in layer.named_parameters()]
            own, into = [parameters[name] for name in names], [gradients[name] for name in names]
            if isinstance(layer, nn.Linear):
                is_hidden = isinstance(behind, nn.ReLU)
                self._layers.append(Linear(*own, into, len(self.widths), is_hidden))
                self.widths += [layer.out_features] * is_hidden
            elif isinstance(layer, nn.LayerNorm):
                self._layers.append(Norm(*own, into, layer.eps))
            elif isinstance(layer, nn.Tanh):
                self._layers.append(Tanh())

    def forward(self, x: Tensor, memory: Sequence[Tensor], products: Plain) -> tuple[Tensor, list[Saved]]:
        """Return the output (B, O), and what ``backward`` needs.

        Arguments:
            memory: for the outputs (B, width) of the hidden layers. Where no ``backward`` follows, every second of them
                may be the same.
        """
        kept = []
        for layer in self._layers:
            x, saved = layer.forward(x, memory, products)
            kept.append(saved)
        return x, kept

    def backward(
        self, gradient: Tensor, kept: Sequence[Saved], memory: Sequence[Tensor], products: Plain, passes: bool,
        writes: bool
    ) -> Tensor | None:
        """Return the gradient of the input, and write those of the parameters, each where it is asked for.

        Arguments:
            memory: not that of ``forward``. Every second of its tensors may be the same.
        """
        for number in reversed(range(len(kept))):
            layer, saved = self._layers[number], kept[number]
            gradient = layer.backward(gradient, saved, memory, products, passes or number > 0, writes)
        return gradient
