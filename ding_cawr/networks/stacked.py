"""Networks of one shape, those of all replicas, run at once under autograd."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ding_cawr.networks.optimizers import SGD, Adam
from ding_cawr.networks.products import Plain, available, fastest


class Stacked:
    """E networks of each of R replicas, all of the same layers, as one function of tensors.

    The modules stay usable: their parameters become views of the stacked ones.

    Arguments:
        replicas: for each replica its E networks, each a ``Sequential`` of ``nn.Linear``, ``nn.ReLU``, ``nn.LayerNorm``
            over the last dimension, and layers without parameters.
    """

    def __init__(self, replicas: Sequence[Sequence[nn.Sequential]]) -> None:
        nets = [net for networks in replicas for net in networks]
        self._layers, self._shape = list(nets[0]), (len(replicas), len(replicas[0]))
        #: By name, with R * E as the first dimension, for the optimizer.
        self.parameters: dict[str, nn.Parameter] = {}
        for name, _ in nets[0].named_parameters():
            stacked = nn.Parameter(torch.stack([net.get_parameter(name).detach() for net in nets]))
            stacked.grad = torch.zeros_like(stacked)
            self.parameters[name] = stacked
            for number, net in enumerate(nets):
                net.get_parameter(name).data = stacked.data[number]
        like = next(iter(self.parameters.values()))
        linears = [layer for layer in self._layers if isinstance(layer, nn.Linear)]
        hidden = max(linears[1:-1] or linears[:1], key=lambda layer: layer.weight.numel())
        self._widest = hidden.in_features, hidden.out_features
        self.products = fastest(*self._widest, like)
        # On a GPU all networks are one batch of products; on a CPU they run one by one.
        parts = [...] if like.is_cuda else range(len(nets))
        self._leaves = [
            {name: each.detach()[part].requires_grad_() for name, each in self.parameters.items()} for part in parts
        ]
        self._frozen = [{name: each.detach() for name, each in part.items()} for part in self._leaves]
        #: The tensors that autograd differentiates by, and the memory of their gradients.
        self.leaves = [leaf for part in self._leaves for leaf in part.values()]
        self.gradients = [each.grad[part] for part in parts for each in self.parameters.values()]

    def __call__(self, inputs: Tensor, frozen: bool = False, count: int | None = None) -> Tensor:
        """Return the outputs (R, E, B, O) for inputs (R, B, I) that the E networks of a replica share.

        Arguments:
            frozen: whether the parameters are constants, so that gradients pass to the inputs alone.
            count: networks of each replica to run, the first ones; None: all E.
        """
        (replicas, networks), leaves = self._shape, self._frozen if frozen else self._leaves
        count = count or networks
        if inputs.is_cuda:
            x = inputs.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
            first = {name: each.unflatten(0, self._shape)[:, :count].flatten(0, 1) for name, each in leaves[0].items()}
            outputs = self._run(x, first)
        else:
            outputs = torch.stack([
                self._run(inputs[r], leaves[r * networks + e]) for r in range(replicas) for e in range(count)
            ])
        return outputs.unflatten(0, (replicas, count))

    def _run(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Return the output of one network (B, I), or of a batch of them (R * E, B, I)."""
        fused = False
        for number, (layer, following) in enumerate(zip(self._layers, [*self._layers[1:], None])):
            if fused:  # this is the ReLU
                fused = False
                continue
            own = [parameters.get(f'{number}.{name}') for name in ('weight', 'bias')]
            if isinstance(layer, nn.Linear):
                # A hidden layer and its ReLU are one function, for which there is the fastest product.
                fused = isinstance(following, nn.ReLU) and x.dim() == 2
                x = Hidden.apply(x, *own, self.products) if fused else _affine(x, *own)
            elif isinstance(layer, nn.LayerNorm):
                weight, bias = (each.unsqueeze(-2) for each in own)
                x = F.layer_norm(x, layer.normalized_shape, eps=layer.eps) * weight + bias
            else:
                x = layer(x)
        return x

    def use_products(self, name: str) -> bool:
        """Take the products of a back end; return whether it can be had here."""
        found = available(name, *self._widest, next(iter(self.parameters.values())))
        self.products = found or self.products
        return found is not None

    @torch.no_grad()
    def move(self, towards: Stacked, theta: float) -> None:
        """Move all parameters a little: φ ← φ + theta (φ' - φ)."""
        torch._foreach_lerp_(list(self.parameters.values()), list(towards.parameters.values()), theta)


def descend(loss: Tensor, optimizer: Adam | SGD, *nets: Stacked) -> None:
    """Take a step of the optimizer of these networks along the gradient of a loss (R,), each replica its own."""
    leaves = [leaf for net in nets for leaf in net.leaves]
    places = [gradient for net in nets for gradient in net.gradients]
    torch._foreach_copy_(places, torch.autograd.grad(loss.sum(), leaves))
    optimizer.step()


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x Wᵀ + b of one layer, or of a batch of them."""
    return F.linear(x, weight, bias) if x.dim() == 2 else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


class Hidden(torch.autograd.Function):
    """max(x Wᵀ + b, 0) of x (B, I), W (O, I) and b (O,), by the products of a back end."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, products: Plain) -> Tensor:
        memory = x.new_empty(x.shape[0], weight.shape[0])
        output = products.relu(x, weight.mT, bias.unsqueeze(0), memory)
        ctx.products = products
        ctx.save_for_backward(x, weight, output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, output = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = ctx.products.input_gradient(gradient, weight.mT)
        if ctx.needs_input_grad[1]:
            of_weight, of_bias = torch.empty_like(weight), gradient.sum(dim=0)
            ctx.products.weight_gradient(gradient, x, of_weight)
        return of_x, of_weight, of_bias, None
