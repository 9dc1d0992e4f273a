"""CAWR's presets: settings of papers and datasets, each a row of one table."""
from __future__ import annotations

from typing import Any

from ding_cawr.algorithms.settings import QUICK, Preset
from ding_cawr.data.bundled import is_bundled
from ding_cawr.tasks import is_d4rl_id, split_d4rl_id

#: Table 4: Adam's learning rates and the target's coefficient, for the methods as their papers have them.
TABLE_4 = dict(learning_rate_q=3e-4, learning_rate_value=3e-4, learning_rate_policy=3e-4, target_theta=0.005)

#: Table 5: λ and w_max. Quality 'random' and 'medium-replay' are not in it; they take the row of 'medium'. Nor is ant,
#: which takes what two of the three tasks have.
TABLE_5 = {
    'hopper-medium': dict(temperature=1 / 5, max_weight=10000.0),
    'walker2d-medium': dict(temperature=1 / 3, max_weight=10000.0),
    'halfcheetah-medium': dict(temperature=1 / 3, max_weight=10000.0),
    'ant-medium': dict(temperature=1 / 3, max_weight=10000.0),
}
MIXED_OR_EXPERT = dict(temperature=1 / 3, max_weight=100.0)

#: The bundled sets: learning rates for a twentieth of the paper's iterations, of cawr, iql and bc alike, and cawr's λ,
#: chosen on seed 10; docs/results.md has the scores on other seeds.
BUNDLED_SPEEDS = dict(learning_rate_q=1e-3, learning_rate_value=1e-3, learning_rate_policy=3e-4, target_theta=0.02)
BUNDLED_CAWR = dict(temperature=2.0, max_weight=100.0, weighting='batch_mean', trust='full')

#: Runs of at least this number of iterations end with a rate of 0. Shorter ones need their rate to the end.
LONG = 20_000


def _cawr(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return the policy's own defaults. In long runs the rate falls; on D4RL's files rewards are scaled.

    All were chosen on stand-ins for D4RL's sets in runs of 10,000 to 40,000 iterations: docs/defaults.md.
    """
    if is_bundled(data_path):
        return dict(learn=dict(BUNDLED_CAWR, **BUNDLED_SPEEDS))
    return dict(learn=_rate(iterations), env=dict(reward_norm='iql_locomotion') if data_path is None else {})


def _rate(iterations: int) -> dict:
    """Return the schedule of the policy's rate for a run of this number of iterations."""
    return dict(cosine_iterations=iterations) if iterations >= LONG else {}


def _cawr_paper(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return CAWR as its paper prints it: L1+PER(Normal) of Table 2."""
    form = dict(policy_loss='l1', weighting='per_sample', priority='normal', trust='full')
    return dict(learn={**TABLE_4, **table_5(env_id), **form})


def _cawr_released(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return CAWR as its released code computes it, from which the paper's scores come."""
    released = dict(weighting='batch_mean', priority=dict(type='normal', exponent=0.6))
    return dict(learn={**_cawr_paper(env_id, data_path, iterations)['learn'], **released})


def _iql(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return IQL as its paper has it for locomotion: exp(3 A) clipped at 100, batch 256, scaled rewards, cosine
    schedule."""
    return _iql_at(BUNDLED_SPEEDS if is_bundled(data_path) else TABLE_4, iterations)


def _iql_quick(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return IQL at the rates of cawr's defaults, for runs that are short beside its paper's."""
    return _iql_at(QUICK, iterations)


def _iql_at(rates: dict, iterations: int) -> dict:
    return dict(
        learn=dict(
            batch_size=256,
            temperature=1 / 3,
            trust='full',
            max_weight=100.0,
            normalize_advantage=False,
            weighting='per_sample',
            policy_loss='l2',
            priority='none',
            cosine_iterations=iterations,
            **rates,
        ),
        env=dict(reward_norm='iql_locomotion'),
    )


def _bc(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return behaviour cloning: the squared error, unweighted, on uniform draws, without critics, with cawr's rates."""
    learn = dict(policy_loss='l2', weighting='none', priority='none', advantage='none')
    return dict(learn={**learn, **(BUNDLED_SPEEDS if is_bundled(data_path) else _rate(iterations))})


def _bc_best(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return behaviour cloning with cawr's loss on draws from the better episodes.

    It is close to 10%BC (Chen et al. 2021, arXiv 2106.01345, Sec. 5.1), which takes the best tenth of the rows.
    """
    learn = _bc(env_id, data_path, iterations)['learn']
    return dict(learn=dict(learn, policy_loss='l1', best_episodes=0.15))


PRESETS = {
    'cawr': Preset('CAWR as make_config sets it for the dataset', _cawr),
    'iql': Preset(
        "IQL's weights, loss, batch, rewards and schedule as its paper has them", _iql, namesake='ding.policy.iql'
    ),
    'iql_quick': Preset('IQL at rates of 1e-3 and a target of 0.02, for at most 100,000 iterations', _iql_quick),
    'bc': Preset('behaviour cloning, the squared error on uniform draws', _bc),
    'bc_best': Preset('behaviour cloning of the better episodes, the absolute error', _bc_best),
    'cawr_paper': Preset('CAWR as its paper prints it', _cawr_paper),
    'cawr_released': Preset('CAWR as its released code computes it', _cawr_released),
}


def table_5(env_id: str) -> dict[str, float]:
    """Return the paper's λ and w_max for a D4RL id; any other id gets those of the mixed and expert sets."""
    if not is_d4rl_id(env_id):
        return MIXED_OR_EXPERT
    task, quality = split_d4rl_id(env_id)
    return MIXED_OR_EXPERT if quality.endswith('expert') else TABLE_5[f'{task.name}-medium']
