"""The contract of an algorithm: the result of one iteration, and the methods that the package calls."""
from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ding_cawr.algorithms.settings import LearnSettings, Preset, Settings
from ding_cawr.data.buffer import Sample
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.networks.products import Plain

#: Nested dicts whose leaves are tensors.
Tree = dict[str, Any]
#: Rows of a whole dataset that networks take at a time, those of all replicas counted.
CHUNK = 1 << 15


class Step(NamedTuple):
    """The result of one iteration, detached. Leading dimensions are (), or (R,) for R replicas.

    Every step has the same names. 'iteration' and 'drawn' are reserved for ``Watch``.

    Attributes:
        losses: by name, (...).
        per_sample: by name, (..., B) of all samples that were drawn in the order of the draws, or of those of one draw.
        priority: of all samples that were drawn, (..., B), or None where the draws do not depend on it.
        single_draw: by name, the index of the draw that a quantity or loss covers, for those that cover one draw only.
            All draws have the same size. At least one entry names the last draw.
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
        draw_kinds: kinds of draws that a step wants, by the names of the buffer ('uniform', 'prioritized').
        period: number of iterations after which the variants repeat.
        phase: where in the period an iteration is, 0 to period - 1, set before each.
        variants: number of different iterations.
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
    #: Our key for each name that another implementation gives to a setting of ``learn``, or of the section before it.
    SYNONYMS: ClassVar[Mapping[str, str]] = {}
    #: Keys of ``policy.learn`` that have another meaning in DI-engine's policies. By key: the keys whose presence shows
    #: that meaning, and the meaning.
    HOMONYMS: ClassVar[Mapping[str, tuple[Collection[str], str]]] = {}
    #: Bounds of numbers in ``tree`` by the last part of their name, where finite is not enough.
    STATE_BOUNDS: ClassVar[Mapping[str, Any]] = {}

    models: Sequence[nn.Module]
    replica_shape: tuple[int, ...]
    iteration: Tensor
    draw_kinds: tuple[str, ...]
    settings: LearnSettings
    generators: Sequence[torch.Generator]
    #: The ``Selection`` that gives weights and priorities; None where an algorithm has none.
    selection: Any = None
    #: Columns of a table beside its rows that training depends on; the run's data are recognized by them, too.
    reads: tuple[str, ...] = ()
    period: int = 1
    phase: int = 0
    variants: int = 1
    variant: int = 0

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
        """Accept rows that were collected online. Return the number of iterations to do on them, a round whose first
        iteration has phase 0. None, the default, means one iteration, in the next phase.

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
        """Raise a ValueError where the algorithm needs the ends of trajectories and the rows do not have them; the
        default does not need them."""

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
        """Raise a ValueError that names the setting in which a state and this run differ, where that gives the state
        other parts than ``tree``. The default checks nothing."""

    def check_state(self, state: Tree, iteration: int) -> None:
        """Raise a ValueError for a state whose numbers no run of ``iteration`` iterations has; by default look at
        those of the selection.

        Arguments:
            state: has the names, types and shapes of ``tree``, and numbers within STATE_BOUNDS.
        """
        if self.selection:
            self.selection.check_state(state['selection'])

    @property
    def units(self) -> dict[str, float]:
        """Return the numbers that say what estimates of returns mean, by name. A checkpoint keeps them."""
        return {name: float(getattr(self.settings, name)) for name in ('discount_factor', 'ignore_done')}

    def check_units(self, found: Mapping[str, float]) -> None:
        """Compare the units of networks that are about to be loaded with the settings. Warn of a setting that changes
        the meaning of their estimates of returns.

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
        """Follow a state that was just copied into ``tree`` and ``iteration``; by default the selection does."""
        if self.selection:
            self.selection.resumed(self.iteration)

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


def map_tree(function: Any, tree: Tree) -> Tree:
    """Return a tree with a function's results in the place of the tensors."""
    return {name: map_tree(function, part) if isinstance(part, dict) else function(part) for name, part in tree.items()}


def copy_tree(source: Tree, target: Tree) -> None:
    """Copy the tensors of one tree into those of another. The source may lack parts that are empty in the target."""
    for name, part in target.items():
        if isinstance(part, dict):
            copy_tree(source.get(name, {}), part)
        else:
            part.copy_(source[name])
