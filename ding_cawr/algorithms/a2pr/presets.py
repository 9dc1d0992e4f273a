"""A2PR's presets: what its authors published for D4RL's sets, and its relatives as settings of it."""
from __future__ import annotations

from typing import Any

from ding_cawr.algorithms.settings import NORMALIZED, QUICK, Preset

#: alpha, mask, vae_weight and discount_factor of the released code's README and history (github ltlhuuu/A2PR).
PUBLISHED = {
    'halfcheetah-medium-v2': (40.0, 1.0, 1.0, 0.99),
    'halfcheetah-medium-replay-v2': (40.0, 0.8, 1.5, 0.995),
    'halfcheetah-medium-expert-v2': (40.0, 15.0, 1.0, 0.99),
    'hopper-medium-v2': (2.5, 0.4, 1.0, 0.995),
    'hopper-medium-replay-v2': (2.5, 0.5, 1.5, 0.99),
    'hopper-medium-expert-v2': (2.5, 4.0, 1.0, 0.99),
    'hopper-random-v2': (2.5, 1.5, 1.5, 0.995),
    'walker2d-medium-v2': (2.5, 1.0, 1.5, 0.99),
    'walker2d-medium-replay-v2': (2.5, 1.2, 1.5, 0.995),
    'walker2d-medium-expert-v2': (2.5, 0.8, 1.0, 0.99),
}
KEYS = ('alpha', 'mask', 'vae_weight', 'discount_factor')
#: Configurations of at most this number of iterations have quick rates. The released ones are for 1,000,000.
SHORT = 100_000


def _a2pr(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return the published settings of a D4RL set; for any other data the defaults of the settings."""
    published = None if data_path else PUBLISHED.get(env_id)
    return dict(learn=dict(zip(KEYS, published)) if published else {}, env=NORMALIZED)


def _mask(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return imitation by the advantage's mask alone (wPC), no VAE, and quick rates for short runs.

    alpha is TD3+BC's 2.5, and the weight of the imitation TD3+BC's 1, on every set.
    """
    rates = QUICK if iterations <= SHORT else {}
    return dict(learn=dict(imitation='mask', mask=1.0, **rates), model=dict(vae=False), env=NORMALIZED)


def _all(env_id: str, data_path: Any, iterations: int) -> dict:
    """Return TD3+BC, which imitates every action, with its paper's alpha of 2.5 and weight of 1."""
    return dict(learn=dict(imitation='all', mask=1.0), model=dict(vae=False), env=NORMALIZED)


PRESETS = {
    'a2pr': Preset('A2PR as released, with the published settings of the dataset', _a2pr),
    'a2pr_mask': Preset(
        "A2PR's mask alone, without the VAE (wPC); rates of 1e-3 with iterations of at most 100,000", _mask
    ),
    'a2pr_all': Preset('TD3+BC, the imitation of every action, as a setting of A2PR', _all),
}
