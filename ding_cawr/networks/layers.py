"""One network, layer by layer, with gradients worked out by hand.

Each layer has places in memory for what ``forward`` gives, the first of them for its output. ``backward`` reads them
and gives the gradient of the layer's input x. x is (B, I), gradients are as what they belong to.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ding_cawr.networks.products import Plain

#: Does a call now, or in another thread; its results are read later.
Later = Callable[[Callable[[], None]], None]


class Layer(Protocol):
    """Describes what every kind of layer has. ``widths`` are the widths of its places, (B, width) each."""
    widths: Sequence[int]

    def forward(self, x: Tensor, places: Sequence[Tensor], products: Plain) -> None:
        """Write the output, and what else ``backward`` needs."""

    def backward(
        self, gradient: Tensor, x: Tensor, places: Sequence[Tensor], into: Tensor | None, products: Plain,
        later: Later | None
    ) -> Tensor | None:
        """Return the gradient of x, and write those of the parameters.

        Arguments:
            gradient: of the output; it is overwritten.
            into: memory for the gradient of x; None: it is not wanted, and None is returned.
            later: does the products that the parameters' gradients need; None: these are not wanted.
        """


class Linear:
    """x Wᵀ + b, without or with ReLU after it.

    Arguments:
        weight, bias: W (O, I) and b (O,).
        gradients: memory for those of both.
        relu: whether a ReLU follows; otherwise it is the last layer.
        first: whether it is the first layer.
    """

    def __init__(self, weight: Tensor, bias: Tensor, gradients: Sequence[Tensor], relu: bool, first: bool) -> None:
        self._weight, self._bias, (self._of_weight, self._of_bias) = weight.mT, bias.unsqueeze(0), gradients
        self._relu, self._first, self.widths = relu, first, [len(weight)]

    def forward(self, x: Tensor, places: Sequence[Tensor], products: Plain) -> None:
        output, = places
        if not self._relu:
            torch.addmm(self._bias, x, self._weight, out=output)
            return
        products = Plain() if self._first else products  # few columns, for which that is fastest
        found = products.relu(x, self._weight, self._bias, output)
        if found.data_ptr() != output.data_ptr():
            output.copy_(found)

    def backward(
        self, gradient: Tensor, x: Tensor, places: Sequence[Tensor], into: Tensor | None, products: Plain,
        later: Later | None
    ) -> Tensor | None:
        if self._relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, *places, 0, grad_input=gradient)
        if later:
            later(partial(self._write, gradient, x, products))
        if into is None:
            return None
        if self._relu and not self._first:
            return products.input_gradient(gradient, self._weight, into)
        return torch.matmul(gradient, self._weight.mT, out=into)

    def _write(self, gradient: Tensor, x: Tensor, products: Plain) -> None:
        """Write the gradients of the parameters, in the order of factors that is faster where columns are few."""
        torch.sum(gradient, dim=0, out=self._of_bias)
        if self._first:
            self._of_weight.copy_(torch.matmul(x.mT, gradient).mT)
        elif self._relu:
            products.weight_gradient(gradient, x, self._of_weight)
        else:
            torch.matmul(gradient.mT, x, out=self._of_weight)


class Norm:
    """LayerNorm over the last dimension, with weight and bias (I,), and memory for the gradients of both."""

    def __init__(self, weight: Tensor, bias: Tensor, gradients: Sequence[Tensor], eps: float) -> None:
        self._affine, self._gradients, self._eps = (weight, bias), gradients, eps
        self.widths = len(weight), 1, 1

    def forward(self, x: Tensor, places: Sequence[Tensor], products: Plain) -> None:
        for place, found in zip(places, torch.native_layer_norm(x, x.shape[1:], *self._affine, self._eps)):
            place.copy_(found)

    def backward(
        self, gradient: Tensor, x: Tensor, places: Sequence[Tensor], into: Tensor | None, products: Plain,
        later: Later | None
    ) -> Tensor | None:
        wanted = [into is not None, later is not None, later is not None]
        of_x, *found = torch.ops.aten.native_layer_norm_backward(
            gradient, x, x.shape[1:], *places[1:], *self._affine, wanted
        )
        for memory, each in zip(self._gradients, found if later else ()):
            memory.copy_(each)
        return of_x


class Tanh:
    """The hyperbolic tangent of a matrix with this number of columns."""

    def __init__(self, width: int) -> None:
        self.widths = [width]

    def forward(self, x: Tensor, places: Sequence[Tensor], products: Plain) -> None:
        torch.tanh(x, out=places[0])

    def backward(
        self, gradient: Tensor, x: Tensor, places: Sequence[Tensor], into: Tensor | None, products: Plain,
        later: Later | None
    ) -> Tensor | None:
        return torch.ops.aten.tanh_backward(gradient, *places)


def check_layers(net: nn.Sequential) -> None:
    """Raise a ValueError for a layer that ``Network`` does not have."""
    for before, (number, layer) in zip([None, *net], net.named_children()):
        whole = len(list(layer.parameters())) == 2  # weight and bias
        known = {nn.Linear: whole, nn.LayerNorm: whole, nn.Tanh: True, nn.ReLU: type(before) is nn.Linear}
        if not known.get(type(layer)):
            raise ValueError(
                f'layer {number} is {layer}; it must be nn.Linear or nn.LayerNorm with weight and bias, nn.ReLU after '
                'an nn.Linear, or nn.Tanh'
            )


class Network:
    """A ``Sequential`` of ``nn.Linear``, ``nn.ReLU`` after each of those but the last, ``nn.LayerNorm``, ``nn.Tanh``.

    Arguments:
        net: says which layers there are (``check_layers``); its parameters are not read.
        parameters: by the names that they have in ``net``.
        gradients: memory for those of the parameters.
    """

    def __init__(self, net: nn.Sequential, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self.gradients = list(gradients.values())
        self._layers: list[Layer] = []
        for (number, layer), behind in zip(net.named_children(), [*list(net)[1:], None]):
            names = [f'{number}.{name}' for name, _ in layer.named_parameters()]
            own, into = [parameters[name] for name in names], [gradients[name] for name in names]
            if isinstance(layer, nn.Linear):
                self._layers.append(Linear(*own, into, isinstance(behind, nn.ReLU), not self._layers))
            elif isinstance(layer, nn.LayerNorm):
                self._layers.append(Norm(*own, into, layer.eps))
            elif isinstance(layer, nn.Tanh):
                self._layers.append(Tanh(self._layers[-1].widths[0]))
        #: Widths of each layer's places in memory.
        self.widths = [list(layer.widths) for layer in self._layers]

    def forward(self, x: Tensor, memory: Sequence[Sequence[Tensor]], products: Plain) -> Tensor:
        """Return the output (B, O), which is in memory.

        Arguments:
            memory: by layer, its places. Where no ``backward`` follows, every second output may have the same.
        """
        for layer, places in zip(self._layers, memory):
            layer.forward(x, places, products)
            x = places[0]
        return x

    def backward(
        self, gradient: Tensor, x: Tensor, memory: Sequence[Sequence[Tensor]], back: Sequence[Sequence[Tensor]],
        products: Plain, passes: bool, later: Later | None
    ) -> Tensor | None:
        """Return the gradient of x if it ``passes`` on, and write those of the parameters where there is ``later``.

        Arguments:
            gradient: of the output; it stays as it is.
            memory: what ``forward`` has left.
            back: as much, for the gradients of the layers' outputs.
        """
        back[-1][0].copy_(gradient)
        gradient = back[-1][0]
        for number in reversed(range(1, len(self._layers))):
            gradient = self._layers[number].backward(
                gradient, memory[number - 1][0], memory[number], back[number - 1][0], products, later
            )
        into = torch.empty_like(x) if passes else None
        return self._layers[0].backward(gradient, x, memory[0], into, products, later)
