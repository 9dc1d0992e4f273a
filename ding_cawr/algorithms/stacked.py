"""Implement the base class of algorithms that differentiate losses of ``Stacked`` networks by autograd."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.base import Algorithm, Tree
from ding_cawr.algorithms.settings import LearnSettings
from ding_cawr.data.buffer import Sample
from ding_cawr.networks.optimizers import Optimizer
from ding_cawr.networks.stacked import Stacked, descend, take_fastest


class StackedAlgorithm(Algorithm):
    """Trains networks of the class ``Stacked``, each with those of all replicas.

    Attributes:
        trained: networks by the name of the optimizer that moves them.
        targets: networks that no optimizer moves.
        optimizers: by name.
        latest: the latest losses (R,) that not every iteration has, by the name of the optimizer.
    """
    trained: Mapping[str, Sequence[Stacked]]
    targets: Sequence[Stacked] = ()
    optimizers: Mapping[str, Optimizer]
    latest: Mapping[str, Tensor]

    def __init__(self, models: nn.Module | Sequence[nn.Module], settings: LearnSettings) -> None:
        self.settings, self.replica_shape = settings, () if isinstance(models, nn.Module) else (len(models), )
        self.models = [models] if isinstance(models, nn.Module) else list(models)
        #: An empty tensor of the device and dtype of the parameters.
        self.like = next(self.models[0].parameters()).detach().new_empty(0)
        self.iteration = torch.zeros((), dtype=torch.float64, device=self.like.device)

    def _train(
        self, trained: Mapping[str, Sequence[Stacked]],
        optimizer: Callable[[str, Mapping[str, nn.Parameter]], Optimizer], latest: Sequence[str]
    ) -> None:
        """Make an optimizer of each name; called once, at the end of ``__init__``.

        Arguments:
            optimizer: makes one of a name and parameters.
            latest: names of the losses that not every iteration has.
        """
        self.trained = trained
        self.optimizers = {
            name: optimizer(name, {
                f'{number}.{key}': each for number, net in enumerate(nets) for key, each in net.parameters.items()
            }) for name, nets in trained.items()
        }
        self.latest = {name: self.like.new_zeros(len(self.models)) for name in latest}
        take_fastest(self._nets())

    def _nets(self) -> list[Stacked]:
        return [*(net for nets in self.trained.values() for net in nets), *self.targets]

    @property
    def products(self) -> str:
        return self._nets()[0].products.name

    def use_products(self, name: str) -> bool:
        return all([net.use_products(name) for net in self._nets()])

    def _columns(self, sample: Sample, *names: str) -> list[Tensor]:
        """Return columns of a draw with R in front; done is 0 everywhere where it is ignored."""
        columns = {name: sample.batch[name] for name in names}
        if not self.replica_shape:
            columns = {name: column.unsqueeze(0) for name, column in columns.items()}
        if 'done' in columns:
            done = columns['done'].to(self.like.dtype)
            columns['done'] = torch.zeros_like(done) if self.settings.ignore_done else done
        return list(columns.values())

    def _without_replicas(self, quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return quantities as a step gives them: without R for a single run."""
        return {name: (each if self.replica_shape else each[0]).detach() for name, each in quantities.items()}

    def _descend(self, loss: Tensor, name: str) -> None:
        """Take a step of an optimizer along the gradient of a loss (R,)."""
        descend(loss, self.optimizers[name], *self.trained[name])
        if name in self.latest:
            self.latest[name].copy_(loss.detach())

    def tree(self, replica: int = 0) -> Tree:
        """Return model, moments and latest losses of one replica; not copies."""
        return {
            'model': dict(self.models[replica].state_dict()),
            'optimizer': {
                name: optimizer.of_replica(replica, len(self.models)) for name, optimizer in self.optimizers.items()
            },
            'latest': {name: each[replica:replica + 1] for name, each in self.latest.items()},
        }

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes."""
        moments = [part for optimizer in self.optimizers.values() for part in optimizer.tensors()]
        parameters = [parameter.detach() for net in self._nets() for parameter in net.parameters.values()]
        return [self.iteration, *self.latest.values(), *parameters, *moments]
