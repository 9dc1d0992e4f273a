"""The configuration of the policies: defaults, and which keys are read by what."""
from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from ding.policy import Policy
from ding.utils import POLICY_REGISTRY
from ding.worker import BaseLearner, InteractionSerialEvaluator
from ding.worker.replay_buffer import AdvancedReplayBuffer, NaiveReplayBuffer

from ding_cawr.algorithms.base import Algorithm
from ding_cawr.data.corruption import corruption_options
from ding_cawr.data.transitions import reward_options
from ding_cawr.engine import keys
from ding_cawr.engine.buffer import AdvantagePriorityBuffer
from ding_cawr.engine.dataset import OWN_DATA_TYPE
from ding_cawr.engine.env import check_reward_norm

#: The keys of DI-engine's buffers, whose defaults a configuration has.
BUFFERS = {**NaiveReplayBuffer.config, **AdvancedReplayBuffer.config}
#: Keys of configurations that DI-engine ships, by section, which no policy's defaults have.
SHIPPED = {
    '': ['load_path'], 'learn': ['update_per_collect_rl', 'update_per_collect_vae'], 'learn.learner': ['load_path']
}
#: The configuration of every policy, beside the sections of its algorithm, ``model`` and ``learn``.
CONFIG = dict(
    # (bool) Whether to train on the GPU. Where there is none: one warning, and the CPU.
    cuda=False,
    # (bool) DI-engine's switch for on-policy learning: must be False, as rows are drawn from a dataset or a buffer.
    on_policy=False,
    # (bool) DI-engine's own prioritized replay, which is not used: must be False, and learn.priority does it.
    priority=False,
    # (bool) Weights of that replay: must be False.
    priority_IS_weight=False,
    # (bool) Online: whether trajectories are collected to their ends. Else they are cut where n_sample is reached. Of
    # an algorithm that learns from whole trajectories the default is True.
    traj_len_inf=False,
    learn=dict(
        # (int) Online: iterations for each collection. Of an algorithm that learns in rounds: must be 1.
        update_per_collect=1,
        # (str or None) Online: a checkpoint of the same policy, of an offline run or an online one, whose networks,
        # optimizers and statistics of observations the run begins with.
        load_path=None,
        learner=dict(
            hook=dict(
                # (int or None) Iterations between two lines of DI-engine's log; 0 or None for none.
                log_show_after_iter=1000,
                # (int or None) Iterations between two checkpoints: a run that is killed repeats at most this many.
                # 0 or None for the last and the best alone.
                save_ckpt_after_iter=1000,
                # Progress, exact evaluation cadence, and a summary with a learning curve at the end.
                monitor=dict(type='cawr_monitor', name='monitor', position='before_run', priority=30),
            ),
        ),
    ),
    collect=dict(
        # (str) Name of the dataset in DI-engine's registry.
        data_type=OWN_DATA_TYPE,
        # (str, list or None) None: the D4RL set of env_id; a .hdf5 or .npz file; 'bundled:NAME'; 'minari:NAME'; the
        # folder of a Minari set; or a list of these, which is one dataset. Online: the rows that the buffer begins
        # with, None for none.
        data_path=None,
        # (None, 'unit', 'environment', or lowest and highest) How the file's actions are scaled (offline_transitions,
        # and online): within [-1, 1], as the environment takes them, or from the lowest to the highest. None: as the
        # file says; else, where the environment's bounds are not ±1, as the environment takes them if all of them fit.
        action_scale=None,
        # (None or dict) dict(columns='action', rate=0.3, scale=1.0, seed=0): corrupt a share of the rows of one or
        # several columns on purpose (offline_transitions only).
        corruption=None,
        # (None or dict) dict(scale=1.0, shift=0.0): rewards r of the dataset become r * scale + shift, after the
        # corruption and before env.reward_norm; never those of evaluation (offline_transitions only). Online also
        # those that are collected; None for what the run of learn.load_path had.
        reward=None,
        # (int or None) Iterations of an epoch of DI-engine's own policies on offline_transitions. The policies of this
        # package ignore it: their epoch there is one iteration.
        epoch_iterations=None,
        unroll_len=1,
    ),
    eval=dict(evaluator=dict(
        # (int or None) Iterations between two evaluations; 0 or None for none, -1 for one after each pass over the
        # data. Online there is always one before the first iteration.
        eval_freq=10000,
    )),
    other=dict(replay_buffer=dict(
        # (int) Rows kept of a stock dataset, or of those collected online; not used with offline_transitions. Of an
        # algorithm that learns from whole trajectories the default is 50000, and trajectories are dropped as a whole.
        replay_buffer_size=1000000,
    )),
)


def configuration(algorithm: type[Algorithm]) -> dict[str, Any]:
    """Return the default configuration of an algorithm's policy.

    The keys of ``learn`` and ``model``, their bounds and comments are those of the algorithm's ``Settings`` and
    ``ModelSettings``; docs/settings.md lists them.
    """
    config = copy.deepcopy(CONFIG)
    learn = {**algorithm.Settings.defaults(), **config['learn']}
    config['traj_len_inf'] = algorithm.whole_trajectories
    config['other']['replay_buffer']['replay_buffer_size'] = algorithm.buffer_size
    return {'type': algorithm.name, **config, 'model': algorithm.ModelSettings.defaults(), 'learn': learn}


def check_values(main: Mapping[str, Any], algorithm: type[Algorithm]) -> None:
    """Raise a ValueError where a key is misspelt, or a setting of the algorithm or of its data has a wrong value.

    No data are read.

    Arguments:
        main: a configuration with the sections ``env`` and ``policy``.
    """
    policy = main['policy']
    keys.ignored_keys(policy, own_keys(algorithm, is_online=True), foreign_keys(algorithm))
    algorithm.Settings.read(policy['learn'])
    algorithm.ModelSettings.read(policy['model'], 'model')
    reward_options(policy['collect'].get('reward'))
    corruption_options(policy['collect'].get('corruption'))
    check_reward_norm(main['env'])


def model_keys(algorithm: type[Algorithm]) -> list[str]:
    """Return the keys of ``policy.model``."""
    return ['obs_shape', 'action_shape', *algorithm.ModelSettings.defaults()]


def own_keys(algorithm: type[Algorithm], is_online: bool) -> dict[str, set[str]]:
    """Return the configuration keys that an algorithm's policy, or the pipeline around it, reads, by section."""
    default = POLICY_REGISTRY.get(algorithm.name).default_config()
    pipeline = {
        '': {'import_names', 'cfg_type', 'command'} | ({'random_collect_size'} if is_online else set()),
        'learn': {'learner', 'resume_training'},
        'learn.learner': {'type', 'import_names', 'cfg_type', *BaseLearner.config},
        keys.HOOKS: {'log_reduce_after_iter', *BaseLearner.config['hook']},
        'model': set(model_keys(algorithm)),
        'collect': {'collector', 'n_sample', 'n_episode'},
        'eval.evaluator': {
            'type', 'import_names', 'n_episode', 'stop_value', 'cfg_type', *InteractionSerialEvaluator.config
        },
        'other': {'commander'},
        'other.replay_buffer': {'type', 'cfg_type', *BUFFERS, *AdvantagePriorityBuffer.config},
    }
    return {section: pipeline.get(section, set()) | {*keys.section_of(default, section)} for section in keys.SECTIONS}


def unread_keys(algorithm: type[Algorithm], data_type: str, is_online: bool) -> dict[str, dict[str, Any]]:
    """Return the keys that DI-engine has in every configuration and that nothing reads here, by section, with their
    defaults."""
    if is_online:
        return {'collect': dict(corruption=None)}
    buffer = {key: value for key, value in BUFFERS.items() if key != 'type'}
    if data_type == OWN_DATA_TYPE:
        buffer['replay_buffer_size'] = algorithm.buffer_size
    else:
        del buffer['replay_buffer_size']
    return {
        '': dict(bp_update_sync=Policy.config['bp_update_sync'], traj_len_inf=algorithm.whole_trajectories),
        'learn': dict(resume_training=False, update_per_collect=1, load_path=None),
        'learn.learner': {key: BaseLearner.config[key] for key in ('train_iterations', 'dataloader')},
        keys.HOOKS: dict(save_ckpt_after_run=True),
        'collect': dict(epoch_iterations=None),
        'other.replay_buffer': buffer,
    }


@functools.lru_cache
def foreign_keys(algorithm: type[Algorithm]) -> dict[str, frozenset[str]]:
    """Return the keys, by section, in the default configurations of all policies but an algorithm's own, and those of
    ``SHIPPED``."""
    policies = (POLICY_REGISTRY.get(name) for name in POLICY_REGISTRY)
    others = [getattr(each, 'config', {}) for each in policies if getattr(each, 'algorithm', None) is not algorithm]
    return {
        section: frozenset(SHIPPED.get(section, ())).union(*(keys.section_of(each, section) for each in others))
        for section in keys.SECTIONS
    }
