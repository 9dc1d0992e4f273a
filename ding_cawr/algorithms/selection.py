"""Select by advantage: temperature and trust, and the weights and priorities that they give."""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import effective_sample_size, exp_weight
from ding_cawr.algorithms.base import Tree
from ding_cawr.algorithms.settings import Auto, SelectionSettings
from ding_cawr.checks import POSITIVE, Bound

#: Weight of an iteration in the running means that give the effective share. One batch seldom holds the rare large
#: weights of a heavy-tailed distribution; about fifty do.
SHARE_MEMORY = 0.02
#: Change of log λ for each unit of error in the logarithm of the effective share: some 1,000 iterations to settle.
ADAPTATION_RATE = 0.01
#: An effective share that is off by a larger factor counts as off by this.
LARGEST_ERROR = math.e
#: First λ of 'auto', close to behaviour cloning.
FIRST_TEMPERATURE = 10.0
TEMPERATURE_RANGE = (1e-3, 1e3)


class Selected(NamedTuple):
    """Weights of the policy's loss (..., B), and priorities of the draws (..., B) or None where draws are uniform."""
    weight: Tensor
    priority: Tensor | None


class Selection:
    """Weights w and priorities p of samples, from their advantages, at the temperature λ / trust.

    Trust c in [0, 1] divides λ. At 0 all weights exp(c z / λ) are 1, at 1 they are CAWR's. A priority that does not use
    λ is raised to the power c.
    With temperature 'auto' λ follows the effective sample size of w p^exponent over uniformly drawn samples, which is
    what training sees of the dataset, so that it stays at a set share: a step selects at the λ that it finds, and then
    moves it for the next one.

    Samples are the last dimension of (..., B); leading dimensions are replicas, each with its own state. The state
    changes in place and nothing waits for the device, so that a CUDA graph can replay a step.

    Arguments:
        replica_shape: () for one run, (R,) for R replicas.
    """
    #: Bounds of the numbers in ``tree``.
    STATE_BOUNDS = {
        'temperature': POSITIVE, 'moments': Bound(0), 'least_advantage': None,  # infinite until there was an advantage
    }

    def __init__(
        self, settings: SelectionSettings, device: torch.device | str = 'cpu', replica_shape: tuple[int, ...] = ()
    ) -> None:
        def full_of(value: float, *shape: int) -> Tensor:
            return torch.full((*shape, 1), value, dtype=torch.float64, device=device)

        self.settings, self._replica_shape = settings, replica_shape
        self._is_auto = isinstance(settings.temperature, Auto)
        # float64 holds advantages of any precision exactly, and is cast to theirs where it meets them.
        self._state = {
            'temperature': full_of(FIRST_TEMPERATURE if self._is_auto else settings.temperature, *replica_shape),
            'least_advantage': full_of(math.inf, *replica_shape),
            'moments': full_of(0.0, 2, *replica_shape),  # 0: none yet
        }
        self._trust_moves = settings.trust is not None
        # 'auto' looks at a batch in several ways at once: as it is selected, λ / c, and for the strengths λ and 1.25 λ.
        ways = 3 if self._trust_moves else 2
        self._trusts, self._stretches = (full_of(1.0, ways, *(1 for _ in replica_shape)) for _ in range(2))
        self._stretches[-1] = 1.25
        #: c of the latest step, a scalar; changes in place.
        self.trust = self._trusts.view(ways)[0]
        self._move_trust(torch.zeros((), dtype=torch.float64, device=device))

        self._priority = settings.priority and settings.priority.priority

    @property
    def temperature(self) -> Tensor:
        """λ of the step to come, of shape ``replica_shape``; λ / c will be in use."""
        return self._state['temperature'].squeeze(-1)

    def step(self, advantage: Tensor, iteration: Tensor) -> Selected:
        """Return weights and priorities of an iteration's D1 ∪ D2; then move λ. Their least advantage is recorded.

        Arguments:
            advantage: (..., 2n), the uniform half first.
            iteration: how many came before, a float64 scalar.
        """
        self._move_trust(iteration)
        if not self._is_auto:
            return self.renew(advantage)
        self._see(advantage)
        weight, priority = self._at(advantage, self._state['temperature'] * self._stretches, self._trusts)
        self._adapt(self.strength_of(weight, priority)[-2:, ..., :advantage.shape[-1] // 2])
        weight = weight if self.settings.weighting == 'none' else weight[0]
        return Selected(weight, None if priority is None else priority[0])

    def select(self, advantage: Tensor) -> Selected:
        """Return weights and priorities of samples (..., B), normalized over these samples, at the present λ / c."""
        return self._at(advantage, self._state['temperature'], self.trust)

    def renew(self, advantage: Tensor) -> Selected:
        """Record the least advantage of samples (..., B), then return what ``select`` gives."""
        self._see(advantage)
        return self.select(advantage)

    def fit(self, advantage: Tensor) -> Selected:
        """Return weights and priorities of a whole dataset (N,), with λ found for it where it is 'auto'; of one run
        only."""
        self._see(advantage)  # which the strengths of a priority may depend on
        if self._is_auto:
            self._state['temperature'].fill_(self._fitted_temperature(advantage))
        return self.select(advantage)

    def measured_share(self, advantage: Tensor, uniform: int, temperature: Tensor | None = None) -> Tensor:
        """Return the effective sample size of w p^exponent, as a share in (0, 1] of the dataset, at full trust: (...).
        It is the least possible one where every strength vanishes in float32.

        Arguments:
            advantage: samples (..., B), over which weights and priorities are normalized.
            uniform: how many of them, from the first on, are uniform draws (or the dataset itself).
            temperature: λ (..., 1), or None for the present one.
        """
        temperature = self._state['temperature'] if temperature is None else temperature
        strength = self.strength_of(*self._at(advantage, temperature, torch.ones_like(temperature)))
        return effective_sample_size(strength[..., :uniform]).nan_to_num(1 / uniform)

    def share(self, advantage: Tensor) -> Tensor:
        """Return the effective share (...) at full trust: the running estimate by which 'auto' moves λ, or for a
        given λ that of D1 ∪ D2 (..., 2n)."""
        if self._is_auto:
            return _share(self._state['moments']).squeeze(-1)
        return self.measured_share(advantage, advantage.shape[-1] // 2)

    def _move_trust(self, iteration: Tensor) -> None:
        if self._trust_moves:
            self.trust.copy_(self.settings.trust(iteration))

    def _see(self, advantage: Tensor) -> None:
        if self._priority and self._priority.uses_minimum:
            least = self._state['least_advantage']
            torch.minimum(least, advantage.amin(dim=-1, keepdim=True), out=least)

    def _adapt(self, strength: Tensor) -> None:
        """Move λ a little towards the effective share that is wanted.

        Arguments:
            strength: of uniform draws (n), at λ and at 1.25 λ: (2, ..., n).
        """
        strength = strength.double()
        moments = torch.stack([strength, strength.square()]).mean(dim=-1, keepdim=True)
        running, latest = self._state['moments'], moments[:, 0]
        torch.where(running > 0, running.lerp(latest, SHARE_MEMORY), latest, out=running)
        shares = _share(torch.cat([running.unsqueeze(1), moments], dim=1))
        share, now, weaker = shares.nan_to_num(1 / strength.shape[-1])
        excess = (share / self.settings.effective_share).clamp(1 / LARGEST_ERROR, LARGEST_ERROR)
        # Where clipping rules, the share falls as λ grows; it is found again beyond, at larger λ.
        excess.masked_fill_(weaker <= now, 1 / LARGEST_ERROR)
        self._state['temperature'].mul_(excess.pow_(-ADAPTATION_RATE)).clamp_(*TEMPERATURE_RANGE)

    def _fitted_temperature(self, advantage: Tensor) -> float:
        """Return the largest λ at which the whole dataset (N,) has the share, or the one that comes nearest."""
        wanted = self.settings.effective_share

        def share(temperature: float) -> float:
            return self.measured_share(advantage, len(advantage), torch.full_like(self.trust, temperature)).item()

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

    def strength_of(self, weight: Tensor, priority: Tensor | None) -> Tensor:
        """Return w p^exponent, the factor of each sample (..., B) in the policy's loss."""
        counts = self.settings.weighting == 'per_sample'
        if priority is None:
            return weight if counts else torch.ones_like(weight)
        drawn = priority if self.settings.exponent == 1 else priority**self.settings.exponent
        return weight * drawn if counts else drawn

    def _at(self, advantage: Tensor, temperature: Tensor, trust: Tensor) -> Selected:
        """Return the selection of samples (..., B) at λ and trust that broadcast against them; k of it at (k, ...,
        1)."""
        s, dtype = self.settings, advantage.dtype
        if self._trust_moves:
            temperature = temperature / trust  # at no trust infinite: all weights and priorities are 1
        temperature = temperature.to(dtype)
        weight = torch.ones_like(advantage)
        if s.weighting != 'none':
            weight = exp_weight(advantage, temperature, s.max_weight, s.normalize_advantage)
        if self._priority is None:
            return Selected(weight, None)
        options = {'minimum': self._state['least_advantage'].to(dtype)} if self._priority.uses_minimum else {}
        priority = self._priority.function(advantage, temperature, **options)
        if not self._priority.uses_temperature:
            priority = priority**trust.to(dtype)
        return Selected(weight, priority.clamp(s.min_priority, s.max_weight))

    def tree(self, replica: int = 0) -> dict[str, Tensor]:
        """Return λ, the least advantage seen and the moments of one replica, as of one run; not copies."""
        if not self._replica_shape:
            return self._state
        return {name: tensor.select(-2, replica) for name, tensor in self._state.items()}

    @staticmethod
    def check_state(state: Tree) -> None:
        """Raise a ValueError for a least advantage that is -inf or not a number."""
        least = state['least_advantage']
        if not least > -math.inf:
            raise ValueError(f'the checkpoint: selection least_advantage is {least.item()}; take another checkpoint')

    def resumed(self, iteration: Tensor) -> None:
        """Take up the trust of the step to come, and a λ that the configuration gives.

        Arguments:
            iteration: how many came before, a float64 scalar.
        """
        if not self._is_auto:
            self._state['temperature'].fill_(self.settings.temperature)
        self._move_trust(iteration)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        return [*self._state.values(), self.trust]


def _share(moments: Tensor) -> Tensor:
    """Return the effective share (...) of strengths, from their mean and mean square (2, ...)."""
    mean, mean_square = moments
    return mean.square() / mean_square
