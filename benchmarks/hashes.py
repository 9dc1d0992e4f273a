"""Hash what short runs of every form of training end with, to prove that a change of the code moves no number.

    python benchmarks/hashes.py --out before.json     # before the change
    python benchmarks/hashes.py --against before.json # after it, on the same machine

Each form trains 200 iterations on the bundled set through DI-engine's own pipeline, with one thread. The hashes are
those of all tensors and numbers in its last checkpoint, and of its evaluations. Two codes agree where both have the
same hashes, whatever the names are under which a checkpoint keeps them. Only public names are used; for an older
version leave out the forms that it does not have.
"""
from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from ding.entry import serial_pipeline_offline

from ding_cawr import load_transitions, make_config, train_replicas

BUNDLED, ITERATIONS, SEED = 'bundled:hopper-medium-expert', 200, 3
SHORT = dict(env=dict(n_evaluator_episode=2), policy=dict(eval=dict(evaluator=dict(eval_freq=100))))

#: form -> (algorithm, keys of ``policy.learn``).
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    'default': ('cawr', {}),
    'auto': ('cawr', dict(temperature=dict(type='auto', effective_share=0.8), weighting='per_sample',
                          trust=dict(type='linear', start=50, iterations=50))),
    'paper': ('cawr_paper', {}),
    'released': ('cawr_released', {}),
    'iql': ('iql', {}),
    'bc': ('bc', {}),
    'tightening_flat': ('cawr', dict(policy_loss='flat', tightening=dict(convex_share=0.9, iterations=150))),
    'skew_odpr': ('cawr', dict(policy_loss='skew', priority='odpr', weighting='per_sample')),
    'huber_quantile': ('cawr', dict(policy_loss='huber', priority=dict(type='quantile', quantile=0.3))),
    'standard_released': ('cawr_released', dict(priority=dict(type='standard', exponent=0.6), ignore_done=True)),
    'refresh_aw': ('cawr', dict(priority='aw', priority_refresh=50)),
    'bfloat16': ('cawr', dict(precision='bfloat16')),
    'best_episodes': ('cawr', dict(best_episodes=0.15)),
    'bc_best': ('bc_best', {}),
    'a2pr': ('a2pr', {}),
    'a2pr_mask': ('a2pr_mask', {}),
    'a2pr_priority': ('a2pr', dict(policy_loss='l1', priority='normal')),
    'awr': ('awr', dict(critic_steps=40, policy_steps=60)),
    'awr_td': ('awr_td', dict(critic_steps=2, policy_steps=2)),
}
#: Forms that replicas train, too.
REPLICAS = dict(replica='default', replica_a2pr='a2pr_priority', replica_awr='awr')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, help='write the hashes to this JSON file')
    parser.add_argument('--against', type=Path, help='compare with the hashes of this JSON file')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder_before = os.getcwd()
    out, against = (path and path.resolve() for path in (arguments.out, arguments.against))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = hashes()
        os.chdir(folder_before)
    if out:
        out.write_text(json.dumps(found, indent=1) + '\n')
    if against:
        differences = compare(json.loads(against.read_text()), found)
        print('\n'.join(differences) or f'all {len(found)} forms agree')
        raise SystemExit(bool(differences))


def hashes() -> dict[str, dict[str, str]]:
    """Return the hashes of each form's end by the names in its checkpoint; writes into the current folder."""
    found = {name: train(name, algorithm, **learn) for name, (algorithm, learn) in FORMS.items()}
    found['pretrained_critics'] = train('pretrained', 'cawr', pretrained_critics=_last('default'))
    for name, form in REPLICAS.items():
        algorithm, learn = FORMS[form]
        train_replicas(config(name, algorithm, **learn), seeds=[SEED, SEED + 1], max_train_iter=ITERATIONS)
        for seed in (SEED, SEED + 1):
            found[f'{name}_{seed}'] = of_checkpoint(_last(f'{name}_seed{seed}'))
    found['stock_rows'] = train_on_stock_rows()
    return found


def config(name: str, algorithm: str, **learn: Any) -> tuple[Any, Any]:
    sections = dict(SHORT, policy={**SHORT['policy'], 'learn': dict(batch_size=128, **learn)})
    return make_config('Hopper-v4', algorithm, data_path=BUNDLED, exp_name=name, iterations=ITERATIONS, **sections)


def train(name: str, algorithm: str, **learn: Any) -> dict[str, str]:
    serial_pipeline_offline(config(name, algorithm, **learn), seed=SEED, max_train_iter=ITERATIONS)
    return of_checkpoint(_last(name))


def train_on_stock_rows() -> dict[str, str]:
    """Train on DI-engine's own dataset type ``hdf5``, which yields rows as dicts."""
    transitions = load_transitions(BUNDLED)
    with h5py.File('rows.hdf5', 'w') as file:
        for key in ('obs', 'action', 'reward', 'next_obs', 'done'):
            file[key] = np.asarray(getattr(transitions, key)[:2000], np.float32)
    main_config, create_config = config('stock', 'cawr_released')
    main_config.policy.collect = dict(data_type='hdf5', data_path=os.path.abspath('rows.hdf5'))
    main_config.policy.learn.train_epoch = 14
    serial_pipeline_offline((main_config, create_config), seed=SEED, max_train_iter=ITERATIONS)
    return of_checkpoint(max(Path('stock/ckpt').glob('iteration_*.pth.tar'), key=os.path.getmtime))


def _last(name: str) -> str:
    return str(Path(name) / 'ckpt' / f'iteration_{ITERATIONS}.pth.tar')


def of_checkpoint(path: str | Path) -> dict[str, str]:
    """Return the hash of each tensor and number in a checkpoint, by the path to it."""
    state = torch.load(path, weights_only=True)
    del state['format'], state['run']['seconds']
    state.pop('units', None)  # settings, which older versions do not write
    return {name: _hash(leaf) for name, leaf in _leaves(state) if isinstance(leaf, (torch.Tensor, int, float))}


def _leaves(tree: Any, path: str = '') -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key, part in tree.items() for leaf in _leaves(part, f'{path}/{key}')]
    if isinstance(tree, list):
        # One leaf: a list of 625 words is one random state.
        return [(path, torch.tensor(tree, dtype=torch.float64))] if _are_numbers(tree) else [
            leaf for key, part in enumerate(tree) for leaf in _leaves(part, f'{path}/{key}')
        ]
    return [(path, tree)]


def _are_numbers(parts: list) -> bool:
    return bool(parts) and all(isinstance(part, (int, float)) for part in parts)


def _hash(leaf: torch.Tensor | float) -> str:
    if not isinstance(leaf, torch.Tensor):
        return repr(leaf)
    if leaf.shape == (624, ):  # words of a random generator, which a format may keep as signed or unsigned ones
        leaf = leaf.long() % 2**32
    values = leaf.contiguous().numpy()
    return f'{values.dtype}{list(values.shape)} {hashlib.sha256(values).hexdigest()[:16]}'


def compare(before: dict, after: dict) -> list[str]:
    """Return a line for each form and each hash that only one of the two has."""
    lines = [f'{name}: only on one side' for name in before.keys() ^ after.keys()]
    for name in before.keys() & after.keys():
        counts = [collections.Counter(each[name].values()) for each in (before, after)]
        for side, (own, other), named in zip(('before', 'after'), (counts, counts[::-1]), (before[name], after[name])):
            lines += [f'{name}: only {side}: {key} {value}' for key, value in named.items() if (own - other)[value]]
    return sorted(lines)


if __name__ == '__main__':
    main()
