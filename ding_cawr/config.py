"""make_config, and the table of settings behind config/."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from ding.utils import deep_merge_dicts
from easydict import EasyDict

from ding_cawr.checks import nearest
from ding_cawr.data.bundled import SCHEME
from ding_cawr.engine.env import space_widths
from ding_cawr.engine.policy import CAWRPolicy
from ding_cawr.tasks import find_task, is_d4rl_id, split_d4rl_id

ITERATIONS, BUNDLED_ITERATIONS = 400_000, 20_000


#: Table 4: Adam's learning rates and the target's coefficient, for the methods as their papers have them.
TABLE_4 = dict(learning_rate_q=3e-4, learning_rate_value=3e-4, learning_rate_policy=3e-4, target_theta=0.005)

#: Table 5: λ and w_max. Quality 'random' and 'medium-replay' are not in it; they take the row of 'medium'.
TABLE_5 = {
    'hopper-medium': dict(temperature=1 / 5, max_weight=10000.0),
    'walker2d-medium': dict(temperature=1 / 3, max_weight=10000.0),
    'halfcheetah-medium': dict(temperature=1 / 3, max_weight=10000.0),
}
MIXED_OR_EXPERT = dict(temperature=1 / 3, max_weight=100.0)

#: The bundled sets: speeds that suit a twentieth of the paper's iterations, for every algorithm, and cawr's λ, chosen
#: on seed 10; README, "Results", has the scores on other seeds.
BUNDLED_SPEEDS = dict(learning_rate_q=1e-3, learning_rate_value=1e-3, learning_rate_policy=3e-4, target_theta=0.02)
BUNDLED_CAWR = dict(temperature=2.0, max_weight=100.0, weighting='batch_mean')


#: Iterations of behaviour cloning, and again so many until the critics are trusted; 3/10 of runs shorter than 10,000.
TRUST_ITERATIONS = 3000


def _cawr(env_id: str, data_path: Any, iterations: int) -> dict:
    """The policy's own defaults, growing trust and, on D4RL's files, scaled rewards, all chosen on stand-ins for three
    of D4RL's sets in runs of 10,000 iterations, so the evidence for D4RL is thin: README, "Results"."""
    if _is_bundled(data_path):
        return dict(learn=dict(BUNDLED_CAWR, **BUNDLED_SPEEDS))
    env = dict(reward_norm='iql_locomotion') if data_path is None else {}
    return dict(learn=dict(trust=growing_trust(iterations)), env=env)


def growing_trust(iterations: int) -> dict:
    """``trust`` for a run of so many iterations."""
    length = max(1, min(TRUST_ITERATIONS, 3 * iterations // 10))
    return dict(type='linear', start=length, iterations=length)


def _cawr_paper(env_id: str, data_path: Any, iterations: int) -> dict:
    """CAWR as its paper prints it: L1+PER(Normal) of Table 2."""
    form = dict(policy_loss='l1', weighting='per_sample', priority='normal')
    return dict(learn={**TABLE_4, **table_5(env_id), **form})


def _cawr_released(env_id: str, data_path: Any, iterations: int) -> dict:
    """CAWR as its released code computes it, from which the paper's scores come."""
    released = dict(weighting='batch_mean', priority=dict(type='normal', exponent=0.6))
    return dict(learn={**_cawr_paper(env_id, data_path, iterations)['learn'], **released})


def _iql(env_id: str, data_path: Any, iterations: int) -> dict:
    """IQL as its paper has it for locomotion: exp(3 A) clipped at 100, batch 256, scaled rewards, cosine schedule."""
    return dict(
        learn=dict(
            batch_size=256,
            temperature=1 / 3,
            max_weight=100.0,
            normalize_advantage=False,
            weighting='per_sample',
            policy_loss='l2',
            priority='none',
            cosine_iterations=iterations,
            **(BUNDLED_SPEEDS if _is_bundled(data_path) else TABLE_4),
        ),
        env=dict(reward_norm='iql_locomotion'),
    )


def _bc(env_id: str, data_path: Any, iterations: int) -> dict:
    """Behaviour cloning: the squared error, unweighted, on uniform draws."""
    learn = dict(policy_loss='l2', weighting='none', priority='none')
    return dict(learn={**learn, **(BUNDLED_SPEEDS if _is_bundled(data_path) else {})})


ALGORITHMS = {'cawr': _cawr, 'iql': _iql, 'bc': _bc, 'cawr_paper': _cawr_paper, 'cawr_released': _cawr_released}


def table_5(env_id: str) -> dict[str, float]:
    """The paper's λ and w_max for a D4RL id; any other id gets those of the mixed and expert sets."""
    if not is_d4rl_id(env_id):
        return MIXED_OR_EXPERT
    task, quality = split_d4rl_id(env_id)
    return MIXED_OR_EXPERT if quality.endswith('expert') else TABLE_5[f'{task.name}-medium']


def make_config(env_id: str, algorithm: str = 'cawr', **overrides: Any) -> tuple[EasyDict, EasyDict]:
    """The configuration of one dataset and algorithm, as DI-engine's pipelines take it.

    Arguments:
        env_id: a D4RL id (``hopper-medium-v2``), or a gymnasium id together with ``data_path``.
        algorithm: 'cawr', 'iql', 'bc', 'cawr_paper' or 'cawr_released', settings of one policy.
        overrides: ``iterations``, ``exp_name``, ``data_path``, ``eval_freq``, ``cuda``, any key of the environment
            (``reward_norm``, ``norm_obs``, ``n_evaluator_episode``) or of ``policy.learn`` (``temperature``, ...), or
            whole sections ``env=dict(...)``, ``policy=dict(...)``, which are merged in.

    Returns:
        (main_config, create_config).

    Raises:
        ValueError: unknown id, algorithm or override; the message names what is allowed.
    """
    if algorithm not in ALGORITHMS:
        allowed = ', '.join(ALGORITHMS)
        raise ValueError(f'algorithm {algorithm!r}; allowed are {allowed}{nearest(algorithm, ALGORITHMS)}')
    sections = _sections({**overrides})
    data_path = sections['policy']['collect'].get('data_path')
    bundled = _is_bundled(data_path)
    iterations = sections['policy']['learn'].get('train_epoch', BUNDLED_ITERATIONS if bundled else ITERATIONS)
    special = ALGORITHMS[algorithm](env_id, data_path, iterations)
    # An override replaces a setting as a whole: dict(type=...) is not mixed with the one it replaces.
    learn = {key: value for key, value in special['learn'].items() if key not in sections['policy']['learn']}
    obs_shape, action_shape = _widths(env_id)
    main_config = dict(
        exp_name=f'{_experiment(env_id, data_path)}_{algorithm}',
        env=dict(env_id=env_id, n_evaluator_episode=10, stop_value=int(1e10), **special.get('env', {})),
        policy=dict(
            cuda=False,
            model=dict(obs_shape=obs_shape, action_shape=action_shape),
            learn=dict(train_epoch=iterations, **learn),
            collect=dict(data_type='offline_transitions', data_path=data_path),
            eval=dict(evaluator=dict(eval_freq=2000 if bundled else 10000)),
        ),
    )
    main_config = deep_merge_dicts(main_config, sections)
    create_config = dict(
        env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
        env_manager=dict(type='base'),
        policy=dict(type='cawr', import_names=['ding_cawr']),
    )
    return EasyDict(main_config), EasyDict(create_config)


def _is_bundled(data_path: Any) -> bool:
    return str(data_path).startswith(f'{SCHEME}:')


def _widths(env_id: str) -> tuple[int, int]:
    """Widths of observations and actions, from the task table, or for other ids from the environment itself."""
    task = find_task(env_id)
    return (task.obs_shape, task.action_shape) if task else space_widths(env_id)


def _experiment(env_id: str, data_path: Any) -> str:
    """'hopper_medium' for D4RL's sets, 'hopper_bundled' for a bundled one, the environment's name otherwise."""
    if _is_bundled(data_path):
        return f"{find_task(env_id).name if find_task(env_id) else env_id.lower()}_bundled"
    return env_id.removesuffix('-v2').replace('-', '_').lower()


def _sections(overrides: dict[str, Any]) -> dict:
    """Flat overrides in the sections where they belong."""
    learn_keys = set(CAWRPolicy.config['learn'])
    env_keys = {'reward_norm', 'norm_obs', 'n_evaluator_episode', 'stop_value'}
    sections: dict = {'env': {}, 'policy': {'learn': {}, 'collect': {}, 'eval': {'evaluator': {}}}}
    places = {
        **{key: sections['policy']['learn'] for key in learn_keys},
        'iterations': sections['policy']['learn'],
        **{key: sections['env'] for key in env_keys},
        'data_path': sections['policy']['collect'],
        'eval_freq': sections['policy']['eval']['evaluator'],
        'cuda': sections['policy'],
        'exp_name': sections,
    }
    whole = {key: overrides.pop(key) for key in ('env', 'policy') if key in overrides}
    for key, value in overrides.items():
        if key not in places:
            allowed = sorted({*places, 'env', 'policy'})
            raise ValueError(
                f'make_config has no override {key!r}; allowed are {", ".join(allowed)}{nearest(key, allowed)}'
            )
        name = 'train_epoch' if key == 'iterations' else key
        places[key][name] = str(value) if isinstance(value, Path) else value
    return deep_merge_dicts(sections, whole)
