"""The algorithms as DI-engine policies: one class, made a policy for each algorithm of the table."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ding.envs import BaseEnv, BaseEnvTimestep
from ding.model import create_model
from ding.policy import Policy
from ding.policy.command_mode_policy_instance import DummyCommandModePolicy
from ding.utils import MODEL_REGISTRY, POLICY_REGISTRY
from ding.utils.data import default_collate
from easydict import EasyDict
from torch import Tensor

from ding_cawr.algorithms import ALGORITHMS, check_actions_of
from ding_cawr.algorithms.base import Algorithm
from ding_cawr.data.transitions import check_actions, check_columns, check_rows
from ding_cawr.engine import folders, host, keys
from ding_cawr.engine.buffer import AdvantagePriorityBuffer, stack_rows
from ding_cawr.engine.configuration import configuration, foreign_keys, model_keys, own_keys, unread_keys
from ding_cawr.engine.dataset import OWN_DATA_TYPE, Statistics
from ding_cawr.engine.env import MujocoEnv, dataset_normalizes
from ding_cawr.engine.online import Online
from ding_cawr.runs.checkpoint import check_whole, last_checkpoint
from ding_cawr.runs.state import FORMAT, check_format, check_run_state
from ding_cawr.training.loop import OtherData, Training


class OfflinePolicy(Policy):
    """
    Overview:
        An algorithm of this package behind DI-engine's methods; a subclass for each algorithm names it.
    Notes:
        With ``data_type='offline_transitions'`` the policy draws its batches from the dataset's columns itself, and \
        the pipeline's loader is only its clock. With any other dataset it pushes the rows that the loader brings into \
        its buffer and draws from there. Online (``ding -m serial``) what it collects goes into its own buffer as \
        well, and the pipeline's buffer is only the clock.
    """
    #: Set by the subclasses.
    algorithm: type[Algorithm]
    #: (2, O) mean and standard deviation that acting normalizes observations with, None where the environment does.
    _acting_obs_statistics: Tensor | None = None
    #: (2, O) those that the policy was trained with, None where it sees observations as they are, or was not trained.
    _obs_statistics: Tensor | None = None
    #: DI-engine's online pipeline asks whether its buffer is to be told priorities.
    _priority = False

    def default_model(self) -> tuple[str, list[str]]:
        """
        Overview:
            Return name and module of the model.
        """
        return self.algorithm.name, [__name__]

    def _create_model(self, cfg: EasyDict, model: torch.nn.Module | None = None) -> torch.nn.Module:
        """
        Overview:
            Check the configuration's keys and values, then build the model, or take the one given.
        """
        keys.normalize({'policy': cfg})
        keys.check_gpu(cfg)
        keys.check_keys(
            cfg, self.algorithm.name, own_keys(self.algorithm, self._is_online),
            foreign_keys(self.algorithm), unread_keys(self.algorithm, cfg.collect.data_type, self._is_online),
            self.algorithm.SYNONYMS,
            {key: idle for each in ALGORITHMS.values() for key, idle in each.Settings.refused_elsewhere.items()}
        )
        keys.reset_homonyms(
            cfg.learn, self.algorithm.name, self.algorithm.HOMONYMS, self.algorithm.Settings.defaults()
        )
        if self._is_online and self.algorithm.whole_trajectories and cfg.learn.update_per_collect != 1:
            raise ValueError(
                f'policy.learn.update_per_collect is {cfg.learn.update_per_collect}; it must be 1, as '
                f'{self.algorithm.name} learns in rounds: policy.learn says how many steps they have'
            )
        if 'learn' in self._enable_field:
            _check_processes(cfg.multi_gpu)
        asked = cfg.model.get('action_space')
        check_actions_of(self.algorithm, asked == 'discrete', f'a model of policy.model.action_space={asked!r}')
        if model is None:
            given = {key: cfg.model[key] for key in model_keys(self.algorithm) if key in cfg.model}
            missing = [key for key in ('obs_shape', 'action_shape') if key not in given]
            if missing:
                raise ValueError(f'policy.model has no {" and no ".join(missing)}; give the widths of the data')
            return create_model(EasyDict(type=self.algorithm.name, import_names=[__name__], **given))
        if not isinstance(model, self.algorithm.Model):
            raise TypeError(
                f'the {self.algorithm.name} policy needs a {self.algorithm.Model.__name__}, not {type(model).__name__}'
            )
        return model

    @property
    def _is_online(self) -> bool:
        """Return whether the pipeline collects: of DI-engine's serial ones that one alone enables commands."""
        return 'command' in self._enable_field

    @property
    def _is_discrete(self) -> bool:
        return getattr(self._model, 'discrete', False)

    def _init_learn(self) -> None:
        """
        Overview:
            Make algorithm and buffer. ``set_statistic`` exists only where the dataset has statistics to hand over: \
            DI-engine asks every dataset for them as soon as the policy has that method.
        """
        learn, data_type = self._cfg.learn, self._cfg.collect.data_type
        self._shares_columns = data_type == OWN_DATA_TYPE and not self._is_online
        self._settings = self.algorithm.Settings.read(learn)
        keys.warn_of_idle(learn, self.algorithm.name, self._settings.idle, self._settings.defaults())
        self._learn_model, self._seed = self._model, torch.initial_seed() % 2**63
        self._exp_name = self._behaviour_score = self._behaviour_return = self._env_id = None
        self._configuration = self._run_state = None
        self._training, self._replica = self._make_training(self._model, self._seed), 0
        if continued := learn.learner.hook.get('load_ckpt_before_run'):
            check_whole(continued)  # DI-engine's learner, which reads it, compares no checksums
        if self._shares_columns:
            self.set_statistic = self._set_statistic
            return
        if self._is_online:
            self.algorithm.check_online(self._settings)
            self._online = Online(self._training, self._cfg)
            self._obs_statistics = self._acting_obs_statistics = self._online.obs_statistics
            return
        self.algorithm.check_stock_rows(self._settings, data_type)
        for key in ('corruption', 'reward'):
            if self._cfg.collect[key] is not None:
                raise ValueError(
                    f'collect.{key} would not reach the rows of data_type {data_type!r}; take {OWN_DATA_TYPE!r}, or '
                    'set it to None'
                )

    def _make_training(self, models: torch.nn.Module | list[torch.nn.Module], seeds: int | list[int]) -> Training:
        """Return what trains a model, or the models of several replicas, with draws of these seeds."""
        buffer = AdvantagePriorityBuffer(dict(
            replay_buffer_size=self._cfg.other.replay_buffer.replay_buffer_size,
            exponent=self._settings.exponent, seed=seeds, device=self._device,
        ))
        # Rows that are pushed come from the host, which a graph cannot replay.
        graph = self._settings.cuda_graph and self._shares_columns
        return Training(self.algorithm(models, self._settings), buffer, self._settings.batch_size, graph)

    def join(self, policies: list[OfflinePolicy]) -> Training:
        """
        Overview:
            Train policies of this configuration, made with different seeds, as one. Each becomes a view of its \
            replica: it acts with that one's network, and its learner's state is that one's.
        Arguments:
            - policies (:obj:`list[OfflinePolicy]`): This one first. None of them has trained.
        Returns:
            - training (:obj:`Training`): Of all of them; it has data once they have.
        """
        training = self._make_training([each._model for each in policies], [each._seed for each in policies])
        for replica, policy in enumerate(policies):
            policy._training, policy._replica = training, replica
        return training

    @folders.beginning()
    def _set_statistic(self, statistics: Statistics) -> None:
        """
        Overview:
            Take the dataset's columns over, moved to the policy's device once.
        Arguments:
            - statistics (:obj:`Statistics`): What ``OfflineTransitions.statistics`` gives.
        """
        transitions = statistics.transitions
        check_actions_of(self.algorithm, transitions.discrete, transitions.source)
        check_rows(transitions.table.columns, transitions.source, self._model, transitions.discrete)
        self.algorithm.check_dataset(self._settings, transitions)
        self._behaviour_return, self._behaviour_score = statistics.behaviour_return, statistics.behaviour_score
        self._env_id, self._configuration = statistics.env_id, statistics.configuration
        if transitions.obs_mean is not None:
            self._normalized_by(transitions.obs_mean, transitions.obs_std)
        if self._replica == 0:  # replicas share the columns
            self._training.attach(transitions.table, self._obs_statistics)

    def _normalized_by(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Take note of the statistics (O,) with which dataset and environment normalize observations."""
        self._obs_statistics = torch.from_numpy(np.stack([mean, std]))
        self._acting_obs_statistics = None

    def _take_environment(self, env: BaseEnv) -> None:
        """Take note of the environment that evaluates, which checkpoints name; a dataset of columns has told of it."""
        if self._shares_columns:
            return
        self._name_environment(env)
        cfg = getattr(env, '_cfg', None) or {}
        if dataset_normalizes(cfg) and cfg['norm_obs']['offline_stats'].get('mean') is not None:
            stats = cfg['norm_obs']['offline_stats']
            self._normalized_by(*(np.asarray(stats[name], np.float32) for name in ('mean', 'std')))

    def _name_environment(self, env: BaseEnv) -> None:
        self._env_id = getattr(env, '_env_id', None)
        if isinstance(env, MujocoEnv):
            self._configuration = json.dumps({'env': env.settings})

    def _check_attached(self) -> None:
        """Raise a ValueError where the dataset is still to come whose columns the policy draws from."""
        if self._shares_columns and not self._training.buffer.count():
            raise ValueError(
                f'the {self.algorithm.name} policy with data_type {OWN_DATA_TYPE!r} has no dataset yet; first call '
                "policy.set_statistic(dataset.statistics), as DI-engine's serial_pipeline_offline does"
            )

    def _forward_learn(self, data: Any) -> dict[str, float] | list[dict[str, float]]:
        """
        Overview:
            Do one iteration; online those that the rows bring which were collected since the last call.
        Arguments:
            - data: The clock's tick, or a stock dataset's rows, a list of dicts (obs, action, reward, next_obs, done).
        Returns:
            - metrics (:obj:`dict`): What ``_monitor_vars_learn`` lists, in iterations whose log is shown; else empty. \
              Online a list of those of each iteration.
        """
        training, every = self._training, self._cfg.learn.learner.hook.log_show_after_iter
        if self._is_online:
            with self._naming_the_last_checkpoint():
                steps = enumerate(self._online.iterate(), training.iteration)
                logs = [training.metrics(step) if number % every == 0 else {} for number, step in steps]
                training.check_finite()
            return logs
        self._check_attached()
        if not self._shares_columns:
            self._push(data)
        shown = training.iteration % every == 0
        with self._naming_the_last_checkpoint():
            step = training.iterate()
            if shown:
                training.check_finite()
        return training.metrics(step) if shown else {}

    @contextlib.contextmanager
    def _naming_the_last_checkpoint(self) -> Iterator[None]:
        """Say what a run that diverges can go back to."""
        try:
            yield
        except FloatingPointError as error:
            raise FloatingPointError(f'{error} {last_checkpoint(self._exp_name)}') from None

    def _push(self, rows: list[dict]) -> None:
        """Check a loader's rows and add them to the buffer."""
        source = f'a batch of dataset {self._cfg.collect.data_type!r}'
        is_discrete = 'action' in rows[0] and not torch.as_tensor(rows[0]['action']).is_floating_point()
        check_actions_of(self.algorithm, is_discrete, source)
        columns = stack_rows(rows, self._is_discrete)
        check_columns({name: column.numpy() for name, column in columns.items()}, source)
        check_rows(columns, source, self._model)
        if not self._is_discrete:
            check_actions(columns['action'].numpy(), source)
        self._training.buffer.push(columns)

    def _monitor_vars_learn(self) -> list[str]:
        """
        Overview:
            Return the names of the logged quantities.
        """
        return Training.metric_names(self.algorithm, self._settings)

    def _state_dict_learn(self) -> dict[str, Any]:
        """
        Overview:
            Return everything that training needs: networks, targets, optimizers, iteration, priorities, generator; \
            and, so that others can act with it, normalization and environment (None where the data do not say).
        Raises:
            - FloatingPointError: Training has diverged, so that there is nothing worth keeping.
        """
        with self._naming_the_last_checkpoint():
            self._training.check_finite()
        return {
            'format': FORMAT,
            **self._training.state_dict(self._replica),
            'obs_statistics': self._obs_statistics,
            'env_id': self._env_id,
            'configuration': self._configuration,
            **(self._online.state() if self._is_online else {}),
        }

    @property
    def _updates(self) -> int:
        """Return the iterations that its state has."""
        return self._training.iteration

    @folders.beginning()
    def _load_state_dict_learn(self, state_dict: dict[str, Any]) -> None:
        """
        Overview:
            Go on from what ``_state_dict_learn`` gave.
        Raises:
            - ValueError: It is the state of other data, of other networks, or damaged, or there is no dataset yet; \
                nothing of it was taken.
        """
        self._check_attached()
        run, hook = state_dict.get('run') if isinstance(state_dict, dict) else None, self._cfg.learn.learner.hook
        try:
            check_format(state_dict)
            if run is not None:
                check_run_state(run)
            known = self._online.read(state_dict) if self._is_online else ()
            self._training.load_state_dict(state_dict)
            if known:
                self._online.go_on(*known)
                self._obs_statistics = self._acting_obs_statistics = self._online.obs_statistics
        except ValueError as error:
            path, data = hook.get('load_ckpt_before_run') or host.Continued.path, self._cfg.collect.get('data_path')
            here = f' in {data or self._env_id}; {self._how_data_fit(state_dict)}'
            raise ValueError(
                f'{f"{path}: " if path else ""}{error}{here if isinstance(error, OtherData) else ""}'
            ) from None
        self._run_state = run

    def _how_data_fit(self, state_dict: dict[str, Any]) -> str:
        """Return what to do where a checkpoint's data have another hash."""
        was_normalized = state_dict.get('obs_statistics') is not None
        if was_normalized != (self._obs_statistics is not None):
            how = '' if was_normalized else 'not '
            return f'its observations were {how}normalized: set env.norm_obs.use_norm to {was_normalized}'
        return (
            'continue on its own data (cawr resume --data PATH), with the same env.reward_norm, collect.reward and '
            'collect.corruption'
        )

    def _init_eval(self) -> None:
        """
        Overview:
            Have evaluation act with the model's ``forward``.
        """
        self._eval_model = self._model

    def _forward_eval(self, data: dict[int, Tensor]) -> dict[int, dict[str, Tensor]]:
        """
        Overview:
            Return the actions of evaluation.
        Arguments:
            - data (:obj:`dict`): Observation (O,) by environment.
        Returns:
            - output (:obj:`dict`): ``{'action': (A,)}`` by environment, within [-1, 1], or of discrete actions \
              ``{'action': ()}``, the number of one.
        """
        return self._act(data, self._eval_model)

    def _act(self, data: dict[int, Tensor], act: Callable[[Tensor], Tensor]) -> dict[int, dict[str, Tensor]]:
        obs = default_collate(list(data.values())).to(self._device)
        if self._acting_obs_statistics is not None:
            mean, std = self._acting_obs_statistics.to(obs)
            obs = (obs - mean) / std
        with torch.no_grad():
            actions = act(obs).cpu()
        return {env_id: {'action': action} for env_id, action in zip(data, actions)}

    def _state_dict_eval(self) -> dict[str, Any]:
        """
        Overview:
            Return the model, and the statistics that observations from an environment are normalized with.
        """
        of_acting = self._acting_obs_statistics
        return {
            'model': self._model.state_dict(),
            'obs_statistics': self._obs_statistics if of_acting is None else of_acting,
        }

    def _load_state_dict_eval(self, state_dict: dict[str, Any]) -> None:
        """
        Overview:
            Load the model. Where no dataset has given the environment its normalization statistics, those of the \
            checkpoint are applied here.
        """
        self._model.load_state_dict(state_dict['model'])
        is_training_online = self._is_online and 'learn' in self._enable_field  # with statistics of its own
        if self._obs_statistics is None and not is_training_online:
            self._acting_obs_statistics = state_dict.get('obs_statistics')

    _state_dict_collect, _load_state_dict_collect = _state_dict_eval, _load_state_dict_eval

    def _init_collect(self) -> None:
        """
        Overview:
            Have collecting act with the model's ``explore``.
        """
        self._collect_model = self._model
        self._unroll_len = self._cfg.collect.unroll_len

    def _forward_collect(self, data: dict[int, Tensor], **kwargs) -> dict[int, dict[str, Tensor]]:
        """
        Overview:
            Return the actions of collecting.
        Raises:
            - ValueError: A trajectory has become longer than the buffer that is to keep it.
        """
        if self._is_online:
            self._online.count_step(list(data))
        outputs = self._act(data, self._collect_model.explore)
        return {env_id: {**output, 'is_own': True} for env_id, output in outputs.items()}

    def _reset_collect(self, data_id: list[int] | None = None) -> None:
        """
        Overview:
            Forget how long the trajectories of these environments are, or those of all.
        """
        if self._is_online:
            self._online.forget_trajectories(data_id)

    def _process_transition(self, obs: Tensor, policy_output: dict, timestep: BaseEnvTimestep) -> dict[str, Any]:
        """
        Overview:
            Return a row; ``done`` is a termination and not a time limit, after which there is value, too.
        Arguments:
            - policy_output (:obj:`dict`): Of ``_forward_collect``, or of DI-engine's random policy, whose actions \
              are those that the environment's own space has, beyond [-1, 1], or (1,) where they are discrete.
        Raises:
            - ValueError: A trajectory of DI-engine's random policy has become longer than the buffer that is to keep \
                it.
        """
        action, at_limit = torch.as_tensor(policy_output['action']), timestep.info.get('TimeLimit.truncated', False)
        if not policy_output.get('is_own'):
            action = action.reshape(()) if self._is_discrete else action.clamp(-1, 1)
            if self._is_online:
                self._online.count_random_step()
        return dict(
            obs=obs, next_obs=timestep.obs, action=action, reward=timestep.reward,
            done=bool(timestep.done and not at_limit)
        )

    def _get_train_sample(self, transitions: list[dict]) -> list[dict]:
        """
        Overview:
            Return the rows of a trajectory, or of a part of it; online they go into the policy's own buffer, and \
            those that are returned are empty.
        """
        if not self._is_online:
            return transitions
        self._online.keep(transitions)
        return [{'collect_iter': row['collect_iter']} for row in transitions]

    def _get_batch_size(self) -> int:
        """
        Overview:
            Return how many rows the pipeline's buffer is to draw, which online are not looked at.
        """
        return 1 if self._is_online else self._cfg.learn.batch_size

    def _get_n_sample(self) -> int | None:
        """
        Overview:
            Return the steps of a collection: those of the configuration, or the algorithm's where that says nothing.
        """
        given = super()._get_n_sample()
        return self.algorithm.n_sample if given is None and self._get_n_episode() is None else given

    def _check_length(self, total: int) -> None:
        """Warn of settings that do not fit a run that ends at iteration ``total``."""
        self.algorithm.check_length(self._settings, total)

    def _check_environment(self, env: BaseEnv, environments: int = 1) -> None:
        """Look at the environment that is collected in, before the first step: see ``Online.check_environment``."""
        self._name_environment(env)
        self._online.check_environment(env, environments)


def _check_processes(multi_gpu: bool) -> None:
    """Raise a ValueError where several processes would train one policy."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    size = torch.distributed.get_world_size() if together else 1
    if multi_gpu or size > 1:
        what = 'policy.multi_gpu is True' if multi_gpu else f'this is one of {size} processes of a group'
        raise ValueError(
            f'{what}, but a policy of this package trains in one process; run one seed a GPU, or several seeds at once '
            'on one GPU with ding_cawr.train_replicas'
        )


def register(algorithm: type[Algorithm]) -> type[OfflinePolicy]:
    """Register model and policy of an algorithm with DI-engine, under its name; return the policy.

    DI-engine's serial pipelines look a policy up under its name with ``_command`` appended.
    """
    MODEL_REGISTRY.register(algorithm.name)(algorithm.Model)
    about = f'{OfflinePolicy.__doc__}\n    Algorithm:\n        ``{algorithm.__module__}.{algorithm.__name__}``.\n    '
    members = dict(algorithm=algorithm, config=configuration(algorithm), __module__=__name__, __doc__=about)
    policy = type(f'{algorithm.__name__}Policy', (OfflinePolicy, ), members)
    POLICY_REGISTRY.register(algorithm.name)(policy)
    bases = policy, DummyCommandModePolicy
    command = type(f'{algorithm.__name__}CommandModePolicy', bases, dict(__module__=__name__))
    POLICY_REGISTRY.register(f'{algorithm.name}_command')(command)
    globals().update({each.__name__: each for each in (policy, command)})  # by which they are pickled
    return policy


#: The policies by the names of their algorithms.
POLICIES: Mapping[str, type[OfflinePolicy]] = {name: register(algorithm) for name, algorithm in ALGORITHMS.items()}
