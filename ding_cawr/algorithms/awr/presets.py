"""AWR's presets for D4RL's sets."""
from __future__ import annotations

from typing import Any

from ding_cawr.algorithms.base import Preset

#: Observations are normalized with the dataset's mean and its standard deviation plus 1e-3.
ENV = dict(norm_obs=dict(use_norm=True, offline_stats=dict(use_offline_stats=True)))


def _awr(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return the released settings, and longer rounds, as data that stay the same need new returns less often."""
    return dict(learn=dict(critic_steps=1000, policy_steps=5000), env=ENV)


def _td(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return the one-step form: no path is looked at, V and the policy step on each batch."""
    rates = dict(optimizer='adam', learning_rate_value=3e-4, learning_rate_policy=3e-4)
    return dict(learn=dict(returns='td', **rates), env=ENV)


PRESETS = {
    'awr': Preset('AWR as released: λ-returns of the whole dataset, V alone', _awr),
    'awr_td': Preset("AWR with one-step returns r + γ V(s') of each batch", _td),
}
