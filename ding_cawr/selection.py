"""How strongly training selects by advantage: temperature and trust, and the weights and priorities that they give."""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import advantage_weight, effective_sample_size
from ding_cawr.priority import WITHOUT_TEMPERATURE

WEIGHTINGS = ('per_sample', 'batch_mean', 'none')

#: Weight of an iteration in the running means that give the effective share: a single batch seldom holds the rare,
#: large weights of a heavy tail, some fifty batches do.
SHARE_MEMORY = 0.02
#: Change of log λ for each unit of error in the logarithm of the effective share: some 1,000 iterations to settle.
ADAPTATION_RATE = 0.01
#: Where 'auto' begins, close to behaviour cloning.
FIRST_TEMPERATURE = 10.0
TEMPERATURE_RANGE = (1e-3, 1e3)
#: Below it λ / trust is as good as infinite: all weights and priorities are 1.
LEAST_TRUST = 1e-6


def full(iteration: Tensor) -> Tensor:
    """Trust 1 from the first iteration on, as in the paper."""
    return torch.ones_like(iteration)


def linear(iteration: Tensor, iterations: int = 100_000, start: int = 0) -> Tensor:
    """Trust 0 (behaviour cloning) up to iteration ``start``, then rising to 1 within so many ``iterations``."""
    return ((iteration - start) / iterations).clamp(0, 1)


#: name -> trust(iteration, **constants) in [0, 1]; the iteration is a float64 scalar.
TRUSTS: dict[str, Callable[..., Tensor]] = {'full': full, 'linear': linear}


@dataclass(frozen=True)
class SelectionSettings:
    """What selection depends on, by the names of the configuration.

    ``temperature`` None means 'auto': λ is found from ``effective_share``. ``priority`` None means uniform draws.
    """
    temperature: float | None
    effective_share: float | None
    trust: Callable[[Tensor], Tensor]
    max_weight: float
    min_priority: float
    normalize_advantage: bool
    weighting: str
    priority: Callable[..., Tensor] | None
    exponent: float


class Selected(NamedTuple):
    """Weights of the policy's loss (B,), and priorities of the draws (B,) or None where draws are uniform."""
    weight: Tensor
    priority: Tensor | None


class Selection:
    """Weights w and priorities p of samples, from their advantages, at the temperature λ / trust.

    Trust c in [0, 1] says how far the critics are relied on: exp(c z / λ) is behaviour cloning at 0 and CAWR at 1, and
    so is p^c for the priority in which λ has no part.
    With temperature 'auto' λ follows the effective sample size of w p^exponent over uniformly drawn samples, which is
    what training sees of the dataset, so that it stays at a set share.
    """

    def __init__(self, settings: SelectionSettings, device: torch.device | str = 'cpu') -> None:
        self.settings = settings
        self._state = {
            'iteration': torch.zeros((), dtype=torch.float64, device=device),
            'temperature': torch.tensor(settings.temperature or FIRST_TEMPERATURE, dtype=torch.float64, device=device),
            'least_advantage': torch.tensor(math.inf, device=device),
            'moments': torch.zeros(2, dtype=torch.float64, device=device),  # 0: none yet
        }
        self.trust = settings.trust(self._state['iteration'])
        self._uses_temperature = getattr(settings.priority, 'func', settings.priority) not in WITHOUT_TEMPERATURE
        self._takes_minimum = settings.priority is not None and _free_option(settings.priority, 'minimum')

    @property
    def temperature(self) -> Tensor:
        """λ, a scalar; what is in use is λ / c."""
        return self._state['temperature']

    def step(self, advantage: Tensor) -> Selected:
        """One iteration: weights and priorities of D1 ∪ D2, after λ and the least advantage seen have moved.

        Arguments:
            advantage: (2n,), the uniform half first.
        """
        if self.settings.temperature is None:
            self._adapt(advantage)
        self.trust = self.settings.trust(self._state['iteration'])
        self._state['iteration'] = self._state['iteration'] + 1
        return self.renew(advantage)

    def of(self, advantage: Tensor) -> Selected:
        """Weights and priorities of any samples (B,), normalized over these, at the latest step's λ / c."""
        return self._at(advantage, self.temperature, self.trust)

    def renew(self, advantage: Tensor) -> Selected:
        """``of`` samples whose least advantage counts as seen."""
        self._state['least_advantage'] = torch.minimum(self._state['least_advantage'], advantage.amin())
        return self.of(advantage)

    def fit(self, advantage: Tensor) -> Selected:
        """Weights and priorities of a whole dataset (N,), with λ found for it where it is 'auto'."""
        if self.settings.temperature is None:
            self._state['temperature'].fill_(self._fitted_temperature(advantage))
        return self.renew(advantage)

    def measured_share(self, advantage: Tensor, uniform: int) -> Tensor:
        """Effective sample size of w p^exponent, as a share of the dataset, at full trust: a scalar in (0, 1].

        Arguments:
            advantage: samples (B,), over which weights and priorities are normalized.
            uniform: how many of them, from the first on, are uniform draws (or the dataset itself).
        """
        return self._share(advantage, self.temperature, uniform)

    @property
    def running_share(self) -> Tensor | None:
        """The share that 'auto' goes by, over some fifty batches, at full trust; None where λ is given."""
        moments = self._state['moments']
        return moments[0].square() / moments[1] if self.settings.temperature is None else None

    def _share(self, advantage: Tensor, temperature: Tensor, uniform: int) -> Tensor:
        """``measured_share`` at any temperature; where every strength vanishes in float32, the least that there is."""
        return effective_sample_size(self._strength(advantage, temperature)[:uniform]).nan_to_num(1 / uniform)

    def _adapt(self, advantage: Tensor) -> None:
        """Move λ a little towards the effective share that is wanted, over the uniform half of these samples (2n,)."""
        temperature, uniform = self._state['temperature'], len(advantage) // 2
        strength = self._strength(advantage, temperature)[:uniform].double()
        moments = torch.stack([strength.mean(), strength.square().mean()])
        before = self._state['moments']
        moments = torch.where(before > 0, before.lerp(moments, SHARE_MEMORY), moments)
        share = (moments[0].square() / moments[1]).nan_to_num(1 / uniform)
        error = (math.log(self.settings.effective_share) - share.log()).clamp(-1, 1)
        # Where clipping rules, the share falls as λ grows; it is found again beyond, at larger λ.
        now = effective_sample_size(strength).nan_to_num(1 / uniform)
        clipped = self._share(advantage, 1.25 * temperature, uniform) <= now
        change = (ADAPTATION_RATE * torch.where(clipped, 1.0, error)).exp()
        self._state['temperature'] = (temperature * change).clamp(*TEMPERATURE_RANGE)
        self._state['moments'] = moments

    def _fitted_temperature(self, advantage: Tensor) -> float:
        """The largest λ at which the whole dataset (N,) has the share, or the one that comes nearest."""
        wanted = self.settings.effective_share

        def share(temperature: float) -> float:
            return self._share(advantage, torch.tensor(temperature), len(advantage)).item()

        # From the weakest selection on, since clipping makes the share rise again where λ is small.
        grid = torch.logspace(*(math.log10(bound) for bound in reversed(TEMPERATURE_RANGE)), 61).tolist()
        shares = [share(temperature) for temperature in grid]
        first = next(i for i, found in enumerate(shares) if found <= max(wanted, min(shares)))
        if first == 0:
            return grid[first]
        low, high = grid[first], grid[first - 1]
        for _ in range(20):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if share(middle) < wanted else (low, middle)
        return high

    def _strength(self, advantage: Tensor, temperature: Tensor) -> Tensor:
        """How many times its share each sample (B,) counts in the policy's loss: w p^exponent."""
        weight, priority = self._at(advantage, temperature, torch.ones_like(temperature))
        counts = weight if self.settings.weighting == 'per_sample' else torch.ones_like(weight)
        return counts if priority is None else counts * priority**self.settings.exponent

    def _at(self, advantage: Tensor, temperature: Tensor, trust: Tensor) -> Selected:
        s, temperature = self.settings, temperature / trust.clamp(min=LEAST_TRUST)
        weight = torch.ones_like(advantage)
        if s.weighting != 'none':
            weight = advantage_weight(advantage, temperature, s.max_weight, s.normalize_advantage)
        if s.priority is None:
            return Selected(weight, None)
        options = {'minimum': self._state['least_advantage']} if self._takes_minimum else {}
        priority = s.priority(advantage, temperature, **options)
        if not self._uses_temperature:
            priority = priority**trust
        return Selected(weight, priority.clamp(s.min_priority, s.max_weight))

    def state_dict(self) -> dict[str, Tensor]:
        """Iteration, λ, the least advantage seen and what λ's adaptation remembers."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of ``state_dict``; a λ that the configuration gives stays."""
        given = {'temperature': self._state['temperature']} if self.settings.temperature is not None else {}
        self._state = {**{name: state[name].to(old.device) for name, old in self._state.items()}, **given}
        self.trust = self.settings.trust(self._state['iteration'])


def _free_option(function: Callable, name: str) -> bool:
    """Whether a function takes an option that the configuration did not bind."""
    return name in inspect.signature(function).parameters and name not in getattr(function, 'keywords', {})
