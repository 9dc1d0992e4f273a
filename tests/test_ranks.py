"""Data-parallel training: ranks, each a process of its own, against one process with the whole batch."""
import json
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from ding.entry import serial_pipeline_offline
from ranks import FORMS, SEED, history, launch, pipeline_config, trainings
from test_training import states_close

from ding_cawr.ranks import ALONE, Ranks

TOLERANCE = dict(rtol=1e-7, atol=1e-8)  # Adam makes much of the rounding of gradients that are nearly 0


@pytest.fixture(scope='module', params=[2, 4])
def histories(request, tmp_path_factory):
    """Histories of all forms, rank by rank."""
    folder = tmp_path_factory.mktemp(f'ranks{request.param}')
    for rank in launch(request.param, 'forms', folder):
        assert rank.returncode == 0, rank.stdout[-3000:]
    return [torch.load(folder / f'forms_{rank}.pt') for rank in range(request.param)]


@pytest.fixture(scope='module')
def alone():
    """The same of one process."""
    return {name: history(training) for name, training in trainings(ALONE).items()}


@pytest.mark.parametrize('form', [*FORMS, 'frozen, per_sample', 'frozen, batch_mean'])
def test_ranks_do_what_one_process_does_with_the_whole_batch(histories, alone, form):
    """Gradients; parameters, target, λ, least advantage, priorities, generators; losses and all other metrics."""
    for rank in histories:
        for part in ('gradients', 'state', 'model'):
            states_close(rank[form][part], alone[form][part], **TOLERANCE)
        for got, wanted in zip(rank[form]['metrics'], alone[form]['metrics'], strict=True):
            assert got == pytest.approx(wanted, rel=1e-7, abs=1e-8)


def test_ranks_agree_bit_by_bit(histories):
    """Above all on the priorities, by which they draw."""
    for form, wanted in histories[0].items():
        for rank in histories[1:]:
            states_close(rank[form], wanted, rtol=0, atol=0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data, and with what two ranks made of it in DI-engine's offline pipeline."""
    folder = tmp_path_factory.mktemp('pipeline')
    write_d4rl_file(folder / 'data.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
    write_d4rl_file(folder / 'other.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5, seed=1)
    with h5py.File(folder / 'data.hdf5') as file, h5py.File(folder / 'turned.hdf5', 'w') as turned:
        for name, column in file.items():
            turned[name] = np.roll(column[()], 100, axis=0)
    for rank in launch(2, 'pipeline', folder):
        assert rank.returncode == 0, rank.stdout[-3000:]
    return folder


def checkpoint(folder, name: str) -> dict:
    return torch.load(folder / name, weights_only=True)


def test_the_pipeline_on_two_ranks_ends_as_on_one(folder, monkeypatch):
    monkeypatch.chdir(folder)
    serial_pipeline_offline(pipeline_config(folder, 'alone', multi_gpu=False), seed=SEED)
    names = [sorted(path.name for path in (folder / run / 'ckpt').iterdir()) for run in ('alone', 'together')]
    assert names[0] == names[1]
    got, wanted = (checkpoint(folder, f'{run}/ckpt/iteration_60.pth.tar') for run in ('together', 'alone'))
    for part in ('model', 'target_critic', 'selection', 'optimizer', 'buffer'):
        states_close(got[part], wanted[part], rtol=1e-3, atol=1e-4)
    summaries = [json.loads((folder / run / 'summary.json').read_text()) for run in ('together', 'alone')]
    assert summaries[0]['evaluated_at'] == summaries[1]['evaluated_at'] == [20, 40, 60]
    assert summaries[0]['evaluations'] == pytest.approx(summaries[1]['evaluations'], rel=0.02, abs=0.02)


def test_only_the_first_rank_writes(folder):
    assert [path.name for path in folder.glob('together*')] == ['together']
    log = (folder / 'together' / 'log' / 'learner' / 'learner_logger.txt').read_text()
    assert log.count('=== Training Iteration 50 Result ===') == 1 and 'RANK1' not in log
    assert len(list((folder / 'together' / 'log' / 'serial').iterdir())) == 1


def test_another_run_of_the_same_name_leaves_the_first_alone(folder):
    """DI-engine gives it another folder, which the first rank alone knows."""
    before = {path: path.read_bytes() for path in (folder / 'together').rglob('*') if path.is_file()}
    for rank in launch(2, 'pipeline', folder):
        assert rank.returncode == 0, rank.stdout[-3000:]
    second, = folder.glob('together_*')
    assert (second / 'summary.json').is_file()
    assert before == {path: path.read_bytes() for path in (folder / 'together').rglob('*') if path.is_file()}
    shutil.rmtree(second)


def test_ranks_continue_from_a_checkpoint_bit_by_bit(folder):
    for rank in launch(2, 'further', folder):
        assert rank.returncode == 0, rank.stdout[-3000:]
    got, wanted = (checkpoint(folder, f'{run}/ckpt/iteration_60.pth.tar') for run in ('further', 'together'))
    for part in ('model', 'target_critic', 'selection', 'optimizer', 'buffer'):
        states_close(got[part], wanted[part], rtol=0, atol=0)


def test_a_run_of_ranks_is_resumed_by_one_process(folder, monkeypatch):
    """What is left of it, with the whole batch."""
    from ding_cawr.engine.resume import resume
    monkeypatch.chdir(folder)
    assert resume('together', 80).name == 'iteration_80.pth.tar'
    summary = json.loads((folder / 'together' / 'summary.json').read_text())
    assert summary['evaluated_at'] == [20, 40, 60, 80]


def test_a_run_without_an_evaluation_ends_with_a_sentence_on_every_rank(folder):
    for rank in launch(2, 'short', folder):
        assert 'EndedBeforeEvaluation: Training ended at iteration 15' in rank.stdout


def test_rows_of_a_stock_dataset_reach_every_rank(folder):
    """Each rank's loader brings a half of them."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            'obs': torch.randn(11, generator=generator), 'next_obs': torch.randn(11, generator=generator),
            'action': torch.rand(3, generator=generator) * 2 - 1, 'reward': torch.tensor([float(i)]), 'done': i % 9 == 0
        } for i in range(96)
    ]
    (folder / 'rows.pkl').write_bytes(pickle.dumps(rows))
    for rank in launch(2, 'naive', folder):
        assert rank.returncode == 0, rank.stdout[-3000:]
    first, second = (torch.load(folder / f'naive_{rank}.pt') for rank in range(2))
    states_close(first, second, rtol=0, atol=0)
    assert sorted(first['reward'][:96].tolist()) == list(range(96))


def test_a_rank_that_dies_ends_the_others(folder):
    *others, killed = launch(4, 'dying', folder, timeout=120)
    assert killed.returncode == -9
    for rank in others:
        assert rank.returncode != 0
        assert 'of 4 waited for another rank, which has ended or does not answer' in rank.stdout


@pytest.mark.parametrize('task, message', [
    ('uneven', 'learn.batch_size is 31, which 2 ranks cannot share alike; take a multiple of 2'),
    ('several_for_one', 'policy.multi_gpu is False, but this is one of 2 processes of a group'),
    ('other_data', 'the ranks differ in the data'),
    ('other_order', 'the ranks differ in the data'),
])
def test_what_ranks_cannot_do_together(folder, task, message):
    for rank in launch(2, task, folder):
        assert rank.returncode != 0 and message in rank.stdout, rank.stdout[-2000:]


def test_ranks_share_a_batch_in_order():
    shares = [Ranks(rank, 4).share(12) for rank in range(4)]
    assert [number for share in shares for number in range(12)[share]] == list(range(12))
    assert range(12)[ALONE.share(12)] == range(12)
