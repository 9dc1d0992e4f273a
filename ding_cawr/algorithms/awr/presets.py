"""AWR's presets for datasets."""
from __future__ import annotations

from typing import Any

from ding_cawr.algorithms.settings import NORMALIZED, Preset
from ding_cawr.data.bundled import is_bundled
from ding_cawr.tasks import find_task

#: The released learning rates of the policy, by task.
RATES = {'hopper': 1e-4, 'halfcheetah': 5e-5, 'walker2d': 2.5e-5, 'ant': 5e-5}
#: New returns cost a look at all rows, and a dataset that stays the same needs them less often than rows that come.
#: ``round_steps`` is larger by the same factor, so that online a new step brings as many iterations as released.
ROUND = dict(critic_steps=1000, policy_steps=5000, round_steps=5 * 2048)
#: The bundled sets are small, and have a twentieth of the iterations.
BUNDLED = dict(optimizer='adam', learning_rate_value=1e-3, learning_rate_policy=3e-4)
TD = dict(returns='td', optimizer='adam', learning_rate_value=3e-4, learning_rate_policy=3e-4)


def _awr(env_id: str | None, data_path: Any, iterations: int) -> dict:
    """Return the released settings with longer rounds."""
    if is_bundled(data_path):
        return dict(learn=BUNDLED, env=NORMALIZED)
    task = find_task(env_id)
    rates = dict(learning_rate_policy=RATES[task.name]) if task and task.name in RATES else {}
    return dict(learn=dict(ROUND, **rates), env=NORMALIZED)


def _td(env_id: str | None, data_path: Any, iterations: int) -> dict:
    """Return the one-step form: no trajectory is looked at, and V and the policy step on each batch."""
    return dict(learn=TD, env=NORMALIZED)


PRESETS = {
    'awr': Preset('AWR as released, with λ-returns of the whole dataset, V alone', _awr),
    'awr_td': Preset("AWR with one-step returns r + γ V(s') of each batch", _td),
}
