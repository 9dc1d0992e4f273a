"""Estimate a behaviour policy's advantages on rows of a dataset by rolling MuJoCo out from them; write both to a file.

    python benchmarks/advantages.py hopper_medium-v2.hdf5 --env hopper-medium-v2 --policy behaviour.npz --out given.hdf5

A(s, a) = Q(s, a) - V(s) of the behaviour, K pairs of rollouts a row: one takes the row's action first and then the
behaviour's, the other the behaviour's from the start. Both rollouts of a pair have the same random numbers and the same
strength of extra action noise, drawn for the pair. Returns are discounted and cut at the horizon. What comes after it
counts discount^horizon or less; the script says how many pairs are cut.

The file has the rows in DI-engine's layout, ``advantage``, its standard error ``advantage_error``, and attributes that
say how it was made; ``learn.advantage='dataset'`` trains on it. The environment must be Hopper, Walker2d or
HalfCheetah, whose observations give the whole state but for x. Rows whose velocities are at the clip of the first two
are left out. The policy's file holds a tanh-Gaussian with two ReLU layers: latent_pi.0, latent_pi.2, mu and log_std,
each with weight and bias. A check that the simulator continues rows as the dataset does comes first; where it fails,
nothing is written. mujoco must be 3.2.7 or newer, the first with ``rollout.Rollout``.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
from mujoco import rollout

from ding_cawr.data.collect import write_columns
from ding_cawr.data.d4rl import sha256
from ding_cawr.data.load import load_transitions
from ding_cawr.data.transitions import Transitions
from ding_cawr.environments import make_environment
from ding_cawr.files import existing_file, new_file
from ding_cawr.tasks import gymnasium_id

#: Largest velocity that the observations of each environment can hold.
CLIPS = {'Hopper-v4': 10.0, 'Walker2d-v4': 10.0, 'HalfCheetah-v4': np.inf}
LAYERS = ('latent_pi.0', 'latent_pi.2', 'mu', 'log_std')
CHECKED_ROWS, TOLERANCE = 200, 1e-4
#: Pairs of rollouts that run side by side.
PAIRS = 1024
#: The behaviour: observations (n, O), standard normal numbers (2, n, A) and strengths of extra noise (n,) to actions.
Behaviour = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Simulator:
    """MuJoCo and an environment's rewards and ends, many states at a time.

    A state is (time, positions, velocities), all float64.
    """

    def __init__(self, env_id: str) -> None:
        self.clip = CLIPS.get(gymnasium_id(env_id))
        if self.clip is None:
            raise ValueError(f'--env is {env_id}; it must be of {", ".join(CLIPS)}, whose observations give the state')
        self.env = make_environment(env_id).unwrapped
        self.positions = slice(1, 1 + self.env.model.nq)
        self._rollout, self._data = rollout.Rollout(nthread=0), mujoco.MjData(self.env.model)

    def states(self, obs: np.ndarray) -> np.ndarray:
        """Return the states (n, 1 + P + V) of observations (n, O), with x = 0."""
        return np.concatenate([np.zeros((len(obs), 2)), obs], axis=1)

    def velocities(self, obs: np.ndarray) -> np.ndarray:
        """Return the velocities (n, V) of observations (n, O)."""
        return obs[:, self.env.model.nq - 1:]

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the next states, their observations in float32, rewards (n,) and whether episodes end there (n,)."""
        controls = np.repeat(actions[:, None].astype(np.float64), self.env.frame_skip, axis=1)
        path, _ = self._rollout.rollout(self.env.model, self._data, states, controls)
        after = path[:, -1]
        obs = after[:, 2:].astype(np.float32)
        velocities = self.velocities(obs)
        np.clip(velocities, -self.clip, self.clip, out=velocities)
        return after, obs, self._rewards(states, actions, after), self._ends(after)

    def _rewards(self, states: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
        env = self.env
        speed = (after[:, 1] - states[:, 1]) / env.dt
        cost = env._ctrl_cost_weight * np.square(actions.astype(np.float64)).sum(axis=1)
        return env._forward_reward_weight * speed + getattr(env, '_healthy_reward', 0.0) - cost

    def _ends(self, after: np.ndarray) -> np.ndarray:
        ends = np.zeros(len(after), bool)
        parts = dict(
            _healthy_z_range=after[:, 2:3], _healthy_angle_range=after[:, 3:4], _healthy_state_range=after[:, 3:]
        )
        for name, part in parts.items():
            low, high = getattr(self.env, name, (-np.inf, np.inf))
            ends |= ~((low < part) & (part < high)).all(axis=1)
        return ends


def check_continues(simulator: Simulator, data: Transitions, rows: np.ndarray) -> float:
    """Return the largest difference between the simulator's next observations and rewards and those of rows.

    The next observation of a terminal row does not count: in D4RL's layout it is the following episode's first.

    Raises:
        ValueError: they differ by more than float32's rounding does, or the ends differ.
    """
    _, obs, reward, ends = simulator.step(simulator.states(data.obs[rows]), data.action[rows])
    moved = np.where(data.done[rows, None], 0, obs - data.next_obs[rows])
    differences = np.abs(np.column_stack([moved, reward - data.reward[rows]])).max(axis=1)
    worst = int(differences.argmax())
    if not differences[worst] <= TOLERANCE or (ends != data.done[rows]).any():
        raise ValueError(
            f'{data.source}: the simulator does not continue row {rows[worst]} as the dataset does: they differ by '
            f'{differences[worst]:g}, which must be {TOLERANCE:g} or less, and {(ends != data.done[rows]).sum()} of '
            f'{len(rows)} ends differ; take the environment that the dataset was made with'
        )
    return float(differences[worst])


def read_behaviour(path: Path, obs_shape: int, action_shape: int) -> Behaviour:
    """Return the behaviour policy of an .npz file.

    Raises:
        ValueError: it has other arrays or widths.
    """
    with np.load(existing_file(path, 'policy')) as archive:
        missing = [f'{layer}.{part}' for layer in LAYERS for part in ('weight', 'bias')
                   if f'{layer}.{part}' not in archive]
        if missing:
            raise ValueError(f'{path} lacks {", ".join(missing)}; it has {", ".join(archive.files)}')
        first, second, mean, spread = ((archive[f'{each}.weight'].T, archive[f'{each}.bias']) for each in LAYERS)
    if (len(first[0]), len(mean[1])) != (obs_shape, action_shape):
        raise ValueError(f'{path} takes {len(first[0])} numbers and gives {len(mean[1])}; they must be {obs_shape} and '
                         f'{action_shape}, as in the dataset')

    def act(obs: np.ndarray, normal: np.ndarray, strength: np.ndarray) -> np.ndarray:
        hidden = np.maximum(np.maximum(obs @ first[0] + first[1], 0) @ second[0] + second[1], 0)
        scale = np.exp(np.clip(hidden @ spread[0] + spread[1], -20, 2))
        own = np.tanh(hidden @ mean[0] + mean[1] + scale * normal[0])
        return np.clip(own + strength[:, None] * normal[1], -1, 1).astype(np.float32)
    return act


def roll_out(
    simulator: Simulator, behaviour: Behaviour, obs: np.ndarray, action: np.ndarray, strength: np.ndarray, horizon: int,
    discount: float, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return discounted returns (2, n) of n pairs: with the action first, and without; whether they reach the horizon
    (2, n); and the steps that it took.

    Arguments:
        obs: (n, O), action: (n, A), strength: (n,) of each pair.
    """
    pairs = len(obs)
    pair, returns, steps = np.tile(np.arange(pairs), 2), np.zeros(2 * pairs), 0
    running, obs = np.arange(2 * pairs), np.concatenate([obs, obs])
    states = simulator.states(obs)
    for time_step in range(horizon):
        normal, mine = rng.standard_normal((2, pairs, action.shape[1]), dtype=np.float32), pair[running]
        actions = behaviour(obs, normal[:, mine], strength[mine])
        if time_step == 0:
            actions[:pairs] = action
        states, obs, reward, ends = simulator.step(states, actions)
        returns[running] += discount**time_step * reward
        steps += len(running)
        running, states, obs = running[~ends], states[~ends], obs[~ends]
        if len(running) == 0:
            break
    reached = np.zeros(2 * pairs, bool)
    reached[running] = True
    return returns.reshape(2, pairs), reached.reshape(2, pairs), steps


def estimate(
    simulator: Simulator, behaviour: Behaviour, data: Transitions, rows: np.ndarray, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return the advantages of rows (n,), their standard errors (n,), and what it took."""
    rng, count = np.random.default_rng([options.seed, 1]), options.rollouts
    means, errors, reached, steps, start = [], [], [], 0, time.perf_counter()
    for chunk in np.array_split(rows, -(-len(rows) * count // PAIRS)):
        each = np.repeat(chunk, count)
        strength = rng.choice(np.array(options.noise, np.float32), len(each))
        returns, whole, taken = roll_out(
            simulator, behaviour, data.obs[each], data.action[each], strength, options.horizon, options.discount, rng
        )
        differences = (returns[0] - returns[1]).reshape(len(chunk), count)
        means.append(differences.mean(axis=1))
        errors.append(differences.std(axis=1, ddof=1) / count**0.5)
        reached.append(whole.any(axis=0))
        steps += taken
        done, seconds = sum(map(len, means)), time.perf_counter() - start
        print(f'{done} of {len(rows)} rows, {seconds:.0f} s, {steps / seconds:.0f} steps/s', flush=True)
    about = dict(steps=steps, seconds=round(seconds, 1), cut_pairs=float(np.concatenate(reached).mean()),
                 discount_at_cut=options.discount**options.horizon)
    return np.concatenate(means), np.concatenate(errors), about


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='the dataset, a .hdf5 or .npz file')
    parser.add_argument('--env', required=True, help='its environment, a D4RL id')
    parser.add_argument('--policy', type=Path, required=True, help='the behaviour policy, an .npz file')
    parser.add_argument('--out', type=Path, required=True, help='the file to write, .hdf5')
    parser.add_argument('--noise', default='0', help='strengths of extra action noise, with commas')
    parser.add_argument('--rows', type=int, default=20_000, help='random rows that are taken')
    parser.add_argument('--rollouts', type=int, default=4, help='pairs of rollouts a row, 2 or more')
    parser.add_argument('--horizon', type=int, default=100, help='steps of a rollout')
    parser.add_argument('--discount', type=float, default=0.99)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    if not hasattr(rollout, 'Rollout'):
        parser.error(f'mujoco is {mujoco.__version__}; it must be 3.2.7 or newer')
    if options.rollouts < 2:
        parser.error(f'--rollouts is {options.rollouts}; it must be 2 or more, for the standard error')
    try:
        options.noise = [float(each) for each in options.noise.split(',')]
        make(options)
    except (OSError, ValueError) as error:
        parser.exit(2, f'{error}\n')


def make(options: argparse.Namespace) -> None:
    """Choose rows, estimate their advantages and write the file."""
    new_file(options.out, ('.hdf5', ))
    data, simulator = load_transitions(options.data, options.env), Simulator(options.env)
    behaviour = read_behaviour(options.policy, data.obs_shape, data.action_shape)
    known = np.flatnonzero((np.abs(simulator.velocities(data.obs)) < simulator.clip).all(axis=1))
    rng = np.random.default_rng([options.seed, 0])
    rows = np.sort(rng.choice(known, min(options.rows, len(known)), replace=False))
    checked = rng.choice(known, min(CHECKED_ROWS, len(known)), replace=False)
    difference = check_continues(simulator, data, checked)
    print(f'the simulator continues {len(checked)} rows as the dataset does: they differ by {difference:.2g} at most')
    advantage, error, about = estimate(simulator, behaviour, data, rows, options)
    columns = {name: np.asarray(data.table[name])[rows] for name in ('obs', 'action', 'reward', 'next_obs')}
    columns |= dict(done=data.done[rows].astype(bool), advantage=advantage, advantage_error=error)
    write_columns(options.out, columns, dict(
        env_id=options.env, action_scale='unit', source=options.data.name, source_sha256=sha256(options.data),
        behaviour=options.policy.name, noise=options.noise, rows=len(rows), rows_at_clip=len(data) - len(known),
        rollouts=options.rollouts, horizon=options.horizon, discount=options.discount, seed=options.seed, **about,
    ))
    noise = np.square(error).mean() / advantage.var()
    print(
        f'{options.out}: {len(rows)} rows, advantages {advantage.mean():.3f} ± {advantage.std():.3f}, standard errors '
        f'{error.mean():.3f} in the mean, their squares {noise:.0%} of the variance; {about["cut_pairs"]:.0%} of the '
        f'pairs are cut at step {options.horizon}, where rewards count {about["discount_at_cut"]:.2g}; '
        f'{len(data) - len(known)} of {len(data)} rows were at the clip'
    )


if __name__ == '__main__':
    main()
