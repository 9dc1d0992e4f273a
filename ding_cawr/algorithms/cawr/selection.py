"""How strongly training selects by advantage: temperature and trust, and the weights and priorities that they give."""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ding_cawr.advantage import advantage_weight, effective_sample_size
from ding_cawr.priority import WITHOUT_TEMPERATURE
from ding_cawr.runs.state import check_shapes, shapes_of

WEIGHTINGS = ('per_sample', 'batch_mean', 'none')

#: Weight of an iteration in the running means that give the effective share: a single batch seldom holds the rare,
#: large weights of a heavy tail, some fifty batches do.
SHARE_MEMORY = 0.02
#: Change of log λ for each unit of error in the logarithm of the effective share: some 1,000 iterations to settle.
ADAPTATION_RATE = 0.01
#: An effective share that is off by a larger factor counts as off by this.
LARGEST_ERROR = math.e
#: Where 'auto' begins, close to behaviour cloning.
FIRST_TEMPERATURE = 10.0
TEMPERATURE_RANGE = (1e-3, 1e3)


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
    """Weights of the policy's loss (..., B), and priorities of the draws (..., B) or None where draws are uniform."""
    weight: Tensor
    priority: Tensor | None


class Selection:
    """Weights w and priorities p of samples, from their advantages, at the temperature λ / trust.

    Trust c in [0, 1] says how far the critics are relied on: exp(c z / λ) is behaviour cloning at 0 and CAWR at 1, and
    so is p^c for the priority in which λ has no part.
    With temperature 'auto' λ follows the effective sample size of w p^exponent over uniformly drawn samples, which is
    what training sees of the dataset, so that it stays at a set share: a step selects at the λ that it finds, and then
    moves it for the next one.

    Samples are the last dimension of (..., B); leading dimensions are replicas, each with its own state. The state
    changes in place and nothing waits for the device, so that a CUDA graph can replay a step.

    Arguments:
        lead: () for one run, (R,) for R replicas.
    """

    def __init__(
        self, settings: SelectionSettings, device: torch.device | str = 'cpu', lead: tuple[int, ...] = ()
    ) -> None:
        def full_of(value: float, *shape: int) -> Tensor:
            return torch.full((*shape, 1), value, dtype=torch.float64, device=device)

        self.settings, self._lead = settings, lead
        # float64 holds advantages of any precision exactly, and is cast to theirs where it meets them.
        self._state = {
            'temperature': full_of(settings.temperature or FIRST_TEMPERATURE, *lead),
            'least_advantage': full_of(math.inf, *lead),
            'moments': full_of(0.0, 2, *lead),  # 0: none yet
        }
        self._trust_moves = _bare(settings.trust) is not full
        # 'auto' looks at a batch in several ways at once: as it is selected, λ / c, and for the strengths λ and 1.25 λ.
        ways = 3 if self._trust_moves else 2
        self._trusts, self._stretches = (full_of(1.0, ways, *(1 for _ in lead)) for _ in range(2))
        self._stretches[-1] = 1.25
        #: c of the latest step, a scalar; changes in place.
        self.trust = self._trusts.view(ways)[0]
        self._move_trust(torch.zeros((), dtype=torch.float64, device=device))

        self._uses_temperature = _bare(settings.priority) not in WITHOUT_TEMPERATURE
        self._takes_minimum = settings.priority is not None and _free_option(settings.priority, 'minimum')
        # Otherwise every sample counts alike, whatever λ is.
        some_count_more = settings.weighting == 'per_sample' or settings.priority is not None
        self._adapts = settings.temperature is None and some_count_more

    @property
    def temperature(self) -> Tensor:
        """λ of the step to come, of shape ``lead``; what will be in use is λ / c."""
        return self._state['temperature'].squeeze(-1)

    def step(self, advantage: Tensor, iteration: Tensor) -> Selected:
        """Weights and priorities of an iteration's D1 ∪ D2, whose least advantage counts as seen; then λ moves.

        Arguments:
            advantage: (..., 2n), the uniform half first.
            iteration: how many came before, a float64 scalar.
        """
        self._move_trust(iteration)
        if not self._adapts:
            return self.renew(advantage)
        self._see(advantage)
        weight, priority = self._at(advantage, self._state['temperature'] * self._stretches, self._trusts)
        self._adapt(self._strength(weight, priority)[-2:, ..., :advantage.shape[-1] // 2])
        weight = weight if self.settings.weighting == 'none' else weight[0]
        return Selected(weight, None if priority is None else priority[0])

    def of(self, advantage: Tensor) -> Selected:
        """Weights and priorities of any samples (..., B), normalized over these, at the present λ / c."""
        return self._at(advantage, self._state['temperature'], self.trust)

    def renew(self, advantage: Tensor) -> Selected:
        """``of`` samples whose least advantage counts as seen."""
        self._see(advantage)
        return self.of(advantage)

    def fit(self, advantage: Tensor) -> Selected:
        """Weights and priorities of a whole dataset (N,), with λ found for it where it is 'auto'; for one run only."""
        if self.settings.temperature is None:
            self._state['temperature'].fill_(self._fitted_temperature(advantage))
        return self.renew(advantage)

    def measured_share(self, advantage: Tensor, uniform: int) -> Tensor:
        """Effective sample size of w p^exponent, as a share in (0, 1] of the dataset, at full trust: (...).

        Arguments:
            advantage: samples (..., B), over which weights and priorities are normalized.
            uniform: how many of them, from the first on, are uniform draws (or the dataset itself).
        """
        return self._share_at(self._state['temperature'], advantage, uniform)

    @property
    def running_share(self) -> Tensor | None:
        """The share that 'auto' goes by, over some fifty batches, at full trust, of shape ``lead``; None where λ is \
        given."""
        return _share(self._state['moments']).squeeze(-1) if self._adapts else None

    def _share_at(self, temperature: Tensor, advantage: Tensor, uniform: int) -> Tensor:
        """``measured_share`` at any λ; where every strength vanishes in float32, the least that there is."""
        strength = self._strength(*self._at(advantage, temperature, torch.ones_like(temperature)))
        return effective_sample_size(strength[..., :uniform]).nan_to_num(1 / uniform)

    def _move_trust(self, iteration: Tensor) -> None:
        if self._trust_moves:
            self.trust.copy_(self.settings.trust(iteration))

    def _see(self, advantage: Tensor) -> None:
        if self._takes_minimum:
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
        """The largest λ at which the whole dataset (N,) has the share, or the one that comes nearest."""
        wanted = self.settings.effective_share

        def share(temperature: float) -> float:
            return self._share_at(torch.full_like(self.trust, temperature), advantage, len(advantage)).item()

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

    def _strength(self, weight: Tensor, priority: Tensor | None) -> Tensor:
        """How many times its share each sample (..., B) counts in the policy's loss: w p^exponent."""
        counts = self.settings.weighting == 'per_sample'
        if priority is None:
            return weight if counts else torch.ones_like(weight)
        drawn = priority if self.settings.exponent == 1 else priority**self.settings.exponent
        return weight * drawn if counts else drawn

    def _at(self, advantage: Tensor, temperature: Tensor, trust: Tensor) -> Selected:
        """Of samples (..., B), at λ and c that broadcast against them; at several of each, (k, ..., 1), several."""
        s, dtype = self.settings, advantage.dtype
        if self._trust_moves:
            temperature = temperature / trust  # at no trust infinite: all weights and priorities are 1
        temperature = temperature.to(dtype)
        weight = torch.ones_like(advantage)
        if s.weighting != 'none':
            weight = advantage_weight(advantage, temperature, s.max_weight, s.normalize_advantage)
        if s.priority is None:
            return Selected(weight, None)
        options = {'minimum': self._state['least_advantage'].to(dtype)} if self._takes_minimum else {}
        priority = s.priority(advantage, temperature, **options)
        if not self._uses_temperature:
            priority = priority**trust.to(dtype)
        return Selected(weight, priority.clamp(s.min_priority, s.max_weight))

    def state_dict(self, replica: int = 0) -> dict[str, Tensor]:
        """A copy of λ, the least advantage seen and what λ's adaptation remembers: one replica's, as of one run."""
        return {name: tensor.clone() for name, tensor in self._of_replica(replica).items()}

    def check_state(self, state: Any) -> None:
        """Whether a state can go on here.

        Raises:
            ValueError: a part of it is missing, of another shape, or a number that it cannot be.
        """
        check_shapes('selection', state, shapes_of(self.state_dict()))
        temperature, least, moments = (state[name] for name in self._state)
        impossible = {
            'temperature': ~(temperature > 0) | temperature.isinf(),
            'least_advantage': ~(least > -math.inf),  # infinite until there was an advantage
            'moments': ~(moments >= 0) | moments.isinf(),
        }
        wrong = [name for name, where in impossible.items() if where.any()]
        if wrong:
            found = state[wrong[0]].flatten().tolist()
            raise ValueError(f'the checkpoint: {wrong[0]} of its selection is {found}; take an earlier one')

    def load_state_dict(self, state: Mapping[str, Tensor], iteration: Tensor, replica: int = 0) -> None:
        """Inverse of ``state_dict``; a λ that the configuration gives stays.

        Arguments:
            iteration: that of the step to come, whose trust is taken up, a float64 scalar.
        """
        for name, tensor in self._of_replica(replica).items():
            if name != 'temperature' or self.settings.temperature is None:
                tensor.copy_(state[name])
        self._move_trust(iteration)

    def tensors(self) -> list[Tensor]:
        """All that a step changes."""
        return [*self._state.values(), self.trust]

    def _of_replica(self, replica: int) -> dict[str, Tensor]:
        """Views of one replica's state, shaped as that of one run."""
        if not self._lead:
            return self._state
        return {name: tensor.select(-2, replica) for name, tensor in self._state.items()}


def _share(moments: Tensor) -> Tensor:
    """Effective share (...) of strengths, from their mean and mean square (2, ...)."""
    mean, mean_square = moments
    return mean.square() / mean_square


def _bare(function: Callable | None) -> Callable | None:
    """The function of a table that constants of the configuration were bound to."""
    return getattr(function, 'func', function)


def _free_option(function: Callable, name: str) -> bool:
    """Whether a function takes an option that the configuration did not bind."""
    return name in inspect.signature(function).parameters and name not in getattr(function, 'keywords', {})
