"""DI-engine's own commands, run as a user runs them, on real files and real MuJoCo."""
import json
import os
import pickle
import pty
import re
import select

import h5py
import numpy as np
import pytest
import torch
from conftest import write_d4rl_file
from helpers import DING, cawr, ding, python, start, train_offline, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ding_cawr import load_policy, normalized_score
from ding_cawr.algorithms.a2pr.model import A2PRModel
from ding_cawr.engine.resume import resume

SMALL = '''
from ding_cawr import make_config

main_config, create_config = make_config(
    'hopper-medium-v2', algorithm='{algorithm}', data_path='{data}', iterations=60, eval_freq=20, batch_size=32,
    n_evaluator_episode=3, exp_name='run', policy=dict(model=dict(hidden_sizes=(16, 16))), {more}
)
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'hopper.hdf5'
    return write_d4rl_file(path, episodes=[(40, 'terminal'), (60, 'timeout')] * 5)


def small_config(folder, data, algorithm='cawr', more=''):
    if algorithm == 'cawr' and 'trust' not in more:  # else so short a run is behaviour cloning
        more = f"trust=dict(type='linear', start=18, iterations=18), {more}"
    return write_config(folder / 'small.py', SMALL.format(algorithm=algorithm, data=data, more=more))


def summary(folder) -> dict:
    return json.loads((folder / 'run' / 'summary.json').read_text())


def test_train_evaluate_and_report(tmp_path, data):
    result = train_offline(small_config(tmp_path, data), cwd=tmp_path)
    run = summary(tmp_path)
    assert run['iterations'] == 60 and run['evaluated_at'] == [20, 40, 60]
    assert run['unit'] == 'normalized score' and run['best'] == max(run['evaluations'])
    assert run['mean_last_three'] == pytest.approx(np.mean(run['evaluations']))
    assert re.search(r'iteration \d+/60 .*normalized score last', result.stdout)
    assert f"best so far {run['best']:.1f}" in result.stdout and 'learning_curve.png' in result.stdout
    assert f"behaviour policy's mean: {run['behaviour_mean']:.1f}" in result.stdout
    assert (tmp_path / 'run' / 'learning_curve.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / run['checkpoint_last']).is_file() and (tmp_path / run['checkpoint_best']).is_file()

    events = EventAccumulator(str(tmp_path / 'run' / 'log' / 'serial')).Reload()
    scores = [event.value for event in events.Scalars('evaluator_iter/normalized_score_mean')]
    assert scores == pytest.approx(run['evaluations'])
    assert events.Scalars('learner_iter/weight_effective_share_avg')[0].value > 0
    assert 'normalized_score_mean' in (tmp_path / 'run' / 'log' / 'evaluator' / 'evaluator_logger.txt').read_text()

    state = torch.load(tmp_path / run['checkpoint_last'], weights_only=True)
    assert state['iteration'] == 60 and len(state['buffer']['mass']) == 495  # of 500 rows, 5 are timeouts
    evaluated = ding('-m', 'eval', '-c', 'small.py', '--load-path', run['checkpoint_last'], cwd=tmp_path)
    assert re.search(r'performance of your RL policy is -?\d', evaluated.stdout)


def test_train_iter_stops_exactly(tmp_path, data):
    train_offline(small_config(tmp_path, data), '--train-iter', 50, cwd=tmp_path)
    run = summary(tmp_path)
    assert run['iterations'] == 50 and run['evaluated_at'] == [20, 40]
    assert torch.load(tmp_path / run['checkpoint_last'], weights_only=True)['iteration'] == 50


def test_a_run_too_short_for_an_evaluation_ends_with_a_sentence(tmp_path, data):
    result = train_offline(small_config(tmp_path, data), '--train-iter', 7, cwd=tmp_path)
    assert 'This run ends at iteration 7, before the first evaluation, which comes at 20' in result.stdout
    assert 'Training ended at iteration 7, before the next evaluation, which comes at 20' in result.stdout
    assert 'Traceback' not in result.stderr + result.stdout
    assert (tmp_path / 'run' / 'ckpt' / 'iteration_7.pth.tar').is_file()


def scalars(folder, name: str) -> list[float]:
    events = EventAccumulator(str(folder / 'run' / 'log' / 'serial')).Reload()
    return [event.value for event in events.Scalars(f'learner_iter/{name}_avg')]


def test_a_second_run_trains_a_policy_on_the_critics_of_the_first(tmp_path, data):
    """The first with everything that moves while it trains; the second with the first's critics, frozen."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    first.mkdir()
    second.mkdir()
    shown = 'learner=dict(hook=dict(log_show_after_iter=20))'
    train_offline(small_config(first, data, more=(
        "temperature=dict(type='auto', effective_share=0.4), trust=dict(type='linear', start=0, iterations=40), "
        f"priority_refresh=7, policy_loss='skew', {shown}"
    )), cwd=first)
    trust = scalars(first, 'trust')
    assert trust == sorted(trust) and trust[0] < 0.1 and trust[-1] > 0.7  # means of two that were shown
    temperature = scalars(first, 'temperature')
    assert len(set(temperature)) == len(temperature) and all(0 < each < 10 for each in temperature[1:])
    assert all(0 < share <= 1 for share in scalars(first, 'selection_effective_share'))

    checkpoint = first / summary(first)['checkpoint_last']
    train_offline(small_config(second, data, more=(
        f"pretrained_critics='{checkpoint}', priority=dict(type='quantile', quantile=0.3), policy_loss='flat', "
        f"tightening=dict(convex_share=0.9, iterations=40), {shown}"
    )), cwd=second)
    run = summary(second)
    assert run['iterations'] == 60 and run['evaluated_at'] == [20, 40, 60]
    width = scalars(second, 'loss_width')
    assert width == sorted(width, reverse=True) and width[0] > 1.1 * width[-1] > 1
    taken, trained = (torch.load(path, weights_only=True) for path in (checkpoint, second / run['checkpoint_last']))
    for name, tensor in taken['model'].items():
        assert torch.equal(trained['model'][name], tensor) is not name.startswith('policy.'), name
    assert all(torch.equal(trained['target_critic'][name], tensor) for name, tensor in taken['target_critic'].items())


SPOILT = """
import torch
from ding_cawr.training.loop import Training

iterate = Training.iterate


def spoilt(training):
    if training.iteration == 7:
        with torch.no_grad():
            next(training.algorithm.models[0].policy.parameters()).fill_(float('nan'))
    return iterate(training)


Training.iterate = spoilt
"""


def test_a_run_that_diverges_names_the_last_good_checkpoint(tmp_path, data):
    """The policy becomes NaN after seven iterations."""
    config = small_config(tmp_path, data, more='learner=dict(hook=dict(save_ckpt_after_iter=2))')
    config.write_text(config.read_text() + SPOILT)
    result = train_offline(config, cwd=tmp_path, check=False)
    message = re.search(
        r'FloatingPointError: training diverged: policy_loss is not finite at iteration (\d+) \(the largest values of '
        r'its batch are in rows \[\d+, .*\] of the data\); .* The last good checkpoint is (\S+\.pth\.tar)\.',
        result.stderr
    )
    assert result.returncode != 0 and message and int(message[1]) == 7, result.stderr[-2000:]
    state = torch.load(tmp_path / message[2], weights_only=True)
    assert 0 <= int(message[1]) - state['iteration'] < 2
    assert all(tensor.isfinite().all() for part in ('model', 'target_critic') for tensor in state[part].values())
    assert not (tmp_path / 'run' / 'summary.json').exists()


@pytest.mark.parametrize('algorithm', ['iql', 'bc'])
def test_the_other_algorithms(tmp_path, data, algorithm):
    train_offline(small_config(tmp_path, data, algorithm), cwd=tmp_path)
    assert summary(tmp_path)['iterations'] == 60


@pytest.mark.parametrize('normalize', [False, True])
def test_eval_repeats_the_evaluation_of_training(tmp_path, data, normalize):
    """Same seed, same starts, same policy: ``ding -m eval`` must find what the run's first evaluation found. Normalized
    observations differ in the last digit only, since the policy normalizes where there is no dataset."""
    more = "eval_freq=60, learning_rate_policy=1e-2"
    if normalize:
        more += ", norm_obs=dict(use_norm=True)"
    config = small_config(tmp_path, data)
    config.write_text(config.read_text().replace('eval_freq=20', more))
    train_offline(config, cwd=tmp_path)
    checkpoint = tmp_path / 'run' / 'ckpt' / 'iteration_60.pth.tar'
    statistics = torch.load(checkpoint, weights_only=True)['obs_statistics']
    if normalize:
        with h5py.File(data) as file:
            obs = file['observations'][:][~file['timeouts'][:]]
        np.testing.assert_allclose(statistics[0], obs.mean(0), rtol=1e-4, atol=1e-5)
    else:
        assert statistics is None
    result = ding('-m', 'eval', '-c', 'small.py', '--load-path', checkpoint, cwd=tmp_path)
    found = float(re.search(r'performance of your RL policy is (\S+)', result.stdout)[1])
    score = normalized_score('Hopper-v4', found)
    assert score == pytest.approx(summary(tmp_path)['evaluations'][0], rel=1e-3 if normalize else 1e-6)


def test_subprocess_manager(tmp_path, data):
    config = small_config(tmp_path, data)
    config.write_text(config.read_text() + "\ncreate_config.env_manager.type = 'subprocess'\n")
    train_offline(config, cwd=tmp_path)
    base = tmp_path / 'base'
    base.mkdir()
    train_offline(small_config(base, data), cwd=base)
    assert summary(tmp_path)['evaluations'] == pytest.approx(summary(base)['evaluations'], rel=1e-4)


def test_a_terminal_gets_a_live_bar(tmp_path, data):
    master, slave = pty.openpty()
    config = small_config(tmp_path, data)
    process = start(
        DING, '-m', 'serial_offline', '-c', config, cwd=tmp_path, output=slave, TERM='xterm', COLUMNS='150'
    )
    os.close(slave)
    output = b''
    while process.poll() is None or select.select([master], [], [], 0)[0]:
        if select.select([master], [], [], 0.1)[0]:
            try:
                output += os.read(master, 65536)
            except OSError:
                break
    assert process.wait() == 0
    assert b'60/60' in output and b'normalized score last' in output and b'\x1b[' in output
    assert output.count(b'\x1b[?25l') == output.count(b'\x1b[?25h') > 0  # the cursor is back
    lines = re.split(rb'[\r\n]+', output)
    assert not [line for line in lines if b'it/s' in line and b'EVALUATOR' in line]  # no log line on the bar


def rows(count: int) -> list[dict]:
    """A stock dataset of hopper's widths."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            'obs': torch.rand(11, generator=generator) + 0.8, 'action': torch.rand(3, generator=generator) * 2 - 1,
            'reward': torch.rand(1, generator=generator), 'next_obs': torch.rand(11, generator=generator) + 0.8,
            'done': bool(i % 50 == 49)
        } for i in range(count)
    ]


STOCK = '''
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='run',
    env=dict(env_id='Hopper-v4', evaluator_env_num=2, n_evaluator_episode=5, stop_value=1e6),
    policy=dict(
        cuda=False,
        model=dict(obs_shape=11, action_shape=3, twin_critic=True, action_space='regression'),
        learn=dict(train_epoch=10, batch_size=32, learning_rate_actor=1e-3, learning_rate_critic=1e-3),
        collect=dict(data_type='{data_type}', data_path='{data}', unroll_len=1),
        eval=dict(evaluator=dict(eval_freq=20)),
    ),
))
create_config = EasyDict(dict(
    env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
    env_manager=dict(type='base'),
    policy=dict(type='{policy}', import_names=['{module}']),
))
'''


@pytest.mark.parametrize('data_type', ['naive', 'hdf5'])
def test_stock_datasets_of_rows(tmp_path, data_type):
    if data_type == 'naive':
        path = tmp_path / 'rows.pkl'
        path.write_bytes(pickle.dumps(rows(200)))
    else:
        from ding.utils.data.dataset import hdf5_save
        hdf5_save(rows(200), str(tmp_path / 'rows.pkl'))
        path = tmp_path / 'rows_demos.hdf5'
    text = STOCK.format(data_type=data_type, data=path, policy='cawr', module='ding_cawr')
    result = train_offline(write_config(tmp_path / 'stock.py', text), cwd=tmp_path)
    run = summary(tmp_path)
    assert run['iterations'] == 70 and len(run['evaluations']) == 3
    assert result.stderr.count('the cawr policy does not use, and ignores') == 1


def test_a_stock_dataset_that_normalizes_leaves_checkpoints_that_act_alike(tmp_path):
    """DI-engine's hdf5 normalizes rows and environment; the checkpoint has its statistics and names the environment."""
    from ding.utils.data.dataset import hdf5_save
    hdf5_save(rows(200), str(tmp_path / 'rows.pkl'))
    text = STOCK.format(data_type='hdf5', data=tmp_path / 'rows_demos.hdf5', policy='a2pr', module='ding_cawr') + \
        'main_config.env.norm_obs = dict(use_norm=True, offline_stats=dict(use_offline_stats=True))\n' \
        'main_config.env.kwargs = dict(reset_noise_scale=0.1)\n'
    result = train_offline(write_config(tmp_path / 'stock.py', text), '--train-iter', 15, cwd=tmp_path)
    assert 'iteration 21/21 ' in result.stdout  # an epoch has 7 batches
    obs = np.stack([row['obs'].numpy() for row in rows(200)])
    path = tmp_path / 'run' / 'ckpt' / 'iteration_21.pth.tar'
    state = torch.load(path, weights_only=True)
    np.testing.assert_allclose(state['obs_statistics'], [obs.mean(0), obs.std(0) + 1e-3], rtol=1e-5, atol=1e-6)
    policy = load_policy(path)
    assert (policy.env_id, policy.env_settings['kwargs']) == ('Hopper-v4', {'reset_noise_scale': 0.1})
    model = A2PRModel(11, 3)
    model.load_state_dict(state['model'])
    normalized = (torch.from_numpy(obs) - state['obs_statistics'][0]) / state['obs_statistics'][1]
    np.testing.assert_allclose(policy(obs), model(normalized).detach(), atol=1e-5)
    with pytest.raises(ValueError, match='it does not say how its run was configured'):
        resume(tmp_path / 'run')


def test_a_loop_of_di_engines_framework_trains(tmp_path, data):
    small_config(tmp_path, data)
    result = python('-c', '''
import sys
sys.path.insert(0, '.')
from small import main_config, create_config
from ding.config import compile_config
from ding.data import create_dataset
from ding.framework import ding_init, task
from ding.framework.context import OfflineRLContext
from ding.framework.middleware import offline_data_fetcher, trainer
from ding.policy import create_policy
cfg = compile_config(main_config, create_cfg=create_config, auto=True)
ding_init(cfg)
with task.start(async_mode=False, ctx=OfflineRLContext()):
    dataset, policy = create_dataset(cfg), create_policy(cfg.policy)
    policy.set_statistic(dataset.statistics)
    task.use(offline_data_fetcher(cfg, dataset))
    task.use(trainer(cfg, policy.learn_mode))
    task.run(max_step=30)
assert policy.learn_mode.state_dict()['iteration'] == 30
''', cwd=tmp_path, check=False)
    if 'import wandb' in result.stderr:
        pytest.skip('the framework imports wandb, whose installed version cannot be')
    assert result.returncode == 0, result.stderr[-6000:]


@pytest.mark.parametrize('policy', ['td3_bc', 'cql'])
def test_ding_engines_own_policies_train_on_offline_transitions(tmp_path, data, policy):
    text = STOCK.format(data_type='offline_transitions', data=data, policy=policy, module=f'ding.policy.{policy}')
    if policy == 'cql':
        text = text.replace("action_space='regression'", "action_space='reparameterization'")
    train_offline(write_config(tmp_path / 'stock.py', text), '--train-iter', 30, cwd=tmp_path)
    assert (tmp_path / 'run' / 'ckpt' / 'iteration_32.pth.tar').is_file()


def pendulum_config(name: str) -> str:
    """The text of DI-engine's own configuration file."""
    import dizoo.classic_control.pendulum.config as folder
    return open(os.path.join(list(folder.__path__)[0], name)).read()


GENERATE = '''
import torch
from ding.entry import collect_demo_data, serial_pipeline
from dizoo.classic_control.pendulum.config.{train} import main_config, create_config
from copy import deepcopy

main_config.exp_name = 'expert'
main_config.policy.cuda = False
main_config.policy.random_collect_size = 0
serial_pipeline(deepcopy([main_config, create_config]), seed=0, max_train_iter=20)

from dizoo.classic_control.pendulum.config.{generate} import main_config, create_config
main_config.exp_name = 'generation'
state_dict = torch.load('./expert/ckpt/ckpt_best.pth.tar', map_location='cpu')
collect_demo_data(
    deepcopy([main_config, create_config]), seed=0, collect_count=600, expert_data_path='./expert.pkl',
    state_dict=state_dict
)
'''


@pytest.mark.parametrize('policy, train, generate, path', [
    ('cql', 'pendulum_sac_config', 'pendulum_sac_data_generation_config', 'pendulum_sac_data_generation'),
    ('td3_bc', 'pendulum_td3_config', 'pendulum_td3_data_generation_config', 'td3'),
])
def test_pendulums_stock_configurations(tmp_path, policy, train, generate, path):
    """Data generation with DI-engine's own script, then its own configuration with three lines changed."""
    script = write_config(tmp_path / 'generate.py', GENERATE.format(train=train, generate=generate))
    python(script, cwd=tmp_path)
    (tmp_path / path).mkdir(exist_ok=True)
    os.rename(tmp_path / 'expert_demos.hdf5', tmp_path / path / 'expert_demos.hdf5')
    text = pendulum_config(f'pendulum_{policy}_config.py')
    changed = text.replace(f"type='{policy}',", "type='cawr',").replace(f"'ding.policy.{policy}'", "'ding_cawr'")
    assert sum(a != b for a, b in zip(text.splitlines(), changed.splitlines())) == 2
    config = write_config(tmp_path / 'pendulum.py', changed)
    train_offline(config, '--train-iter', 120, cwd=tmp_path)
    folder = tmp_path / ('pendulum_cql' if policy == 'cql' else 'pendulum_td3_bc_seed0')
    run = json.loads((folder / 'summary.json').read_text())
    assert run['unit'] == 'return' and run['iterations'] >= 120 and len(run['evaluations']) == 1


@pytest.mark.parametrize('change, message', [
    ("main_config.policy.model.obs_shape = 17", 'policy.model.obs_shape is 17, but'),
    ("main_config.env.env_id = 'walker2d-medium-v2'", 'these are data of another environment'),
    ("main_config.policy.learn.temprature = 1.0; main_config.policy.collect.data_path = 'nowhere.hdf5'",
     'did you mean policy.learn.temperature'),  # said before the data are looked for
    ("main_config.policy.learn.learning_rate_q = 1e30", 'training diverged|a priority is nan'),
    ("main_config.policy.collect.data_path = 'nowhere.hdf5'", 'nowhere.hdf5 does not exist'),
    ("main_config.policy.collect.data_pth = 'x.hdf5'", 'collect.data_pth is not a key.*policy.collect.data_path'),
    ("main_config.env.reward_nrom = 'iql_locomotion'", 'env.reward_nrom is not a key.*env.reward_norm'),
    ("main_config.env.norm_obs = True", 'env.norm_obs is True'),
])
def test_bad_configurations_end_in_a_named_error(tmp_path, data, change, message):
    config = small_config(tmp_path, data)
    config.write_text(config.read_text() + f'\n{change}\n')
    result = train_offline(config, cwd=tmp_path, check=False)
    assert result.returncode != 0 and re.search(message, result.stderr)


OWN = '''
import gymnasium
import numpy as np


class Own(gymnasium.Env):
    """Its reward is NaN in every episode of its second evaluation, and better afterwards."""
    observation_space, action_space = gymnasium.spaces.Box(-9, 9, (11, )), gymnasium.spaces.Box(-2, 2, (3, ))
    episodes = 0

    def __init__(self, name):
        assert name == 'mine'

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        return self.np_random.normal(size=11).astype(np.float32), {}

    def step(self, action):
        reward = {2: 1.0, 3: np.nan}.get(self.episodes, 0.5)
        return self.np_random.normal(size=11).astype(np.float32), reward, False, False, {}


gymnasium.register('Own-v0', entry_point=Own)
'''


@pytest.mark.parametrize('manager', ['base', 'subprocess'])
def test_an_environment_of_the_user(tmp_path, data, manager):
    """Registered by a module that import_names names, with arguments and a time limit, and a NaN in one evaluation."""
    write_config(tmp_path / 'registers_own.py', OWN)
    more = "kwargs=dict(name='mine'), max_episode_steps=5, import_names=['registers_own'], action_scale='unit'"
    config = small_config(tmp_path, data, more=more)
    text = config.read_text().replace('hopper-medium-v2', 'Own-v0')
    path = f'import sys\nsys.path.insert(0, {str(tmp_path)!r})\n'  # forks were not started with a PYTHONPATH
    config.write_text(f"{path}{text}create_config.env_manager.type = '{manager}'\n")
    result = train_offline(config, cwd=tmp_path)
    run = summary(tmp_path)
    assert run['evaluations'] == [5.0, None, 2.5] and run['best'] == 5.0 and 'best so far 5.0' in result.stdout
    best = torch.load(tmp_path / run['checkpoint_best'], weights_only=True)
    assert best['iteration'] == 20 and np.isnan(best['run']['evaluations']['values']).sum() == 0
    environment = json.loads(best['configuration'])['env']
    assert environment['kwargs'] == {'name': 'mine'} and environment['max_episode_steps'] == 5
    told = cawr('eval', run['checkpoint_best'], '--env-id', 'registers_own:Own-v0', '--episodes', 2, '--json',
                cwd=tmp_path)
    assert json.loads(told.stdout, parse_constant=pytest.fail)['lengths'] == [5, 5], told.stderr
