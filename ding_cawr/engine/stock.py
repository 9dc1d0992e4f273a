"""DI-engine's stock names ``d4rl``, of a dataset and of an environment, where D4RL's own cannot be made.

DI-engine ships configurations of D4RL's sets whose dataset and environment are called ``d4rl``. Its own parts of that
name need the packages d4rl and mujoco-py. Where one of those is missing, the two below take their place.
"""
from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from ding.utils import DATASET_REGISTRY, ENV_REGISTRY
from ding.utils.data.dataset import D4RLTrajectoryDataset
from easydict import EasyDict

from ding_cawr.algorithms import own_algorithm
from ding_cawr.data.d4rl import file_name
from ding_cawr.engine import host
from ding_cawr.engine.dataset import OWN_DATA_TYPE, OfflineTransitions, as_text
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.tasks import D4RL_IDS, TASKS, gymnasium_id, is_d4rl_id

#: The name in DI-engine's registries.
STOCK = 'd4rl'
#: The package with DI-engine's own parts of that name.
STOCK_MODULE = 'dizoo.d4rl'
#: DI-engine's datasets whose items are parts of trajectories.
TRAJECTORIES = ('d4rl_trajectory', 'd4rl_diffuser', 'diffuser_traj')


def missing_packages() -> list[str]:
    """Return the packages that D4RL's own environments need and that are not installed."""
    return [name for name in ('d4rl', 'mujoco_py') if importlib.util.find_spec(name) is None]


def current_id(env_id: str) -> str:
    """Return the v2 id of a D4RL locomotion set, whatever version is asked for.

    Raises:
        ValueError: ``env_id`` is of another family than those that are served here.
    """
    found = re.sub(r'-v[01]$', '-v2', str(env_id))
    if not is_d4rl_id(found):
        raise ValueError(
            f"env_id is {env_id!r}, but the names {STOCK!r} of env and dataset serve only D4RL's sets of "
            f'{", ".join(TASKS)} here (such as {D4RL_IDS[1]}): others need D4RL itself, of which '
            f'{" and ".join(missing_packages())} cannot be imported. For data of your own give env type '
            f"'d4rl_gymnasium' with a gymnasium id, data_type {OWN_DATA_TYPE!r} and data_path"
        )
    return found


class StockEnv(MujocoEnv):
    """
    Overview:
        ``MujocoEnv`` under DI-engine's stock name. Versions 0 and 1 of an id are taken for version 2.
    """

    def __init__(self, cfg: dict) -> None:
        """
        Overview:
            Remember the configuration; see ``MujocoEnv``.
        """
        super().__init__(EasyDict({**cfg, 'env_id': current_id(cfg['env_id'])}))


class StockDataset(OfflineTransitions):
    """
    Overview:
        ``OfflineTransitions`` under DI-engine's stock name. It rewrites the compiled configuration to this package's \
        names, in place, before anything else of the pipeline reads it.
    Notes:
        In DI-engine's configurations an epoch is a pass over the data. For this package's policies, whose epoch is \
        an iteration, the passes become iterations.
    """

    def __init__(self, cfg: EasyDict) -> None:
        """
        Overview:
            Load the D4RL set that ``env.env_id`` names. ``collect.data_path`` may be the file, or the folder where \
            D4RL keeps its files.
        Raises:
            - ValueError: It is not a locomotion set.
        """
        asked, env_id = cfg.env.env_id, current_id(cfg.env.env_id)
        others = [name for name in cfg.env.get('import_names', []) if not name.startswith(STOCK_MODULE)]
        cfg.env.update(type='d4rl_gymnasium', import_names=['ding_cawr', *others], env_id=env_id)
        collect, path = cfg.policy.collect, cfg.policy.collect.get('data_path')
        collect.data_type = OWN_DATA_TYPE
        folder = Path(path).expanduser() if path and isinstance(path, (str, os.PathLike)) else None
        collect.data_path = str(folder / file_name(env_id)) if folder and folder.is_dir() else path or None
        super().__init__(cfg)
        version = '' if asked == env_id else f' ({asked} is an old version of it)'
        needed = ' and '.join(missing_packages())
        print(
            f"ding_cawr serves the dataset and env {STOCK!r}, because D4RL's own need {needed}: {env_id}{version} from "
            f'{self.transitions.source}, evaluated in {gymnasium_id(env_id)} of gymnasium.'
        )
        if self._is_clock:
            self._count_iterations(cfg)

    def _count_iterations(self, cfg: EasyDict) -> None:
        """Turn passes over the data into iterations."""
        learn, passes = cfg.policy.learn, cfg.policy.learn.train_epoch
        learn.train_epoch = passes * -(-len(self.transitions) // learn.batch_size)
        self._configuration = as_text(cfg)
        print(
            f'train_epoch is {passes:,} passes over the data, {learn.train_epoch:,} iterations; --train-iter, or '
            'env.stop_value, ends a run earlier.'
        )


def _for_others(data_type: str, dataset: type) -> Callable[[EasyDict], object]:
    """Return what makes a dataset of trajectories for the policies that take it, and is an error for ours."""

    def make(cfg: EasyDict) -> object:
        algorithm = own_algorithm(cfg.policy.get('type'))
        if algorithm is not None:
            raise ValueError(
                f'collect.data_type is {data_type!r}, which has trajectories for a decision transformer or a diffusion '
                f'model; for the policy {algorithm.name!r} it must be {STOCK!r} or {OWN_DATA_TYPE!r}, which have '
                'transitions'
            )
        if missing_packages() and dataset is not D4RLTrajectoryDataset:  # that one reads files of its own
            raise ValueError(
                f'collect.data_type is {data_type!r}, which needs D4RL itself, of which '
                f'{" and ".join(missing_packages())} cannot be imported; only {STOCK!r} is served without it'
            )
        return dataset(cfg)

    return make


def register() -> None:
    """Give DI-engine's stock names to the parts above where D4RL's own environments cannot be made."""
    for name in TRAJECTORIES:
        DATASET_REGISTRY.register(name, _for_others(name, DATASET_REGISTRY.get(name)), force_overwrite=True)
    if missing_packages():
        host.import_stock_env()
        DATASET_REGISTRY.register(STOCK, StockDataset, force_overwrite=True)
        ENV_REGISTRY.register(STOCK, StockEnv, force_overwrite=True)


register()
