"""returns.py against a double loop, and where the data say that trajectories end."""
import json
import time

import h5py
import numpy as np
import pytest
import torch

from ding_cawr.data.corruption import corrupt
from ding_cawr.data.load import load_transitions
from ding_cawr.returns import episode_weights, lambda_returns, one_step_returns, trajectory_lengths

#: Paths that end in every way: (rows, whether the last one is terminal).
PATHS = [(1, True), (1, False), (5, True), (5, False), (2, True), (64, False), (65, True), (63, False), (1, False)]


def columns(paths: list[tuple[int, bool]], lead: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = sum(length for length, _ in paths)
    reward, next_value = torch.randn(2, *lead, rows, generator=generator, dtype=torch.float64)
    done, ends, last = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.bool), -1
    for length, terminal in paths:
        last += length
        ends[last], done[last] = True, float(terminal)
    return dict(reward=reward, next_value=next_value, done=done, ends=ends)


def by_definition(reward, next_value, done, ends, gamma: float, lambda_: float) -> torch.Tensor:
    """(1 - λ) Σ λ^(n-1) R^(n) of a trajectory's n-step returns, the longest of which has what remains of the weight."""
    wanted = torch.zeros_like(reward)
    for t in range(len(reward)):
        total, discounted, n = 0.0, 0.0, 0
        while True:
            row = t + n
            discounted += gamma**n * reward[row]
            n_step = discounted + gamma**(n + 1) * (1 - done[row]) * next_value[row]
            if ends[row]:
                wanted[t] = total + lambda_**n * n_step
                break
            total += (1 - lambda_) * lambda_**n * n_step
            n += 1
    return wanted


@pytest.mark.parametrize('gamma', [0.99, 0.5, 1.0])
@pytest.mark.parametrize('lambda_', [0.0, 0.3, 0.95, 1.0])
def test_lambda_returns_are_weighted_n_step_returns(gamma, lambda_):
    each = columns(PATHS)
    got = lambda_returns(**each, discount_factor=gamma, lambda_=lambda_)
    torch.testing.assert_close(got, by_definition(*each.values(), gamma, lambda_), rtol=1e-12, atol=1e-12)


def test_by_hand():
    # Two trajectories: r 1, 2 and a termination; r 3, 4 and a time limit. V(s') is 10 everywhere, γ = λ = 1/2.
    reward, next_value = torch.tensor([1.0, 2, 3, 4]), torch.full((4, ), 10.0)
    done, ends = torch.tensor([0.0, 1, 0, 0]), torch.tensor([False, True, False, True])
    got = lambda_returns(reward, next_value, done, ends, 0.5, 0.5)
    assert got.tolist() == [1 + 0.5 * (5 + 1), 2, 3 + 0.5 * (5 + 4.5), 4 + 5]
    assert one_step_returns(reward, next_value, done, 0.5).tolist() == [6, 2, 8, 9]


@pytest.mark.parametrize('share', [0.01, 0.15, 0.5, 0.9])
def test_weights_of_rows_go_by_the_return_of_their_path(share):
    generator = torch.Generator().manual_seed(1)
    length = torch.randint(1, 30, (300, ), generator=generator)
    ends = torch.zeros(length.sum(), dtype=torch.bool)
    ends[length.cumsum(0) - 1] = True
    reward = torch.randn(len(ends), generator=generator)
    weight = episode_weights(reward, ends, share)
    returns = torch.stack([part.double().sum() for part in reward.split(length.tolist())])
    of_path = torch.stack([part[0] for part in weight.split(length.tolist())])
    assert weight.dtype == torch.float64 and torch.equal(weight, of_path.repeat_interleave(length))
    assert of_path.max() == of_path[returns.argmax()] == 1 and of_path.min() >= 1e-6
    below = (of_path > 1.001e-6) & (of_path < 1)
    rate = of_path[below].log() / (returns[below] - returns.max())  # 1 / λ
    assert below.sum() > 50 and rate.max() - rate.min() < 1e-6 * rate.mean()
    assert weight.sum()**2 / (len(weight) * weight.square().sum()) == pytest.approx(share, rel=1e-3)
    scaled = episode_weights(7 * reward, ends, share)  # the scale of the rewards has no part in it
    torch.testing.assert_close(scaled, weight, rtol=1e-4, atol=0)


def test_weights_where_there_is_nothing_to_choose_or_one_path_is_best_by_far():
    ends = torch.tensor([False, True, False, True])
    assert episode_weights(torch.tensor([1.0, 2, 2, 1]), ends, 0.15).tolist() == [1, 1, 1, 1]
    assert episode_weights(torch.tensor([1.0, 2, 3, 1]), ends, 0.15).tolist() == pytest.approx([1e-6, 1e-6, 1, 1])
    many = episode_weights(torch.full((10**6, ), 1e7), torch.arange(10**6) % 1000 == 999, 0.5)
    assert (many == 1).all()  # sums in float32 would drift
    generator = torch.Generator().manual_seed(2)
    wide = torch.randn(100, generator=generator)**3
    alike = torch.stack([wide[torch.randperm(100, generator=generator)] for _ in range(50)]).view(-1)
    assert (episode_weights(alike, torch.arange(5000) % 100 == 99, 0.15) == 1).all()  # but for the order of the sums


@pytest.mark.parametrize('outlier', [-1e4, -1e8, -1e12])
def test_one_episode_that_is_far_below_the_others_does_not_switch_the_choice_off(outlier):
    reward = torch.randn(20_000, generator=torch.Generator().manual_seed(3))
    reward[7] = outlier
    weight = episode_weights(reward, torch.arange(20_000) % 20 == 19, 0.15)
    assert weight.sum()**2 / (20_000 * weight.square().sum()) == pytest.approx(0.15, rel=1e-2)


def test_a_path_that_is_no_whole_episode_is_not_taken_for_the_best():
    """Where rewards are negative, the less of an episode is there, the higher is its sum."""
    reward, ends = torch.full((2020, ), -1.0), torch.arange(2020) % 200 == 199
    reward[:200], ends[-1] = -0.5, True
    whole = torch.tensor([*[True] * 10, False])
    weight = episode_weights(reward, ends, 0.2, whole)
    assert (weight[:200] == 1).all() and (weight[-20:] == 1e-6).all() and weight[200:].max() < 1
    assert (episode_weights(reward, ends, 0.01)[-20:] == 1).all()  # as it is where nothing says so
    equal = episode_weights(torch.full((2020, ), -1.0), ends, 0.2, whole)
    assert (equal[:-20] == 1).all() and (equal[-20:] == 1e-6).all()


def test_replicas_are_single_runs():
    each = columns(PATHS, lead=(3, ))
    got = lambda_returns(**each, discount_factor=0.99, lambda_=0.95)
    for r in range(3):
        alone = {**each, 'reward': each['reward'][r], 'next_value': each['next_value'][r]}
        torch.testing.assert_close(got[r], lambda_returns(**alone, discount_factor=0.99, lambda_=0.95))


def test_the_ends_of_the_extremes():
    each = columns([(200, False)])
    torch.testing.assert_close(
        lambda_returns(**each, discount_factor=0.9, lambda_=1.0), by_definition(*each.values(), 0.9, 1.0)
    )
    torch.testing.assert_close(
        lambda_returns(**each, discount_factor=0.9, lambda_=0.0),
        one_step_returns(each['reward'], each['next_value'], each['done'], 0.9)
    )
    assert trajectory_lengths(each['ends']).tolist() == [200]


def test_the_work_grows_with_the_logarithm_of_the_longest_path(monkeypatch):
    """Whoever writes the recurrence row by row, or trajectory by trajectory, fails here."""
    calls = []
    addcmul = torch.addcmul
    monkeypatch.setattr(torch, 'addcmul', lambda *inputs: calls.append(1) or addcmul(*inputs))
    each = columns([(1000, index % 2 == 0) for index in range(1000)])
    start = time.perf_counter()
    assert lambda_returns(**each, discount_factor=0.99, lambda_=0.95).isfinite().all()
    print(f'{time.perf_counter() - start:.2f} s for a million rows')
    assert len(calls) == 10


# ---------------------------------------------------------------- where the data say that trajectories end


def write(path, flags: list[tuple[bool, bool]], **more):
    generator, rows = np.random.default_rng(0), len(flags)
    terminals, timeouts = np.array(flags, dtype=bool).T
    given = dict(
        observations=generator.normal(size=(rows, 4)).astype(np.float32),
        actions=generator.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rewards=generator.normal(size=rows).astype(np.float32), terminals=terminals, timeouts=timeouts, **more
    )
    np.savez(path, **{name: column for name, column in given.items() if column is not None})
    return path


RUN, TERMINAL, TIMEOUT = (False, False), (True, False), (False, True)


@pytest.mark.parametrize('flags, ends, whole', [
    # A row before a time limit is the last that is kept of its trajectory; the file's last row is never kept.
    ([RUN, RUN, TERMINAL, RUN, TIMEOUT, RUN, RUN], [0, 0, 1, 1, 1], [1, 1, 0]),
    ([RUN, RUN, TIMEOUT, RUN, TERMINAL, TERMINAL, RUN], [0, 1, 0, 1, 1], [1, 1, 1]),
    ([TERMINAL, TIMEOUT, TIMEOUT, RUN, RUN, TERMINAL], [1, 0, 1], [1, 1]),
    ([RUN, RUN, RUN], [0, 1], [0]),
    ([RUN, TIMEOUT, RUN, RUN, TIMEOUT], [1, 0, 1], [1, 1]),
])
def test_ends_of_d4rls_layout_and_which_paths_are_whole_episodes(tmp_path, flags, ends, whole):
    transitions = load_transitions(write(tmp_path / 'a.npz', flags))
    assert transitions.table.ends.tolist() == [bool(each) for each in ends]
    assert transitions.table.whole.tolist() == [bool(each) for each in whole]
    assert not (transitions.done.astype(bool) & ~transitions.table.ends).any()
    kept, following = transitions.next_obs[:-1], transitions.obs[1:]
    inside = ~transitions.table.ends[:-1]
    assert (kept[inside] == following[inside]).all()


def test_ends_where_next_observations_say_them(tmp_path):
    """Neither terminal nor timeout, but the next observation is not the following row's: a trajectory was cut there."""
    path = tmp_path / 'a.npz'
    obs = np.arange(24, dtype=np.float32).reshape(6, 4)
    following = np.concatenate([obs[1:], obs[:1]])
    following[3] += 100
    np.savez(
        path, observations=obs, actions=np.zeros((6, 2), np.float32), rewards=np.zeros(6, np.float32),
        terminals=np.array([0, 0, 1, 0, 0, 0], bool), next_observations=following
    )
    table = load_transitions(path).table
    assert table.ends.tolist() == [False, False, True, True, False, True] and table.whole is None


def test_a_path_before_a_contradiction_is_no_whole_episode(tmp_path):
    path = write(tmp_path / 'a.npz', [RUN if row % 50 != 49 else TERMINAL for row in range(300)])
    columns = dict(np.load(path))
    own = np.roll(columns['observations'], -1, axis=0)
    own[70] += 1  # in the second of six episodes
    np.savez(path, **columns, next_observations=own)
    with pytest.warns(UserWarning, match='next_observations'):
        transitions = load_transitions(path)
    assert transitions.table.whole.tolist() == [True, False, True, True, True, True, True]
    assert len(transitions.episode_returns) == transitions.table.whole.sum()


def test_ends_of_several_files_and_of_data_that_are_changed(tmp_path):
    first = write(tmp_path / 'a.npz', [RUN, RUN, TERMINAL, RUN, RUN])
    second = write(tmp_path / 'b.npz', [RUN, TIMEOUT, RUN, RUN, RUN])
    both = load_transitions([first, second])
    ends, whole = [False, False, True, True, True, False, True], [True, False, True, False]
    assert both.table.ends.tolist() == ends and both.table.whole.tolist() == whole
    changed = corrupt(both.normalize_observations().transform_rewards(scale=2.0), 'action')
    assert changed.table.ends.tolist() == ends and changed.table.whole.tolist() == whole


def test_ends_of_minaris_layout(tmp_path):
    path = tmp_path / 'main_data.hdf5'
    with h5py.File(path, 'w') as file:
        for number, (steps, terminal) in enumerate([(3, True), (2, False)]):
            group = file.create_group(f'episode_{number}')
            group['observations'], group['actions'] = np.ones((steps + 1, 4)), np.zeros((steps, 2))
            group['rewards'] = np.zeros(steps)
            group['terminations'] = np.arange(steps) == (steps - 1 if terminal else -1)
        file.attrs['env_spec'] = json.dumps({})
    table = load_transitions(path).table
    assert table.ends.tolist() == [False, False, True, False, True] and table.whole.all()


def test_rows_in_any_order_have_no_ends(tmp_path):
    obs = np.ones((4, 3), np.float32)
    np.savez(tmp_path / 'a.npz', obs=obs, action=np.zeros((4, 2), np.float32), reward=np.zeros(4, np.float32),
             next_obs=obs, done=np.zeros(4, bool))
    table = load_transitions(tmp_path / 'a.npz').table
    assert table.ends is None and table.whole is None
