"""CAWR as a DI-engine policy."""
from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ding.model import create_model
from ding.policy import Policy
from ding.policy.command_mode_policy_instance import DummyCommandModePolicy
from ding.utils import POLICY_REGISTRY
from ding.utils.data import default_collate
from ding.worker import InteractionSerialEvaluator
from ding.worker.replay_buffer import AdvancedReplayBuffer
from easydict import EasyDict
from torch import Tensor

from ding_cawr.buffer import AdvantagePriorityBuffer, stack_rows
from ding_cawr.checkpoint import check_same_observations, check_whole, last_checkpoint, read_checkpoint
from ding_cawr.checks import positive_int
from ding_cawr.data.dataset import Statistics
from ding_cawr.data.transitions import check_actions, check_columns
from ding_cawr.model import CAWRModel
from ding_cawr.monitor import silence_learner
from ding_cawr.ranks import ALONE, Ranks, in_process_group
from ding_cawr.settings import check_keys, update_settings
from ding_cawr.state import FORMAT, check_run_state, check_state
from ding_cawr.training import Training
from ding_cawr.update import Update

CLOCK_DATA_TYPE = 'offline_transitions'


@POLICY_REGISTRY.register('cawr')
class CAWRPolicy(Policy):
    """
    Overview:
        Corruption-Averse Advantage-Weighted Regression, arXiv 2506.15654: implicit Q-learning's critics, a policy \
        regressed on dataset actions with a robust loss, weighted by exp(advantage), on samples drawn with an \
        advantage-based priority.
    Notes:
        With ``data_type='offline_transitions'`` the policy draws both batches from the dataset's columns itself, and \
        the pipeline's loader is only its clock. With any other dataset it pushes the rows that the loader brings into \
        its buffer and draws from there.
    """

    config = dict(
        # (str) Name in DI-engine's registry.
        type='cawr',
        # (bool) Whether to train on the GPU, where there is one.
        cuda=False,
        # (bool) CAWR learns from data that it did not collect.
        on_policy=False,
        # (bool) DI-engine's own prioritized replay, which CAWR does not use: see learn.priority.
        priority=False,
        priority_IS_weight=False,
        model=dict(
            # (tuple) Widths of the hidden layers of every network (Table 4).
            hidden_sizes=(256, 256),
            # (float) Logarithm of the policy's fixed standard deviation σ (Table 4).
            log_std=-2.0,
        ),
        learn=dict(
            # (int) Passes over the loader; with offline_transitions a pass is one iteration (Table 4).
            train_epoch=400000,
            # (int) Samples n of each of the two batches (Table 4).
            batch_size=512,
            # (float) Adam's learning rates. Table 4 has 3e-4 and, for the target, 0.005; these were measured in runs of
            # 10,000 iterations (README, "Results").
            learning_rate_q=1e-3,
            learning_rate_value=1e-3,
            learning_rate_policy=1e-3,
            # (int or None) Length of a cosine schedule of the policy's learning rate; None keeps it constant.
            cosine_iterations=None,
            # (float) γ.
            discount_factor=0.99,
            # (float) Soft update of the target: Q̄ ← Q̄ + theta (Q - Q̄).
            target_theta=0.02,
            # (float) τ of the expectile regression of V, in (0, 1).
            expectile=0.7,
            # (float, str or dict) λ: weights are exp(A/λ), larger is closer to behaviour cloning. 'auto', or
            # dict(type='auto', effective_share=0.8), holds the effective sample size at a share of the dataset.
            temperature='auto',
            # (str or dict) How far the critics are trusted, λ being divided by it: 'full', or dict(type='linear',
            # iterations=..., start=...) to start from behaviour cloning.
            trust='full',
            # (float) Bound of weights and priorities.
            max_weight=100.0,
            # (bool) Whether weights use the normalized advantage (CAWR) or the plain one (IQL, AWR).
            normalize_advantage=True,
            # (str) 'per_sample' (the paper), 'batch_mean' (its released code) or 'none' (behaviour cloning).
            weighting='none',
            # (str or dict) Name in POLICY_LOSSES, or dict(type=name, constant=...).
            policy_loss='l1',
            # (None or dict) dict(convex_share=0.95, iterations=100000): flat and skew start so wide that this share of
            # the errors lies where they are convex, and tighten over so many iterations.
            tightening=None,
            # (str or dict) Name in PRIORITIES, or dict(type=name, exponent=..., option=...).
            priority='normal',
            # (float) Least priority, so that every transition stays reachable.
            min_priority=1e-6,
            # (int or None) Renew the priorities of the whole dataset every so many iterations, not only those of the
            # samples drawn.
            priority_refresh=None,
            # (str or None) A checkpoint whose critics are taken, frozen; the policy alone is trained (Table 1).
            pretrained_critics=None,
            # (bool) Treat every transition as not terminal.
            ignore_done=False,
            # (str) 'bfloat16' rounds the factors of the hidden layers' products, which is faster where the processor
            # has units for it; parameters and everything else stay 'float32'.
            precision='float32',
            # (bool) On a GPU, replay the iteration as one CUDA graph (offline_transitions, one process).
            cuda_graph=True,
            # (int or None) How many of the periodic checkpoints stay, beside the best; None: all.
            keep_checkpoints=5,
            learner=dict(
                hook=dict(
                    log_show_after_iter=1000,
                    # What a run that is killed has to train again, at most.
                    save_ckpt_after_iter=1000,
                    # Progress, exact evaluation cadence, and a summary with a learning curve at the end.
                    monitor=dict(type='cawr_monitor', name='monitor', position='before_run', priority=30),
                ),
            ),
        ),
        collect=dict(
            # (str) Name of the dataset in DI-engine's registry.
            data_type=CLOCK_DATA_TYPE,
            # (str or None) None: the D4RL set of env_id; a .hdf5 or .npz file; 'bundled:NAME'.
            data_path=None,
            # (None or dict) dict(columns='action', rate=0.3, scale=1.0, seed=0): corrupt a share of the rows of one or
            # several columns on purpose (offline_transitions only).
            corruption=None,
            # (int or None) Iterations of an epoch of DI-engine's own policies on offline_transitions. For this policy,
            # of which an epoch there is one iteration, it is ignored.
            epoch_iterations=None,
            unroll_len=1,
        ),
        eval=dict(evaluator=dict(eval_freq=10000)),
        other=dict(replay_buffer=dict(
            # (int) Rows kept of a stock dataset; not used with offline_transitions.
            replay_buffer_size=1000000,
        )),
    )

    def default_model(self) -> tuple[str, list[str]]:
        """
        Overview:
            Name and module of the model.
        """
        return 'cawr', ['ding_cawr.model']

    #: (2, O) mean and standard deviation that acting normalizes observations with, None where the environment does.
    _acting_obs_statistics: Tensor | None = None

    def _create_model(self, cfg: EasyDict, model: torch.nn.Module | None = None) -> CAWRModel:
        """
        Overview:
            Check the configuration's keys, then build the model, or take the one given.
        """
        check_keys(cfg, own_keys(), foreign_keys())
        if 'learn' in self._enable_field:
            _check_ranks(cfg.multi_gpu)
        if model is None:
            given = {key: cfg.model[key] for key in model_keys() if key in cfg.model}
            missing = [key for key in ('obs_shape', 'action_shape') if key not in given]
            if missing:
                raise ValueError(f'policy.model has no {" and no ".join(missing)}; give the widths of the data')
            return create_model(EasyDict(type='cawr', import_names=['ding_cawr.model'], **given))
        if not isinstance(model, CAWRModel):
            raise TypeError(f'the cawr policy needs a CAWRModel, not {type(model).__name__}')
        return model

    def _init_learn(self) -> None:
        """
        Overview:
            Update and buffer. ``set_statistic`` exists only where the dataset has statistics to hand over: DI-engine \
            asks every dataset for them as soon as the policy has that method.
        """
        learn = self._cfg.learn
        self._shares_columns = self._cfg.collect.data_type == CLOCK_DATA_TYPE
        if learn.keep_checkpoints is not None:
            positive_int(learn.keep_checkpoints, 'learn.keep_checkpoints')
        self._ranks = Ranks.of_process_group() if self._cfg.multi_gpu else ALONE
        if self._ranks.rank > 0:
            silence_learner()
        self._learn_model, self._seed = self._model, self._ranks.of_first(torch.initial_seed() % 2**63, self._device)
        self._training, self._replica = self._make_training(self._model, self._seed), 0
        self._exp_name = self._behaviour_score = self._behaviour_return = self._obs_statistics = self._env_id = None
        self._configuration = self._run_state = None
        if continued := learn.learner.hook.get('load_ckpt_before_run'):
            check_whole(continued)  # DI-engine's learner, which reads it, compares no checksums
        if self._shares_columns:
            self.set_statistic = self._set_statistic
        elif learn.pretrained_critics is not None:
            raise ValueError(
                'learn.pretrained_critics judge a whole dataset, which data_type '
                f'{self._cfg.collect.data_type!r} does not give; take {CLOCK_DATA_TYPE!r}'
            )
        elif self._cfg.collect.corruption is not None:
            raise ValueError(
                f'collect.corruption would not reach the rows of data_type {self._cfg.collect.data_type!r}; take '
                f'{CLOCK_DATA_TYPE!r}, or set it to None'
            )

    def _make_training(self, models: CAWRModel | list[CAWRModel], seeds: int | list[int]) -> Training:
        """
        Overview:
            What trains a model, or the models of several replicas, with draws of these seeds.
        """
        learn = self._cfg.learn
        batch_size, settings = positive_int(learn.batch_size, 'learn.batch_size'), update_settings(learn)
        if batch_size % self._ranks.size:
            raise ValueError(
                f'learn.batch_size is {batch_size}, which {self._ranks.size} ranks cannot share alike; take a multiple '
                f'of {self._ranks.size}'
            )
        buffer = AdvantagePriorityBuffer(
            dict(
                replay_buffer_size=self._cfg.other.replay_buffer.replay_buffer_size,
                exponent=settings.selection.exponent,
                seed=seeds,
                device=self._device,
            )
        )
        # Rows that are pushed come from the host, which a graph cannot replay.
        graph = learn.cuda_graph and self._shares_columns
        return Training(Update(models, settings, self._ranks), buffer, batch_size, learn.priority_refresh, graph)

    def join(self, policies: list[CAWRPolicy]) -> Training:
        """
        Overview:
            Train policies of this configuration, made with different seeds, as one. Each becomes a view of its \
            replica: it acts with that one's network, and its learner's state is that one's.
        Arguments:
            - policies (:obj:`list[CAWRPolicy]`): This one first. None of them has trained.
        Returns:
            - training (:obj:`Training`): Of all of them; it has data once they have.
        """
        training = self._make_training([each._model for each in policies], [each._seed for each in policies])
        for replica, policy in enumerate(policies):
            policy._training, policy._replica = training, replica
        return training

    def _set_statistic(self, statistics: Statistics) -> None:
        """
        Overview:
            Take the dataset's columns over, moved to the policy's device once.
        Arguments:
            - statistics (:obj:`Statistics`): What ``OfflineTransitions.statistics`` gives.
        """
        transitions = statistics.transitions
        if self._replica == 0:  # replicas share the columns
            self._training.attach(transitions.table)
        self._behaviour_return, self._behaviour_score = statistics.behaviour_return, statistics.behaviour_score
        self._env_id, self._configuration = statistics.env_id, statistics.configuration
        if transitions.obs_mean is not None:
            self._obs_statistics = torch.from_numpy(np.stack([transitions.obs_mean, transitions.obs_std]))
        if self._cfg.learn.pretrained_critics is not None:
            path = self._cfg.learn.pretrained_critics
            state = read_checkpoint(path, self._model, self._device)
            check_same_observations(path, state.get('obs_statistics'), self._obs_statistics)
            self._training.freeze_critics(state)

    def _forward_learn(self, data: Any) -> dict[str, float]:
        """
        Overview:
            One iteration.
        Arguments:
            - data: The clock's tick, or a stock dataset's rows, a list of dicts (obs, action, reward, next_obs, done).
        Returns:
            - metrics (:obj:`dict`): What ``_monitor_vars_learn`` lists, in iterations whose log is shown; else empty.
        """
        if not self._shares_columns:
            self._push(data)
        shown = self._training.iteration % self._cfg.learn.learner.hook.log_show_after_iter == 0
        with self._naming_the_last_checkpoint():
            step = self._training.iterate()
        if not shown:
            return {}
        self._check_finite()
        self._training.check_ranks()
        return self._training.metrics(step)

    def _check_finite(self) -> None:
        """
        Overview:
            Whether training has diverged, where the iterations do not wait to see it.
        """
        with self._naming_the_last_checkpoint():
            self._training.check_finite()

    @contextlib.contextmanager
    def _naming_the_last_checkpoint(self) -> Iterator[None]:
        """
        Overview:
            What a run that diverges can go back to.
        """
        try:
            yield
        except FloatingPointError as error:
            raise FloatingPointError(f'{error} {last_checkpoint(self._exp_name)}') from None

    def _push(self, rows: list[dict]) -> None:
        """
        Overview:
            Check a loader's rows and add them to the buffer; of ranks, those of all.
        """
        columns = stack_rows(rows)
        source = f'dataset {self._cfg.collect.data_type!r}'
        check_columns({name: column.numpy() for name, column in columns.items()}, source)
        check_actions(columns['action'].numpy(), source)
        self._check_widths(columns, source)
        self._training.buffer.push({name: self._ranks.gather_rows(column) for name, column in columns.items()})

    def _check_widths(self, columns: dict[str, Tensor], source: str) -> None:
        widths = (columns['obs'].shape[1], columns['action'].shape[1])
        if widths != (self._model.obs_shape, self._model.action_shape):
            raise ValueError(
                f'{source}: observations are {widths[0]} wide and actions {widths[1]}, but policy.model has '
                f'obs_shape {self._model.obs_shape} and action_shape {self._model.action_shape}'
            )

    def _monitor_vars_learn(self) -> list[str]:
        """
        Overview:
            Names of the logged quantities. Effective shares are (Σw)² / (n Σw²): of the policy's batch for the \
            weights, of the dataset for the priorities and for both together, the selection.
        """
        names = [
            'cur_lr_policy', 'total_loss', 'value_loss', 'critic_loss', 'policy_loss', 'q_value', 'value',
            'advantage_mean', 'advantage_std', 'advantage_min', 'advantage_max', 'temperature', 'trust',
            'weight_clipped_share', 'weight_effective_share', 'priority_effective_share', 'selection_effective_share'
        ]
        return names + ['loss_width', 'convex_share'] * (self._cfg.learn.tightening is not None)

    def _state_dict_learn(self) -> dict[str, Any]:
        """
        Overview:
            Everything that training needs: networks, target, optimizers, iteration, priorities, generator; and, so \
            that others can act with it, normalization and environment (None where the data do not say).
        Raises:
            - FloatingPointError: Training has diverged, so that there is nothing worth keeping.
        """
        self._check_finite()
        return {
            'format': FORMAT,
            'model': {name: tensor.clone() for name, tensor in self._model.state_dict().items()},
            **self._training.state_dict(self._replica),
            'obs_statistics': self._obs_statistics,
            'env_id': self._env_id,
            'configuration': self._configuration,
        }

    @property
    def _updates(self) -> int:
        """
        Overview:
            Iterations that its state has.
        """
        return self._training.iteration

    def _load_state_dict_learn(self, state_dict: dict[str, Any]) -> None:
        """
        Overview:
            Inverse of ``_state_dict_learn``.
        Raises:
            - ValueError: It is the state of other data, of other networks, or damaged; nothing of it was taken.
        """
        run = state_dict.get('run') if isinstance(state_dict, dict) else None
        try:
            check_state(state_dict, self._model)
            if run is not None:
                check_run_state(run)
            self._training.load_state_dict(state_dict)  # which may refuse it, too
        except ValueError as error:
            path = self._cfg.learn.learner.hook.get('load_ckpt_before_run')
            raise ValueError(f'{path}: {error}' if path else str(error)) from None
        self._model.load_state_dict(state_dict['model'])
        self._run_state = run

    def _init_eval(self) -> None:
        """
        Overview:
            Evaluation acts with the mean.
        """
        self._eval_model = self._model

    def _forward_eval(self, data: dict[int, Tensor]) -> dict[int, dict[str, Tensor]]:
        """
        Overview:
            Actions of evaluation.
        Arguments:
            - data (:obj:`dict`): Observation (O,) by environment.
        Returns:
            - output (:obj:`dict`): ``{'action': (A,)}`` by environment, within [-1, 1].
        """
        return self._act(data, lambda obs: self._eval_model(obs))

    def _act(self, data: dict[int, Tensor], policy) -> dict[int, dict[str, Tensor]]:
        obs = default_collate(list(data.values())).to(self._device)
        if self._acting_obs_statistics is not None:
            mean, std = self._acting_obs_statistics.to(obs)
            obs = (obs - mean) / std
        with torch.no_grad():
            actions = policy(obs).cpu()
        return {env_id: {'action': action} for env_id, action in zip(data, actions)}

    def _state_dict_eval(self) -> dict[str, Any]:
        return {'model': self._model.state_dict()}

    def _load_state_dict_eval(self, state_dict: dict[str, Any]) -> None:
        self._load_for_acting(state_dict)

    def _load_for_acting(self, state_dict: dict[str, Any]) -> None:
        """
        Overview:
            Without learn mode no dataset gives the environment its normalization statistics, so those of the \
            checkpoint are applied here.
        """
        self._model.load_state_dict(state_dict['model'])
        if 'learn' not in self._enable_field:
            self._acting_obs_statistics = state_dict.get('obs_statistics')

    def _state_dict_collect(self) -> dict[str, Any]:
        return {'model': self._model.state_dict()}

    def _load_state_dict_collect(self, state_dict: dict[str, Any]) -> None:
        self._load_for_acting(state_dict)

    def _init_collect(self) -> None:
        """
        Overview:
            Collecting draws from the Gaussian around the mean.
        """
        self._collect_model = self._model
        self._unroll_len = self._cfg.collect.unroll_len

    def _forward_collect(self, data: dict[int, Tensor], **kwargs) -> dict[int, dict[str, Tensor]]:
        """
        Overview:
            Actions of collecting: N(μ(s), σ²), clipped to [-1, 1].
        """
        sigma = self._collect_model.sigma

        def explore(obs: Tensor) -> Tensor:
            mean = self._collect_model.policy(obs)
            return (mean + sigma * torch.randn_like(mean)).clamp(-1, 1)

        return self._act(data, explore)

    def _process_transition(self, obs: Tensor, policy_output: dict, timestep) -> EasyDict:
        return EasyDict(
            obs=obs, next_obs=timestep.obs, action=policy_output['action'], reward=timestep.reward, done=timestep.done
        )

    def _get_train_sample(self, transitions: list) -> list:
        return transitions


@POLICY_REGISTRY.register('cawr_command')
class CAWRCommandModePolicy(CAWRPolicy, DummyCommandModePolicy):
    """The name under which DI-engine's serial pipelines look CAWR up."""


def _check_ranks(multi_gpu: bool) -> None:
    """Whether ``multi_gpu`` and the processes that there are fit together."""
    ranks = Ranks.of_process_group()
    if multi_gpu and not in_process_group():
        raise ValueError(
            'policy.multi_gpu is True, but this process belongs to no process group; start one process a GPU with '
            "torchrun, each within ding.utils' DDPContext(), or set it to False"
        )
    if ranks.size > 1 and not multi_gpu:
        raise ValueError(
            f'policy.multi_gpu is False, but this is one of {ranks.size} processes of a group, which would all train '
            'the same; set it to True'
        )


def model_keys() -> tuple[str, ...]:
    """Keys of ``policy.model``."""
    return 'obs_shape', 'action_shape', 'hidden_sizes', 'log_std'


SECTIONS = ('', 'learn', 'model', 'collect', 'eval', 'eval.evaluator', 'other', 'other.replay_buffer')


def own_keys() -> dict[str, set[str]]:
    """The configuration keys that this policy, or the pipeline around it, reads, by section."""
    pipeline = {
        '': {'import_names', 'cfg_type', 'command'},
        'learn': {'learner', 'resume_training'},
        'model': set(model_keys()),
        'collect': {'collector', 'n_sample', 'n_episode'},
        'eval.evaluator': {
            'type', 'import_names', 'n_episode', 'stop_value', 'cfg_type', *InteractionSerialEvaluator.config
        },
        'other': {'commander'},
        'other.replay_buffer': {'type', 'cfg_type', *AdvancedReplayBuffer.config, *AdvantagePriorityBuffer.config},
    }
    default = CAWRPolicy.default_config()
    return {section: pipeline.get(section, set()) | _keys(default, section) for section in SECTIONS}


@functools.lru_cache
def foreign_keys() -> dict[str, frozenset[str]]:
    """The keys, by section, in the default configurations of DI-engine's own policies."""
    others = [POLICY_REGISTRY.get(name) for name in POLICY_REGISTRY if not name.startswith('cawr')]
    configs = [getattr(other, 'config', {}) for other in others]
    return {section: frozenset().union(*(_keys(config, section) for config in configs)) for section in SECTIONS}


def _keys(config: Any, section: str) -> set[str]:
    """Keys of a section such as 'eval.evaluator', none where it is absent."""
    for name in filter(None, section.split('.')):
        config = config.get(name, {}) if isinstance(config, dict) else {}
    return set(config) if isinstance(config, dict) else set()
