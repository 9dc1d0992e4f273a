"""The same seed twice, on one CPU."""
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from helpers import differences, train_offline, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIG = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    'hopper-medium-v2', data_path='data.hdf5', exp_name='run', iterations=60, eval_freq=20, batch_size=64,
    n_evaluator_episode=2, trust=dict(type='linear', start=18, iterations=18), {more}
    policy=dict(learn=dict(learner=dict(hook=dict(log_show_after_iter=1, save_ckpt_after_iter=30)))),
)
'''
FORMS = {
    'default': '',
    'weights': "weighting='per_sample', policy_loss='l2', priority='none',",
    'refreshed': "priority='quantile', priority_refresh=7, norm_obs=dict(use_norm=True),",
    'bfloat16': "precision='bfloat16',",
}
#: What DI-engine logs of time.
TIMES = ('evaluate_time', 'avg_envstep_per_sec', 'avg_time_per_episode')


def logged(folder) -> dict[str, list[tuple[int, float]]]:
    """Everything in TensorBoard's files but times, by its tag."""
    events = EventAccumulator(str(folder / 'run' / 'log' / 'serial'), size_guidance={'scalars': 0}).Reload()
    tags = [tag for tag in events.Tags()['scalars'] if not tag.endswith(TIMES)]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize('form', FORMS)
def test_the_same_seed_twice_gives_the_same_logs_and_networks(tmp_path, form):
    logs, states = [], []
    for name in ('first', 'second'):
        folder = tmp_path / name
        folder.mkdir()
        write_d4rl_file(folder / 'data.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
        config = write_config(folder / 'config.py', CONFIG.format(more=FORMS[form]))
        train_offline(config, '-s', 7, cwd=folder, OMP_NUM_THREADS='2')
        logs.append(logged(folder))
        states.append(torch.load(folder / 'run' / 'ckpt' / 'iteration_60.pth.tar', weights_only=True))
    assert len(logs[0]['learner_iter/policy_loss_avg']) == 60 and len(logs[0]['evaluator_iter/reward_mean']) == 3
    assert logs[0].keys() == logs[1].keys()
    for tag, values in logs[0].items():
        np.testing.assert_array_equal(values, logs[1][tag], err_msg=tag)
    assert differences(*states) == []


def test_another_seed_gives_another_run(tmp_path):
    states = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_d4rl_file(folder / 'data.hdf5', episodes=[(40, 'terminal'), (60, 'timeout')] * 5)
        config = write_config(folder / 'config.py', CONFIG.format(more=''))
        train_offline(config, '-s', seed, '--train-iter', 20, cwd=folder)
        states.append(torch.load(folder / 'run' / 'ckpt' / 'iteration_20.pth.tar', weights_only=True))
    assert not any(torch.equal(states[0]['model'][name], tensor) for name, tensor in states[1]['model'].items())
