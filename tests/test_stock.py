"""DI-engine's own D4RL configurations, as the installed package ships them."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_d4rl_file
from ding.config import compile_config
from ding.utils import DATASET_REGISTRY, ENV_REGISTRY
from ding.utils.data.dataset import D4RLDataset
from helpers import DIZOO, ROOT, cawr, ding, python, train_offline, write_config

from ding_cawr import make_config
from ding_cawr.engine.pipeline import create_dataset
from ding_cawr.engine.stock import StockDataset, StockEnv, current_id

SHIPPED = DIZOO / 'd4rl' / 'config'
WIDTHS = {'hopper': (11, 3), 'walker2d': (17, 6), 'halfcheetah': (17, 6)}
EPISODES = [(40, 'timeout'), (60, 'timeout')] * 3


def shipped(name: str, folder: Path, policy: str | None) -> Path:
    """Write a configuration of DI-engine's with another policy, or with its own and 'ding_cawr' imported beside it."""
    text = (SHIPPED / f'{name}_config.py').read_text()
    head, create = text[:text.rindex('policy=dict(')], text[text.rindex('policy=dict('):]
    if policy:
        create = re.sub(r"type='\w+'", f"type='{policy}'", create, count=1)
        create, count = re.subn(r'import_names=\[[^]]*\]', "import_names=['ding_cawr']", create)
    else:
        create, count = re.subn(r'import_names=\[([^]]*)\]', r"import_names=[\1, 'ding_cawr']", create)
    assert count == 1
    return write_config(folder / f'{name}.py', head + create)


def data_for(name: str, folder: Path) -> dict[str, str]:
    """Write the set that a configuration names; return the environment variable by which it is found."""
    task, quality = re.match(r"([a-z0-9]+)-([a-z-]+?)-v\d", re.search(
        r"env_id='([^']*)'", (SHIPPED / f'{name}_config.py').read_text()
    )[1]).groups()
    cache = folder / 'cache'
    cache.mkdir()
    write_d4rl_file(cache / f"{task}_{quality.replace('-', '_')}-v2.hdf5", EPISODES, *WIDTHS[task])
    return {'D4RL_DATASET_DIR': str(cache)}


@pytest.mark.parametrize('name, policy', [
    *((name, 'cawr') for name in (
        'hopper_medium_td3bc', 'hopper_medium_cql', 'hopper_medium_edac', 'hopper_medium_bcq', 'hopper_random_td3bc',
        'walker2d_medium_td3bc', 'walker2d_medium_expert_cql', 'walker2d_random_cql',
    )), ('hopper_medium_td3bc', 'a2pr'), ('walker2d_medium_expert_cql', 'a2pr'),
])
def test_only_the_policys_type_is_changed(tmp_path, name, policy):
    config, cache = shipped(name, tmp_path, policy), data_for(name, tmp_path)
    result = train_offline(config, '--train-iter', 5, cwd=tmp_path, **cache)
    served = [line for line in result.stdout.splitlines() if 'ding_cawr serves' in line]
    assert len(served) == 1 and "the dataset and env 'd4rl', because D4RL's own need mujoco_py" in served[0]
    folder, = (path.parent.parent for path in tmp_path.glob('*/ckpt/iteration_5.pth.tar'))
    state = torch.load(folder / 'ckpt' / 'iteration_5.pth.tar', weights_only=True)
    assert state['algorithm'] == policy and state['iteration'] == 5 and state['env_id'] in served[0]
    assert state['env_id'].endswith('-v2')
    if policy == 'a2pr':  # keys that mean the same under another name, or another thing under the same
        told = {
            'hopper_medium_td3bc': 'policy.learn.learning_rate_actor (here: learn.learning_rate_policy)',
            'walker2d_medium_expert_cql': 'policy.learn.alpha is 0.2: beside auto_alpha it is the weight of the',
        }[name]
        assert told in result.stderr + result.stdout


def test_passes_over_the_data_become_iterations_and_it_goes_on(tmp_path):
    name = 'hopper_medium_expert_bc'  # 15 passes, an evaluation after each, normalized observations
    config, cache = shipped(name, tmp_path, 'cawr'), data_for(name, tmp_path)
    result = train_offline(config, '--train-iter', 4, cwd=tmp_path, **cache)
    assert 'train_epoch is 15 passes over the data, 30 iterations' in result.stdout
    run = tmp_path / 'hopper_medium_expert_bc_seed0'
    summary = json.loads((run / 'summary.json').read_text())
    assert summary['evaluated_at'] == [2, 4] and summary['unit'] == 'normalized score' and summary['episodes'] == 8
    resumed = cawr('resume', run, '--train-iter', 6, cwd=tmp_path, **cache)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / 'summary.json').read_text())['evaluated_at'] == [2, 4, 6]
    evaluated = ding('-m', 'eval', '-c', config, '--load-path', run / 'ckpt' / 'iteration_6.pth.tar', cwd=tmp_path)
    assert re.search(r'performance of your RL policy is -?\d', evaluated.stdout)


def test_the_policy_is_its_own_and_ding_cawr_is_imported(tmp_path):
    name = 'hopper_medium_expert_bc'
    config, cache = shipped(name, tmp_path, None), data_for(name, tmp_path)
    result = train_offline(config, '--train-iter', 4, cwd=tmp_path, **cache)
    assert 'ding_cawr serves' in result.stdout and 'final reward is' in result.stdout
    assert 'passes over the data' not in result.stdout  # its epoch is a pass
    log = (tmp_path / 'hopper_medium_expert_bc_seed0' / 'log' / 'evaluator' / 'evaluator_logger.txt').read_text()
    assert 'normalized_score_mean' in log


@pytest.mark.parametrize('name, message', [
    ('pen_human_bc', "env_id is 'pen-human-v0', but the names 'd4rl' of env and dataset serve only D4RL's sets"),
    ('kitchen_complete_bc', "env_id is 'kitchen-complete-v0'"),
    ('hopper_medium_dt', "collect.data_type is 'd4rl_trajectory', which has trajectories for a decision transformer"),
    ('maze2d_umaze_pd', "collect.data_type is 'diffuser_traj'"),
    ('hopper_medium_expert_qgpo', 'create_config has no env; give env='),
])
def test_other_families_end_with_a_sentence(tmp_path, name, message):
    text = (SHIPPED / f'{name}_config.py').read_text()
    config = write_config(tmp_path / 'other.py', f"{text}\ncreate_config.policy = dict(type='cawr', "
                          "import_names=['ding_cawr'])\ncreate_config = EasyDict(create_config)\n")
    path = write_d4rl_file(tmp_path / 'data.hdf5')
    if 'qgpo' in name:  # its data are the default
        config.write_text(config.read_text() + f"main_config.policy.collect = EasyDict(data_path='{path}')\n")
    result = train_offline(config, '--train-iter', 2, cwd=tmp_path, check=False)
    assert result.returncode != 0 and result.stderr.strip().splitlines()[-1].startswith(f'ValueError: {message}')


def test_a_diffusers_own_configuration_says_what_it_needs(tmp_path):
    text = (SHIPPED / 'maze2d_umaze_pd_config.py').read_text()
    config = write_config(tmp_path / 'pd.py', f"{text}\ncreate_config.policy.import_names = ['ding_cawr']\n")
    result = train_offline(config, '--train-iter', 2, cwd=tmp_path, check=False)
    assert "'diffuser_traj', which needs D4RL itself, of which mujoco_py cannot be imported" in result.stderr


def test_versions_of_an_id():
    assert [current_id(f'hopper-medium-v{version}') for version in (0, 1, 2)] == ['hopper-medium-v2'] * 3
    for env_id in ('hopper-medium-v3', 'Hopper-v3', 'antmaze-umaze-v0', None):
        with pytest.raises(ValueError, match=re.escape(f'env_id is {env_id!r}')):
            current_id(env_id)


def test_d4rls_folder_of_data_is_taken(tmp_path):
    name = 'hopper_medium_td3bc'
    config, cache = shipped(name, tmp_path, 'cawr'), data_for(name, tmp_path)
    config.write_text(config.read_text().replace('data_path=None', f"data_path={cache['D4RL_DATASET_DIR']!r}"))
    result = train_offline(config, '--train-iter', 2, cwd=tmp_path)
    assert f"from {cache['D4RL_DATASET_DIR']}/hopper_medium-v2.hdf5" in result.stdout


@pytest.mark.parametrize('below_home', [False, True])
def test_several_files_and_a_path_below_home_are_taken_and_rewards_scaled(tmp_path, monkeypatch, below_home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    files = [write_d4rl_file(tmp_path / name, EPISODES) for name in ('hopper_medium-v2.hdf5', 'b.hdf5')]
    path = '~' if below_home else list(map(str, files))
    main_config, create_config = make_config('hopper-medium-v2', data_path=path, reward_norm='iql_locomotion')
    main_config.policy.collect.data_type = 'd4rl'
    create_config.policy.type = 'cawr_command'
    cfg = compile_config(main_config, auto=True, create_cfg=create_config, save_cfg=False)
    dataset = create_dataset(cfg)
    assert isinstance(dataset, StockDataset) and len(dataset.transitions) == (294 if below_home else 588)
    assert dataset.transitions.reward_factor != 1


def test_the_names_are_served_in_either_order_of_imports():
    assert DATASET_REGISTRY.get('d4rl') is StockDataset and ENV_REGISTRY.get('d4rl') is StockEnv
    code = ("from dizoo.d4rl.envs.d4rl_env import D4RLEnv\nimport ding_cawr\nfrom ding.utils import ENV_REGISTRY\n"
            "print(ENV_REGISTRY.get('d4rl').__name__)")
    assert python('-c', code).stdout.split()[-1] == 'StockEnv'


def test_d4rls_own_stay_in_charge_where_they_can_be_made(tmp_path):
    for name in ('mujoco_py', 'd4rl'):
        (tmp_path / f'{name}.py').touch()
    code = ("import ding_cawr\nfrom ding.utils import DATASET_REGISTRY, ENV_REGISTRY\n"
            "print(DATASET_REGISTRY.get('d4rl').__name__, 'd4rl' in ENV_REGISTRY)")
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'}
    result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-2:] == [D4RLDataset.__name__, 'False']
