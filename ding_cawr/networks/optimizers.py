"""Adam and SGD whose moments exist before the first step, so that a state can be compared with a fresh one."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8
#: Names of the moments of a parameter, by optimizer.
MOMENTS = {'adam': {'step', 'exp_avg', 'exp_avg_sq'}, 'sgd': {'momentum_buffer'}}


def moments_of(state: Any) -> set:
    """Return the names of the moments in a state, nested dicts, of optimizers, an empty set for anything else."""
    if not isinstance(state, Mapping):
        return set()
    below = [part for part in state.values() if isinstance(part, Mapping)]
    return set().union(*map(moments_of, below)) if below else set(state)


class Optimizer:
    """Parameters and the moments of each.

    Attributes:
        parameters: by name.
        moments: by the parameter's name, tensors in its shape, and counts ().
    """
    parameters: dict[str, nn.Parameter]
    moments: dict[str, dict[str, Tensor]]

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes, other than the parameters."""
        return [tensor for moments in self.moments.values() for tensor in moments.values()]

    def of_replica(self, replica: int, replicas: int) -> dict[str, dict[str, Tensor]]:
        """Return the moments of one replica, where the first dimension of parameters is all replicas' networks; not
        copies. Counts are common."""
        def own(part: Tensor) -> Tensor:
            size = len(part) // replicas if part.dim() else 0
            return part[replica * size:(replica + 1) * size] if size else part

        return {name: {what: own(part) for what, part in moments.items()} for name, moments in self.moments.items()}


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015) with torch's constants, for whole parameters or for single rows of them.

    ``torch.optim.Adam`` spends as long outside of the fused kernel as in it, and cannot move a part of a parameter.

    Arguments:
        parameters: by name; one whose ``.grad`` is None stays as it is.
        rates: the learning rate of all, or one by each name; a tensor, on the device, may be changed in place.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], rates: float | Tensor | Mapping[str, float | Tensor]
    ) -> None:
        self.parameters = dict(parameters)
        self.rates = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(parameters, rates)
        self.moments = {
            name: {
                'step': torch.zeros((), dtype=torch.float32, device=parameter.device),
                'exp_avg': torch.zeros_like(parameter.detach()), 'exp_avg_sq': torch.zeros_like(parameter.detach()),
            }
            for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """Take a step along the gradients that are there."""
        names: dict[int, list[str]] = {}
        for name in self._moving():
            names.setdefault(id(self.rates[name]), []).append(name)
        for together in names.values():
            self._fused([self._part(name) for name in together], self.rates[together[0]])
        self.count()

    def move(self, name: str, row: int) -> None:
        """Take the step of one row of a parameter; ``count`` comes after those of all rows."""
        if self.parameters[name].grad is not None:
            self._fused([self._part(name, row)], self.rates[name])

    def count(self) -> None:
        """Count a step of the parameters that have a gradient."""
        steps = [self.moments[name]['step'] for name in self._moving()]
        if steps:
            torch._foreach_add_(steps, 1)

    def _moving(self) -> list[str]:
        return [name for name, parameter in self.parameters.items() if parameter.grad is not None]

    def _part(self, name: str, row: int | None = None) -> tuple[Tensor, ...]:
        """Return a parameter, its gradient and its moments, or a row of each, and the count of steps before."""
        parameter, moments = self.parameters[name], self.moments[name]
        parts = parameter.detach(), parameter.grad, moments['exp_avg'], moments['exp_avg_sq']
        return *(parts if row is None else (part[row] for part in parts)), moments['step']

    @staticmethod
    def _fused(parts: list[tuple[Tensor, ...]], rate: float | Tensor) -> None:
        parameters, gradients, averages, squares, steps = map(list, zip(*parts))
        torch._fused_adam_(
            parameters, gradients, averages, squares, [], torch._foreach_add(steps, 1), lr=rate, beta1=BETAS[0],
            beta2=BETAS[1], weight_decay=0.0, eps=EPSILON, amsgrad=False, maximize=False
        )


class SGD(Optimizer):
    """Gradient descent with momentum: m ← μ m + g, φ ← φ - rate m.

    Arguments:
        parameters: by name, each with its gradient in ``.grad``.
        rate: learning rate.
        momentum: μ.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], rate: float, momentum: float) -> None:
        self.parameters, self.rate, self.momentum = dict(parameters), rate, momentum
        self.moments = {
            name: {'momentum_buffer': torch.zeros_like(parameter.detach())} for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """Take a step along the gradients."""
        momenta = self.tensors()
        torch._foreach_mul_(momenta, self.momentum)
        torch._foreach_add_(momenta, [parameter.grad for parameter in self.parameters.values()])
        torch._foreach_add_(list(self.parameters.values()), momenta, alpha=-self.rate)
