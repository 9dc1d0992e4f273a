"""The smallest algorithm: behaviour cloning with plain modules and autograd, by which the contract is tested."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.base import Algorithm, Step, Tree
from ding_cawr.algorithms.settings import LearnSettings, Preset, Settings, setting
from ding_cawr.checks import POSITIVE, POSITIVE_INT, Bound
from ding_cawr.networks.optimizers import Adam
from ding_cawr.runs.state import check_tree


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    width: int = setting(32, POSITIVE_INT, 'Width of the hidden layer.')


@dataclass(frozen=True, kw_only=True)
class CloningSettings(LearnSettings):
    learning_rate: float = setting(1e-2, POSITIVE, "Adam's learning rate.")


class Cloner(nn.Module):
    """μ(s): (B, O) to (B, A)."""

    def __init__(self, obs_shape: int, action_shape: int, width: int = 32, hidden_sizes: Any = None) -> None:
        super().__init__()
        self.obs_shape, self.action_shape = obs_shape, action_shape
        self.net = nn.Sequential(nn.Linear(obs_shape, width), nn.Tanh(), nn.Linear(width, action_shape))

    def forward(self, obs: Tensor) -> Tensor:
        return self.net(obs).clamp(-1, 1)

    explore = forward


class Cloning(Algorithm):
    """The squared error on uniform draws; R models run as one by vmap, their parameters being views of common ones."""
    name, Model, ModelSettings, Settings = 'cloning', Cloner, ModelSettings, CloningSettings
    PRESETS = {'cloning': Preset('behaviour cloning with plain modules', lambda *about: dict(learn={}))}
    STATE_BOUNDS = {'exp_avg_sq': Bound(0), 'step': Bound(0)}
    draw_kinds = ('uniform', )

    def __init__(self, models: Cloner | Sequence[Cloner], settings: CloningSettings) -> None:
        self.settings, self.replica_shape = settings, () if isinstance(models, nn.Module) else (len(models), )
        self.models = [models] if isinstance(models, nn.Module) else list(models)
        stacked, _ = torch.func.stack_module_state(self.models)
        self.parameters = {name: nn.Parameter(tensor.detach()) for name, tensor in stacked.items()}
        for r, model in enumerate(self.models):
            for name, parameter in model.named_parameters():
                parameter.data = self.parameters[name].data[r]
        self.optimizer = Adam(self.parameters, dict.fromkeys(self.parameters, settings.learning_rate))
        self.iteration = torch.zeros((), dtype=torch.float64, device=next(iter(self.parameters.values())).device)

    def step(self, draws: Mapping[str, Any]) -> Step:
        batch = draws['uniform'].batch
        obs, action = (batch[name] if self.replica_shape else batch[name].unsqueeze(0) for name in ('obs', 'action'))
        mean = torch.func.vmap(lambda parameters, x: torch.func.functional_call(self.models[0], parameters, (x, )))(
            self.parameters, obs
        )
        error = (action - mean).square().sum(dim=-1)
        loss = error.mean(dim=-1)
        for name, gradient in zip(self.parameters, torch.autograd.grad(loss.sum(), list(self.parameters.values()))):
            parameter = self.parameters[name]
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(gradient)
        self.optimizer.step()
        self.iteration += 1
        return Step({'loss': self._of(loss)}, {'error': self._of(error)}, None)

    def _of(self, tensor: Tensor) -> Tensor:
        return tensor.detach() if self.replica_shape else tensor.detach()[0]

    @classmethod
    def metric_names(cls, settings: CloningSettings) -> list[str]:
        return ['loss', 'worst']

    def metrics(self, step: Step) -> dict[str, Tensor]:
        return {'loss': step.losses['loss'], 'worst': step.per_sample['error'].amax(dim=-1)}

    def tree(self, replica: int = 0) -> Tree:
        return {
            'model': dict(self.models[replica].state_dict()),
            'optimizer': {
                name: {key: part[replica] if part.dim() else part for key, part in parts.items()}
                for name, parts in self.optimizer.moments.items()
            },
        }

    def tensors(self) -> list[Tensor]:
        return [self.iteration, *(parameter.data for parameter in self.parameters.values()), *self.optimizer.tensors()]

    @staticmethod
    def actor(state: Mapping[str, Any], source: str) -> nn.Module:
        weights = [state['model'].get(f'net.{layer}.weight') for layer in (0, 2)]
        if not all(isinstance(weight, Tensor) for weight in weights):
            raise ValueError(f'{source}: its model has no layers')
        network = Cloner(weights[0].shape[1], weights[1].shape[0], weights[0].shape[0])
        check_tree(state['model'], network.state_dict(), f'{source}: model')
        network.load_state_dict(state['model'])
        return network
