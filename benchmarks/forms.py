"""Which form of CAWR: several forms of the policy's update on the same critics, datasets, seeds and evaluations.

    python benchmarks/forms.py --data FOLDER [--datasets hopper-medium,...] [--seeds 0,1,2] [--forms bc,iql,...]
                               [--iterations 10000] [--evaluations 10] [--jobs 2] [--out FILE.json]
    python benchmarks/forms.py --draw FILE.json ... --out FILE.png

FOLDER holds files with D4RL's names and layout (hopper_medium-v2.hdf5, ...). Critics never depend on the policy, so in
one run (a dataset and a seed) all forms share one pair of Q, Q̄ and one V, and the uniform batch D1 that trains them;
each form draws its own D2 and keeps its own priorities. For each form that is the package's own iteration, which
tests/test_forms.py proves. A finished run is kept in --work and not run again.
"""
from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from easydict import EasyDict
from matplotlib.figure import Figure

from ding_cawr import load_transitions, normalized_score
from ding_cawr.advantage import effective_sample_size
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.networks import Estimate
from ding_cawr.algorithms.cawr.presets import table_5
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR, cosine
from ding_cawr.compare import figures
from ding_cawr.compare.statistics import spread
from ding_cawr.data.buffer import PriorityBuffer
from ding_cawr.data.table import Table
from ding_cawr.data.transitions import Transitions
from ding_cawr.engine.env import MujocoEnv
from ding_cawr.files import sha256, unfinished
from ding_cawr.machine import versions

ROOT = Path(__file__).resolve().parent.parent
EPISODES = 10
#: Iterations over which trust grows in share_15_slow, as in the package's default, and in share_15_middle.
SLOW, MIDDLE = 40_000, 20_000
#: Quantiles of the advantages that the log has.
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)

#: What all forms share here: critics and policies quick enough for a short run, on rewards scaled as IQL's paper does.
SHARED = dict(
    batch_size=512, learning_rate_q=1e-3, learning_rate_value=1e-3, learning_rate_policy=1e-3, target_theta=0.02
)


def forms(env_id: str, iterations: int) -> dict[str, dict]:
    """Return the section ``learn`` of each form by its name, for runs of so many iterations."""
    paper = dict(table_5(env_id), policy_loss='l1')
    start = max(1, min(3000, 3 * iterations // 10))
    trust = dict(type='linear', start=start, iterations=start)
    auto = dict(temperature=dict(type='auto', effective_share=0.8), trust=trust)
    plain = dict(normalize_advantage=False, temperature=1 / 3, cosine_iterations=iterations)
    bounded = dict(max_weight=1.0, temperature=0.1, cosine_iterations=iterations)

    def share(percent: int, loss: str, weighting: str, priority: str) -> dict:
        temperature = dict(type='auto', effective_share=percent / 100)
        return dict(policy_loss=loss, weighting=weighting, priority=priority, temperature=temperature, trust=trust,
                    cosine_iterations=iterations)

    table = {
        'bc': dict(policy_loss='l2', weighting='none', priority='none'),
        'iql': dict(plain, policy_loss='l2', weighting='per_sample', priority='none'),
        'paper': dict(paper, weighting='per_sample', priority='normal'),
        'released': dict(paper, weighting='batch_mean', priority=dict(type='normal', exponent=0.6)),
        'draws': dict(policy_loss='l1', weighting='none', priority='normal', temperature=2.0, trust=trust),
        'draws_auto': dict(policy_loss='l1', weighting='none', priority='normal', **auto),
        'weights_auto': dict(policy_loss='l2', weighting='per_sample', priority='none', **auto),
        # What trust, the share and the policy's learning rate are worth.
        'draws_auto_full_trust': dict(auto, policy_loss='l1', weighting='none', priority='normal', trust='full'),
        'draws_auto_mild': dict(
            policy_loss='l1', weighting='none', priority='normal', trust=trust,
            temperature=dict(type='auto', effective_share=0.95),
        ),
        'bc_slow': dict(policy_loss='l2', weighting='none', priority='none', learning_rate_policy=3e-4),
        # What makes IQL rise late where tempered forms stay: loss, draws against weights, strength of the selection.
        'iql_l1': dict(plain, policy_loss='l1', weighting='per_sample', priority='none'),
        'released_cosine': dict(
            paper, weighting='batch_mean', priority=dict(type='normal', exponent=0.6), cosine_iterations=iterations
        ),
        **{f'share_{percent}': share(percent, 'l1', 'none', 'normal') for percent in (80, 40, 15, 5)},
        # A selection bounded at 1: what is better than V, or than the mean advantage, counts alike, as in wPC's mask.
        'mask_l2': dict(bounded, policy_loss='l2', weighting='per_sample', priority='none', normalize_advantage=False),
        'bounded_l2': dict(bounded, policy_loss='l2', weighting='per_sample', priority='none'),
        'bounded_l1': dict(bounded, policy_loss='l1', weighting='per_sample', priority='none'),
        'bounded_draws_l1': dict(bounded, policy_loss='l1', weighting='none', priority='normal'),
        # Critics select poorly before they have learnt: the same with trust that grows, quickly or slowly.
        'bounded_draws_l1_trust': dict(bounded, policy_loss='l1', weighting='none', priority='normal', trust=trust),
        'share_15_middle': dict(share(15, 'l1', 'none', 'normal'), trust=dict(trust, iterations=MIDDLE)),
        'share_15_slow': dict(share(15, 'l1', 'none', 'normal'), trust=dict(trust, iterations=SLOW)),
        'share_15_l2': share(15, 'l2', 'none', 'normal'),
        'share_15_weights_l2': share(15, 'l2', 'per_sample', 'none'),
    }
    return {name: {**CAWRSettings.defaults(), **SHARED, 'trust': 'full', **learn} for name, learn in table.items()}


class Forms:
    """Critics, and several forms that train a policy on them, each with draws of its own."""

    def __init__(self, table: Table, learn: dict[str, dict], seed: int) -> None:
        self.updates: dict[str, CAWR] = {}
        self.buffers: dict[str, PriorityBuffer] = {}
        for name, section in learn.items():
            torch.manual_seed(seed)
            settings = CAWRSettings.read(section)
            self.updates[name] = CAWR(CAWRModel(table.obs_shape, table.action_shape), settings)
            self.buffers[name] = PriorityBuffer(exponent=settings.exponent, seed=seed)
            self.buffers[name].attach(table)
        self.lead = next(iter(self.updates.values()))
        self.optimizers = {name: adam(update, 'policy') for name, update in self.updates.items()}
        self.critic_optimizers = [adam(self.lead, 'value'), adam(self.lead, 'critic')]
        self.uniform = PriorityBuffer(seed=seed + 1)
        self.uniform.attach(table)
        self.size = next(iter(learn.values()))['batch_size']

    def step(self) -> None:
        """Do one iteration: critics once, the policy of each form."""
        d1 = self.uniform.sample_uniform(self.size)
        draws = {name: buffer.sample_prioritized(self.size) for name, buffer in self.buffers.items()}
        losses, estimated = self._evaluate_critics(d1.batch, {name: draw.batch for name, draw in draws.items()})
        for name, update in self.updates.items():
            weight, priority = update.selection.step(estimated[name].advantage, update.iteration)
            error = draws[name].batch['action'] - update.model.policy(draws[name].batch['obs'])
            losses.append(update.policy_loss(error, weight[self.size:]))
            if priority is not None:
                self.buffers[name].update_priority(torch.cat([d1.indices, draws[name].indices]), priority)
        self._descend(sum(losses))

    def _evaluate_critics(self, d1: Table, batches: dict[str, Table]) -> tuple[list[torch.Tensor], dict[str, Estimate]]:
        """Return the critics' losses, and the estimate of D1 ∪ D2 for each form."""
        lead, needed = self.lead, [name for name, update in self.updates.items() if selects(update)]
        obs = torch.cat([d1['obs'], *(batches[name]['obs'] for name in needed)])
        action = torch.cat([d1['action'], *(batches[name]['action'] for name in needed)])
        with torch.no_grad():
            q_value = lead.networks.target_critics[0](obs, action).amin(dim=0).split(self.size)
            next_value, *values = lead.model.value(torch.cat([d1['next_obs'], obs[self.size:]])).split(self.size)
        value_d1 = lead.model.value(d1['obs'])
        q_values = lead.model.critic(d1['obs'], d1['action'])
        losses = [lead.value_loss(value_d1, q_value[0])[0], lead.critic_loss(q_values, d1, next_value)[0]]
        uniform = Estimate(q_value[0], value_d1.detach())
        pairs = dict(zip(needed, zip(q_value[1:], values)))
        estimated = {
            name: Estimate(*(torch.cat(both) for both in zip(uniform, pairs.get(name, uniform)))) for name in batches
        }
        return losses, estimated

    def _descend(self, loss: torch.Tensor) -> None:
        optimizers = [*self.critic_optimizers, *self.optimizers.values()]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        for name, update in self.updates.items():
            update.iteration += 1
            if update.settings.cosine_iterations:
                rate = cosine(update.iteration / update.settings.cosine_iterations).item()
                self.optimizers[name].param_groups[0]['lr'] = update.settings.learning_rate_policy * rate
        self.lead.networks.move_target(self.lead.settings.target_theta)


def adam(update: CAWR, name: str) -> torch.optim.Adam:
    """Return Adam of one network of an update; by autograd here, since all forms share one graph."""
    settings = update.settings
    rates = {'policy': settings.learning_rate_policy, 'value': settings.learning_rate_value,
             'critic': settings.learning_rate_q}
    return torch.optim.Adam(getattr(update.model, name).parameters(), lr=rates[name])


def selects(update: CAWR) -> bool:
    """Return whether a form's policy depends on the advantage at all."""
    return update.settings.weighting != 'none' or update.settings.priority is not None


def evaluate(model: CAWRModel, envs: list[MujocoEnv]) -> tuple[list[float], list[int]]:
    """Return the returns and the lengths of one episode in each environment. Start states are new at every call and the
    same for every form."""
    observations = {i: env.reset() for i, env in enumerate(envs)}
    returns, lengths = [0.0] * len(envs), [0] * len(envs)
    while observations:
        with torch.no_grad():
            actions = model(torch.from_numpy(np.stack(list(observations.values())))).numpy()
        for i, action in zip(list(observations), actions):
            timestep = envs[i].step(action)
            observations[i] = timestep.obs
            lengths[i] += 1
            if timestep.done:
                returns[i] = timestep.info['eval_episode_return']
                del observations[i]
    return returns, lengths


def train(path: Path, env_id: str, seed: int, names: list[str], iterations: int, evaluations: int) -> dict:
    """Train once; return the scores of every form at every evaluation."""
    torch.set_num_threads(1)
    transitions = load_transitions(path, env_id)
    row_scores = torch.from_numpy(normalized_score(env_id, episode_returns(transitions)))
    transitions = transitions.scale_rewards()
    table = forms(env_id, iterations)
    trained = Forms(transitions.table, {name: table[name] for name in names}, seed)
    cfgs = [EasyDict(env_id=env_id, index=i, manager=dict(auto_reset=False), norm_obs={}) for i in range(EPISODES)]
    envs = {name: [MujocoEnv(cfg) for cfg in cfgs] for name in names}
    for name in names:
        for i, env in enumerate(envs[name]):
            env.seed(seed + i)
    returns, lengths = {name: [] for name in names}, {name: [] for name in names}
    logs, started = [], time.perf_counter()
    for iteration in range(1, iterations + 1):
        trained.step()
        if iteration % (iterations // evaluations) == 0:
            for name in names:
                got = evaluate(trained.updates[name].model, envs[name])
                returns[name].append(got[0])
                lengths[name].append(round(float(np.mean(got[1]))))
            logs.append(log(trained, iteration, row_scores))
            scores = {name: round(float(normalized_score(env_id, np.mean(returns[name][-1]))), 1) for name in names}
            print(f'{iteration} {time.perf_counter() - started:.0f} s {logs[-1]} {scores}', flush=True)
    return {
        'dataset': env_id, 'sha256': sha256(path), 'seed': seed,
        'iterations': iterations, 'evaluations': evaluations, 'episodes': EPISODES, 'log': logs,
        'seconds': round(time.perf_counter() - started), 'forms': {name: table[name] for name in names},
        'scores': {
            name: [normalized_score(env_id, np.array(episodes)).round(1).tolist() for episodes in returns[name]]
            for name in names
        },
        'lengths': lengths,
    }


def episode_returns(transitions: Transitions) -> np.ndarray:
    """Return for each row (N,) what the rewards of its episode sum to."""
    episode = np.concatenate([[0], np.cumsum(transitions.table.ends)[:-1]])
    return np.bincount(episode, weights=transitions.reward)[episode]


def log(trained: Forms, iteration: int, row_scores: torch.Tensor) -> dict:
    """Return how far the critics are and how strongly each form selects, on 10,000 uniform rows.

    ``ranking`` is the share of dataset actions that min Q̄ ranks above the same action + N(0, 0.3). ``share`` is the
    effective share of w p^exponent, and ``selected`` the mean score of the rows' episodes under it.
    ``advantage_std_by_score`` is of the quarters of the rows, from the worst episodes' to the best ones'. ``agreement``
    is the correlation of the two Q̄'s advantages in each quarter.

    Arguments:
        row_scores: (N,), of each row the score of its episode.
    """
    sample = trained.uniform.sample_uniform(10_000)
    batch, scores = sample.batch, row_scores[sample.indices]
    estimate = trained.lead.estimate(batch)
    other = Table(batch.rows.clone(), batch.obs_shape)
    other['action'].add_(0.3 * torch.randn_like(other['action'])).clamp_(-1, 1)
    others = trained.lead.estimate(other)
    selections = {name: update.selection for name, update in trained.updates.items()}
    strengths = {
        name: selection.strength_of(*selection.select(estimate.advantage)).double()
        for name, selection in selections.items()
    }
    quarters = scores.argsort().chunk(4)
    heads = trained.lead.networks.target_critics[0](batch['obs'], batch['action']) - estimate.value
    quantiles = torch.quantile(estimate.advantage.double(), torch.tensor(QUANTILES, dtype=torch.float64))
    return {
        'iteration': iteration, 'value': round(estimate.value.mean().item(), 2),
        'advantage_std': round(estimate.advantage.std().item(), 3),
        'advantage_quantiles': [round(each, 3) for each in quantiles.tolist()],
        'advantage_std_by_score': [round(estimate.advantage[part].std().item(), 3) for part in quarters],
        'agreement': [round(torch.corrcoef(heads[:, part])[0, 1].item(), 3) for part in quarters],
        'ranking': round((estimate.q_value > others.q_value).double().mean().item(), 3),
        'trust': {name: round(selection.trust.item(), 3) for name, selection in selections.items()},
        'temperature': {name: round(selection.temperature.item(), 3) for name, selection in selections.items()},
        'share': {name: round(effective_sample_size(each).item(), 3) for name, each in strengths.items()},
        'selected': {name: round((each @ scores / each.sum()).item(), 1) for name, each in strengths.items()},
    }


def run(options: argparse.Namespace, name: str, seed: int) -> dict:
    """Train, or take the run that an earlier call finished."""
    names = options.forms.split(',')
    table = forms(f'{name}-v2', options.iterations)
    what = json.dumps([{form: table[form] for form in names}, options.evaluations], sort_keys=True)
    what = hashlib.sha256(what.encode()).hexdigest()[:8]
    done = options.work / f'{name}_seed{seed}_{options.iterations}_{what}.json'
    if done.is_file():
        return json.loads(done.read_text())
    path = options.data / f"{name.replace('-', '_')}-v2.hdf5"
    result = train(path, f'{name}-v2', seed, names, options.iterations, options.evaluations)
    with unfinished(done) as partial:
        partial.write_text(json.dumps(result))
    return result


def markdown_table(results: list[dict]) -> str:
    """Return mean ± std over seeds of each run's mean over its second half of evaluations, and of its last three."""
    lines = ['| dataset | form | seeds | mean of the second half | last three | best so far |', '| --- ' * 6 + '|']
    for dataset in dict.fromkeys(result['dataset'] for result in results):
        runs = [result for result in results if result['dataset'] == dataset]
        for form in runs[0]['scores']:
            scores = [np.mean(result['scores'][form], axis=1) for result in runs]
            figures = (lambda s: s[len(s) // 2:].mean()), (lambda s: s[-3:].mean()), np.max
            columns = [[figure(score) for score in scores] for figure in figures]
            cells = [f'{np.mean(column):.1f} ± {np.std(column):.1f}' for column in columns]
            seeds = ', '.join(str(result['seed']) for result in runs)
            lines.append(f"| {dataset} | {form} | {seeds} | {' | '.join(cells)} |")
    return '\n'.join(lines)


def drawn(results: list[dict]) -> Figure:
    """Draw, against iterations, the scores of every form and the scores of the episodes whose rows it selects."""
    panels = {'score of the policy': scores_of, "score of the episodes that the policy's rows are of": selected_by}
    points = [
        dict(panel=f'{result["dataset"]}: {panel}', policy=form, iterations=entry['iteration'], score=score)
        for result in results for panel, values in panels.items() for form in result['scores']
        for entry, score in zip(result['log'], values(result, form))
    ]
    points = pd.DataFrame(points).groupby(['panel', 'policy', 'iterations'], sort=False).score.agg(spread).reset_index()
    seeds = ', '.join(map(str, sorted({result['seed'] for result in results})))
    looks = figures.styles(dict.fromkeys(points.policy))
    return figures.lines(f'Forms on the same critics, stand-ins, not D4RL; seeds {seeds}', points, looks, 'iterations',
                         ('training iteration', 'normalized score'))


def scores_of(result: dict, form: str) -> list[float]:
    """Return the mean score of a form at each evaluation."""
    return np.mean(result['scores'][form], axis=1).tolist()


def selected_by(result: dict, form: str) -> list[float]:
    """Return the mean score of the episodes that a form selects, at each evaluation."""
    return [entry['selected'][form] for entry in result['log']]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path)
    parser.add_argument('--draw', type=Path, nargs='+', metavar='FILE.json', help='draw these results, and run nothing')
    parser.add_argument('--datasets', default='hopper-medium,halfcheetah-medium-expert,walker2d-medium')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--forms', default='bc,iql,paper,released,draws,draws_auto,weights_auto')
    parser.add_argument('--iterations', type=int, default=10_000)
    parser.add_argument('--evaluations', type=int, default=10)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--work', type=Path, default=Path('forms_runs'))
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'forms.json')
    options = parser.parse_args()
    if options.draw:
        results = [result for path in options.draw for result in json.loads(path.read_text())['runs']]
        options.out.with_suffix('.png').write_bytes(figures.render(drawn(results))['png'])
        return
    if options.data is None:
        parser.error('--data is missing: the folder of the stand-ins')
    options.work.mkdir(parents=True, exist_ok=True)
    runs = [(dataset, int(seed)) for seed in options.seeds.split(',') for dataset in options.datasets.split(',')]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context('spawn')) as pool:
        results = list(pool.map(functools.partial(run, options), *zip(*runs)))
    header = json.dumps({'data': options.data.name, 'versions': versions()})
    lines = ',\n'.join(json.dumps(result) for result in results)
    options.out.write_text(f'{header[:-1]}, "runs": [\n{lines}\n]}}\n')
    print(markdown_table(results))


if __name__ == '__main__':
    main()
