"""The contract of an algorithm: its settings, the result of one iteration, and the methods that the package calls."""
from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ding_cawr.checks import POSITIVE_INT, SHARE, Bound, Flag, Kind, OrNone, nearest, plain
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.networks.products import Plain
from ding_cawr.runs.state import check_tree, shape_of

#: Nested dicts whose leaves are tensors.
Tree = dict[str, Any]
#: Rows of a whole dataset that networks take at a time, those of all replicas counted.
CHUNK = 1 << 15


def setting(default: Any, kind: Kind, doc: str) -> Any:
    """Return a field of a ``Settings`` class: the default as a user writes it, what the setting may be, its comment."""
    return dataclasses.field(metadata=dict(default=default, kind=kind, doc=doc))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a section of the configuration: the key, its default, its bound and its comment in one place.

    A field holds the value as it is used, for example a function where the user gives its name.
    """

    @classmethod
    def read(cls, section: Mapping[str, Any], place: str = 'learn', exact: bool = False) -> Any:
        """Return the settings of a section; keys that it lacks have their defaults.

        Arguments:
            section: values by key, as a user writes them, also as NumPy's; other keys are not looked at.
            place: name of the section, for messages.
            exact: whether another key is an error.

        Raises:
            TypeError: another key, where ``exact``.
            ValueError: a value is not what its key may be; the message names the key, the value and what it must be.
        """
        fields = {field.name: field.metadata for field in dataclasses.fields(cls)}
        for name in section if exact else ():
            if name not in fields:
                raise TypeError(f'{place} has no {name!r}; it has {", ".join(fields)}{nearest(name, fields)}')
        return cls(**{
            name: about['kind'].check(f'{place}.{name}', plain(section.get(name, about['default'])))
            for name, about in fields.items()
        })

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of each key, as a user writes it."""
        return {field.name: field.metadata['default'] for field in dataclasses.fields(cls)}


class WidthsKind:
    """Widths of hidden layers."""

    def __str__(self) -> str:
        return 'a list of widths, such as (256, 256)'

    def check(self, key: str, value: Any) -> list[int]:
        """Return the widths."""
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f'{key} is {value!r}; it must be {self}')
        return [POSITIVE_INT.check(f'an entry of {key}', width) for width in value]


@dataclass(frozen=True, kw_only=True)
class LearnSettings(Settings):
    """The keys of ``policy.learn`` that every algorithm has."""
    train_epoch: int = setting(
        400_000, POSITIVE_INT, 'Passes over the loader. With offline_transitions a pass is one iteration.'
    )
    batch_size: int = setting(512, POSITIVE_INT, 'Samples n of each batch that an iteration draws.')
    ignore_done: bool = setting(False, Flag(), 'Treat every transition as not terminal.')
    discount_factor: float = setting(0.99, Bound(0, 1), 'γ.')
    cuda_graph: bool = setting(
        True, Flag(), 'On a GPU, replay the iteration as one CUDA graph (offline_transitions only).'
    )
    best_episodes: float | None = setting(
        None, OrNone(SHARE), 'Effective share of the dataset that the policy learns from: a row is drawn in '
        'proportion to exp(R / λ), R being the return of its episode. None: all rows alike.'
    )
    keep_checkpoints: int | None = setting(
        5, OrNone(POSITIVE_INT), 'Number of periodic checkpoints that stay, beside the best. None keeps all.'
    )

    #: Exponent on the priority in prioritized draws.
    exponent: ClassVar[float] = 1.0
    #: Iterations after which the priorities of the whole dataset are renewed; None: never.
    priority_refresh: ClassVar[int | None] = None
    #: Keys that newer versions added. A run's identity leaves them out while they have their defaults, so that stored
    #: results still count as the same runs.
    added_later: ClassVar[tuple[str, ...]] = ('best_episodes', )
    #: Keys that name a checkpoint whose networks are taken and stay fixed. The run's own checkpoints hold them, too.
    taken_from: ClassVar[tuple[str, ...]] = ()
    #: Keys that may hold the length of the run, for a schedule that spans it.
    spans_run: ClassVar[tuple[str, ...]] = ()
    #: Keys that are an error for policies without them, each with the value that is allowed there.
    refused_elsewhere: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def idle(self) -> set[str]:
        """Return the keys that have no effect with the other settings."""
        return set()


class Preset(NamedTuple):
    """Settings with a name, such as those of a paper.

    Attributes:
        description: what it is, as part of a sentence.
        sections: gives the sections ``learn``, ``env`` and ``model`` of the configuration, for (env_id, data_path,
            iterations).
        namesake: module of a policy that newer versions of DI-engine have under the same name, or None.
    """
    description: str
    sections: Callable[[str, Any, int], dict]
    namesake: str | None = None


#: Section ``env`` of presets that normalize observations by the dataset's mean and its standard deviation plus 1e-3.
NORMALIZED = dict(norm_obs=dict(use_norm=True, offline_stats=dict(use_offline_stats=True)))


class Step(NamedTuple):
    """The result of one iteration, detached. Leading dimensions are (), or (R,) for R replicas.

    The names are the same in every step, and neither 'iteration' nor 'drawn'.

    Attributes:
        losses: by name, (...).
        per_sample: by name, (..., B) of all samples that were drawn in the order of the draws, or of those of one draw.
        priority: of all samples that were drawn, (..., B), or None where the draws do not depend on it.
        single_draw: where there are several draws, of one size: the index of the draw that a quantity or loss belongs
            to, by name, for those that do not cover all draws. The last draw has such.
    """
    losses: dict[str, Tensor]
    per_sample: dict[str, Tensor]
    priority: Tensor | None
    single_draw: Mapping[str, int] = MappingProxyType({})


class Algorithm(ABC):
    """Trains a model, or those of R replicas at once.

    Whatever an iteration changes, it changes in place and without waiting for the device, so that a CUDA graph can
    replay it.

    Attributes:
        models: one for each replica; a list of one for a single run.
        replica_shape: () for a single run, (R,) for replicas: what the shapes of all quantities begin with.
        iteration: number of iterations done, a float64 scalar on the device.
        draws: kinds of draws that a step wants, by the names of the buffer ('uniform', 'prioritized').
        period: number of iterations after which the variants repeat.
        phase: where in the period an iteration is, 0 to period - 1, set before each.
        variants: number of different iterations, by default one for each phase.
        variant: that of the present phase, 0 to variants - 1. A step may look at it and at nothing else of the host,
            as a CUDA graph is recorded for each variant.
        generators: the run's random generators, one for each replica, set before the first step. Whatever noise a step
            adds must come from them: the checkpoint, the recorded graph and replicas hold them.
    """
    #: Name in DI-engine's registries.
    name: ClassVar[str]
    #: Class of the networks; its ``forward`` gives the actions of evaluation, its ``explore`` those of collecting.
    Model: ClassVar[type[nn.Module]]
    #: Keys of ``policy.model`` beside obs_shape and action_shape.
    ModelSettings: ClassVar[type[Settings]]
    #: Keys of ``policy.learn``.
    Settings: ClassVar[type[LearnSettings]]
    #: The presets of ``make_config`` by name; the first is the algorithm's default.
    PRESETS: ClassVar[Mapping[str, Preset]]
    #: True if the model can have discrete actions, which ``model.action_space='discrete'`` asks for.
    takes_discrete: ClassVar[bool] = False
    #: True if the algorithm learns from whole trajectories. Its online buffer then keeps and drops whole trajectories.
    whole_trajectories: ClassVar[bool] = False
    #: Rows that are kept of those that are pushed or collected.
    buffer_size: ClassVar[int] = 1_000_000
    #: Steps of a collection online where the configuration says nothing; None: it must.
    n_sample: ClassVar[int | None] = None
    #: Our key for each name that another implementation gives to a setting.
    SYNONYMS: ClassVar[Mapping[str, str]] = {}
    #: Bounds of numbers in ``tree`` by the last part of their name, where finite is not enough.
    STATE_BOUNDS: ClassVar[Mapping[str, Any]] = {}

    models: Sequence[nn.Module]
    replica_shape: tuple[int, ...]
    iteration: Tensor
    draws: tuple[str, ...]
    settings: LearnSettings
    generators: Sequence[torch.Generator]
    #: The ``Selection`` that gives weights and priorities; None where an algorithm has none.
    selection: Any = None
    #: Columns of a table beside its rows that training depends on; the run's data are recognized by them, too.
    reads: tuple[str, ...] = ()
    period: int = 1
    phase: int = 0

    @abstractmethod
    def __init__(self, models: nn.Module | Sequence[nn.Module], settings: LearnSettings) -> None:
        """Make what trains a model, or those of R replicas.

        Arguments:
            models: the model, or a list of R of them. Each has ``obs_shape``, ``action_shape`` and ``explore``.
        """

    @classmethod
    def metric_names(cls, settings: LearnSettings) -> list[str]:
        """Return the names of what ``metrics`` gives."""
        raise NotImplementedError

    @staticmethod
    def actor(state: Mapping[str, Any], source: str) -> nn.Module:
        """Return the network that acts, from a checkpoint's state: observations (B, O) to actions (B, A).

        Arguments:
            state: what the checkpoint holds.
            source: its path, for messages.

        Returns:
            A module with the attributes ``obs_shape`` and ``action_shape``, in float32 on the CPU.

        Raises:
            ValueError: something is missing, of other shapes, or not finite.
        """
        raise NotImplementedError

    @classmethod
    def check_replicas(cls, settings: LearnSettings) -> None:
        """Raise a ValueError for settings that only a single run can have; the default has none."""

    @classmethod
    def check_length(cls, settings: LearnSettings, total: int) -> None:
        """Warn of settings that do not fit a run that ends at iteration ``total``; the default looks for none."""

    @classmethod
    def check_online(cls, settings: LearnSettings) -> None:
        """Raise a ValueError for settings that a run which collects cannot have."""
        if settings.best_episodes is not None:
            raise ValueError(
                f'learn.best_episodes is {settings.best_episodes}, which is for datasets; set it to None where the '
                'policy collects'
            )

    @classmethod
    def check_dataset(cls, settings: LearnSettings, data: Transitions) -> None:
        """Raise a ValueError for settings that need what a dataset does not have; warn of those that misread it."""
        if settings.ignore_done and (terminations := int((data.done > 0).sum())):
            warnings.warn(
                f'learn.ignore_done is True, but {terminations} rows of {data.source} are terminations: the value of '
                "their next observation counts, which in D4RL's layout without next_observations is the first one of "
                'the next episode. Set it to False', stacklevel=2
            )
        if settings.best_episodes is not None and (data.table.whole is None or not data.table.whole.any()):
            lacks = 'has no whole episode' if data.table.whole is not None else 'does not tell episodes apart'
            raise ValueError(
                f'{data.source} {lacks}, or one of the files does not, and learn.best_episodes is '
                f"{settings.best_episodes}; set learn.best_episodes to None, or take data in Minari's layout, or in "
                "D4RL's with timeouts where they belong"
            )

    @classmethod
    def check_stock_rows(cls, settings: LearnSettings, data_type: str) -> None:
        """Raise a ValueError for settings that need a whole dataset."""
        if settings.best_episodes is not None:
            raise ValueError(
                f'learn.best_episodes is {settings.best_episodes}, which needs whole episodes, but data_type '
                f"{data_type!r} gives rows in any order; take 'offline_transitions', or set it to None"
            )

    def begin(self, data: Table, obs_statistics: Tensor | None) -> Tensor | None:
        """Take a dataset up before training on it; the default does nothing.

        Arguments:
            data: its rows, on the device.
            obs_statistics: mean and standard deviation (2, O) that its observations were normalized with, or None.

        Returns:
            Priorities of all rows (N,), or None where they stay equal.
        """

    def begin_round(self, data: Table, new: Table) -> int | None:
        """Take up rows that were collected online; return the iterations that follow from them, a round, whose first
        has phase 0. None, the default, is one iteration in the phase that comes next.

        Arguments:
            data: all rows of the buffer.
            new: those of them that came since the last time.
        """
        return None

    def prepare(self, data: Table) -> Mapping[str, Tensor]:
        """Do what the present phase needs of all rows before its iteration; by default nothing.

        A CUDA graph does not hold it, so that it may wait for the device. What ``step`` reads of it stays in place.

        Returns:
            Quantities (..., N) that must be finite, by name; none where the phase needs nothing.
        """
        return {}

    def check_ends(self, data: Table, source: str) -> None:
        """Raise a ValueError for rows in any order where it must know where trajectories end; the default need not."""

    @property
    def variants(self) -> int:
        return self.period

    @property
    def variant(self) -> int:
        return self.phase

    @property
    def products(self) -> str:
        """Name of the back end of the networks' products: see ``networks/products.py``."""
        return Plain.name

    def use_products(self, name: str) -> bool:
        """Take the products of a back end; return whether it can be had here."""
        return name == Plain.name

    @abstractmethod
    def step(self, draws: Mapping[str, Sample]) -> Step:
        """Return what one iteration on these draws gave."""

    def quantities(self, data: Table) -> dict[str, Tensor]:
        """Return the quantities (..., N) of a whole dataset that priorities come from, by name."""
        raise NotImplementedError(f'{type(self).__name__} has no priorities to renew')

    def renew(self, per_sample: Mapping[str, Tensor]) -> Tensor:
        """Return priorities (..., N) of a whole dataset, from its ``quantities``."""
        if self.selection is None:
            raise NotImplementedError(f'{type(self).__name__} has no priorities to renew')
        return self.selection.renew(per_sample['advantage']).priority

    @abstractmethod
    def metrics(self, step: Step) -> dict[str, Tensor]:
        """Return quantities of the latest step for the log, each a scalar, or one for each replica.

        A variant may return only the quantities that it changes.
        """

    @abstractmethod
    def tree(self, replica: int = 0) -> Tree:
        """Return the tensors that one replica's training goes on from, as those of a single run; not copies.

        'model' has those of the model's ``state_dict``, which acting loads.
        """

    def check_settings(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError that names the setting by which a state has other parts than ``tree``; the default looks
        for none."""

    def check_state(self, state: Tree, iteration: int) -> None:
        """Raise a ValueError for a state whose numbers no run of ``iteration`` iterations has; by default for none.

        Arguments:
            state: has the names, types and shapes of ``tree``, and numbers within STATE_BOUNDS.
        """

    @property
    def units(self) -> dict[str, float]:
        """Return the numbers that say what estimates of returns mean, by name. A checkpoint keeps them."""
        return {name: float(getattr(self.settings, name)) for name in ('discount_factor', 'ignore_done')}

    def check_units(self, found: Mapping[str, float]) -> None:
        """Look at the units of networks that are about to be loaded; warn of settings that give their estimates another
        meaning from here on.

        Raises:
            ValueError: a setting asks for units in which the networks cannot be read.
        """
        for name in ('discount_factor', 'ignore_done'):
            here = getattr(self.settings, name)
            if found[name] != here:
                before = bool(found[name]) if isinstance(here, bool) else found[name]
                warnings.warn(
                    f'learn.{name} is {here}, but the networks of the checkpoint were trained with {before}: their '
                    'estimates of returns begin as those of that; to go on as before, set it to that', stacklevel=4
                )

    def resumed(self) -> None:
        """Follow a state that was just copied into ``tree`` and ``iteration``; the default does nothing."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """Return all tensors that an iteration changes, each once."""

    def state_dict(self, replica: int = 0) -> Tree:
        """Return a copy of ``tree``."""
        return map_tree(torch.clone, self.tree(replica))

    @torch.no_grad()
    def load_state_dict(self, state: Tree, iteration: int) -> None:
        """Go on from a single run's state, which has the names and shapes of ``tree``, and in its ``units``."""
        copy_tree(state, self.tree())
        self.iteration.fill_(iteration)
        self.resumed()


def model_width(name: str, value: Any) -> int:
    """Return one width; DI-engine's configurations write it as 11 or [11]."""
    widths = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(widths) != 1:
        raise ValueError(f'model.{name} is {value}; only vectors are supported (one width), not images')
    return POSITIVE_INT.check(f'model.{name}', widths[0])


def read_actor(
    state: Mapping[str, Any], source: str, part: str, build: Callable[[int, int, Sequence[int]], nn.Module]
) -> nn.Module:
    """Return the network that acts from a checkpoint's state, on the CPU in float32.

    Arguments:
        part: its name in the model. Its module ``net`` has a linear layer at every second place.
        build: makes it from the widths of observations, actions and hidden layers; those of the tensors are taken.

    Raises:
        ValueError: a tensor is missing, of another shape, or not finite.
    """
    model = state.get('model')
    tensors = {
        name.removeprefix(f'{part}.'): tensor for name, tensor in (model if isinstance(model, dict) else {}).items()
        if isinstance(name, str) and name.startswith(f'{part}.')
    }
    layers = max(2, sum(name.endswith('.weight') for name in tensors))
    weights = {name: tensors.get(name) for name in (f'net.{2 * layer}.weight' for layer in range(layers))}
    for name, weight in weights.items():
        if len(shape_of(weight)) != 2:
            raise ValueError(
                f'{source} is not a checkpoint of a learner of this package: {part}.{name} is {shape_of(weight)}, and '
                'it must be a matrix'
            )
    widths = [weights['net.0.weight'].shape[1], *(weight.shape[0] for weight in weights.values())]
    with torch.device('meta'):  # memory and random numbers would be for nothing
        network = build(widths[0], widths[-1], widths[1:-1])
    check_tree(tensors, network.state_dict(), f'{source}: {part}', any_float=True)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return network


def map_tree(function: Any, tree: Tree) -> Tree:
    """Return a tree with a function's results in the place of the tensors."""
    return {name: map_tree(function, part) if isinstance(part, dict) else function(part) for name, part in tree.items()}


def copy_tree(source: Tree, target: Tree) -> None:
    """Copy the tensors of one tree into those of another."""
    for name, part in target.items():
        copy_tree(source[name], part) if isinstance(part, dict) else part.copy_(source[name])
