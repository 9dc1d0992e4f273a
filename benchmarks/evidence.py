"""Run what is missing of the plan of evidence, in its order: a queue that may be stopped and started at any time.

    python benchmarks/evidence.py --list
    python benchmarks/evidence.py --data FOLDER [--part a] [--jobs 1] [--results FILE.jsonl] [--work evidence_runs]
    python benchmarks/evidence.py --report FOLDER
    python benchmarks/evidence.py --table

FOLDER holds the stand-ins under D4RL's file names (hopper_medium-v2.hdf5, ...), and in given/ their rows with
advantages (hopper_medium_given.hdf5, ...), which benchmarks/advantages.py makes. Each run is one of `cawr compare`: a
process of its own, DI-engine's offline pipeline, the settings that compare gives the policy; here with one thread of
torch and at low priority. A run that ends appends a line of kind 'run' (``ding_cawr.compare.results``) to the results,
with the git commit and whether the package was as committed. A run that was stopped goes on from its last checkpoint,
or begins anew where the code has changed since. Checkpoints are removed when a run has ended, but for those of critics
that other runs take.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ding_cawr.algorithms.settings import QUICK
from ding_cawr.compare import figures, results, sections
from ding_cawr.compare.datasets import Dataset, find_dataset
from ding_cawr.compare.gathering import FILE, corruption_text, gather
from ding_cawr.compare.jobs import Job
from ding_cawr.compare.launchers import Event, LocalLauncher
from ding_cawr.compare.paper import TABLE_1_LOSSES as LOSSES
from ding_cawr.compare.policies import Budget, PolicySpec, find_policy
from ding_cawr.compare.presets import form
from ding_cawr.compare.run import Comparison
from ding_cawr.compare.sections import TABLE_1 as TABLE_1_PRESET
from ding_cawr.compare.statistics import MEAN_OF_LAST, PROTOCOLS, Spread, spread
from ding_cawr.tasks import split_d4rl_id

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = 'bundled:hopper-medium-expert'
#: Stand-ins go by the names that they are made by; what follows the colon is not part of the file's name.
DOPE, REPLAY, WALKER = 'hopper-medium:dope', 'hopper-medium-replay', 'walker2d-medium:dope'
MAIN_SETS = (
    DOPE, REPLAY, WALKER, 'walker2d-medium-replay', 'halfcheetah-medium-replay', 'halfcheetah-medium-expert', BUNDLED
)
#: Those on which the share of the better episodes matters.
MIXED_SETS = (REPLAY, DOPE, 'walker2d-medium-replay', 'halfcheetah-medium-expert')
EXPERT_SETS = ('hopper-expert', 'walker2d-expert', 'halfcheetah-expert:dope')


def on_critics(iterations: int, priorities: Sequence[str]) -> tuple[PolicySpec, ...]:
    """Return the paper's losses with each priority, on critics that are trained before, once for a set and a seed."""
    critics = replace(form('l2', 'none', name=f'critics_{iterations}'), iterations=iterations)
    return tuple(form(loss, priority, critics) for priority in priorities for loss in LOSSES)


#: Parts c. and d.
TABLE_1 = on_critics(100_000, ('none', 'normal', 'quantile 0.5', 'standard', 'odpr', 'aw'))
UNDER_NOISE = on_critics(20_000, ('none', 'normal'))
#: A2PR's policy gradient at this package's quick rates, one setting for all sets: the first is part of the main table.
NORM = dict(policy=dict(model=dict(critic_layer_norm=True)))


def quick(name: str, algorithm: str, about: str, **overrides: Any) -> PolicySpec:
    """Return a preset of A2PR at the quick rates, with settings that are the same on every set."""
    common = dict(alpha=2.5, mask=1.0, discount_factor=0.99, vae_weight=1.0)
    return PolicySpec(name, f'{algorithm}, rates 1e-3, target 0.02, {about}', algorithm=algorithm,
                      overrides={**common, **QUICK, **overrides})


A2PR_FORMS = (
    quick('a2pr_mask_quick', 'a2pr_mask', 'alpha 2.5'),
    quick('a2pr_mask_quick_norm', 'a2pr_mask', 'alpha 2.5, LayerNorm', **NORM),
    quick('a2pr_mask_quick_norm_alpha6', 'a2pr_mask', 'alpha 6, LayerNorm', alpha=6.0, **NORM),
    quick('a2pr_all_quick_norm', 'a2pr_all', 'alpha 2.5, LayerNorm', **NORM),
    quick('a2pr_quick', 'a2pr', 'alpha 2.5, mask 1'),
)
#: Part l.: CAWR's loss and its draws in A2PR.
CAWR_IN_A2PR = (
    quick('a2pr_mask_quick_l1', 'a2pr_mask', 'alpha 2.5, l1', policy_loss='l1'),
    quick('a2pr_mask_quick_priority', 'a2pr_mask', 'alpha 2.5, normal priority', priority='normal'),
)
#: Policies of the main table, and policies with published settings.
MAIN_POLICIES = ('td3_bc', 'cawr', 'bc', 'bc_best', 'iql', 'iql_quick', A2PR_FORMS[0])
PUBLISHED = ('cawr_released', 'cawr_paper', 'a2pr')
#: Part j.: it shows how much of cawr's lead comes from its loss, and what a choice of episodes alone gives.
CLONING_L1 = PolicySpec('bc_l1', "bc with cawr's loss, l1", algorithm='bc', overrides=dict(policy_loss='l1'))
#: Part k.: other shares of the better episodes, and cawr and a2pr_mask on draws from them.
ON_BETTER = (
    *(PolicySpec(f'bc_best_{share}', f'bc_best with best_episodes={share}', algorithm='bc_best',
                 overrides=dict(best_episodes=share)) for share in (0.25, 0.4)),
    *(PolicySpec(f'cawr_best_{share}_0.4', f'cawr with best_episodes={share}, an effective share of 0.4',
                 algorithm='cawr',
                 overrides=dict(best_episodes=share, temperature=dict(type='auto', effective_share=0.4)))
      for share in (0.15, 0.4)),
    quick('a2pr_mask_best_0.15', 'a2pr_mask', 'alpha 2.5, best_episodes=0.15', best_episodes=0.15),
)
#: Part h.: what bfloat16 does to scores.
PRECISIONS = tuple(
    PolicySpec(f'cawr_{precision}', f'cawr with precision={precision!r}', algorithm='cawr',
               overrides=dict(precision=precision)) for precision in ('float32', 'bfloat16')
)
#: Part e.: whole sets, and the factor by which env.reward_norm scales their rewards, ``Transitions.reward_factor``.
#: Rows without their episodes do not have it.
REWARD_FACTORS = {DOPE: 0.3933059175005325, REPLAY: 0.2771949364633797}
#: File of a run that goes on, in its folder, with the code that it began with.
CODE = 'code.json'
#: Suffix of a stand-in's name. It means those rows of the stand-in that have given advantages.
GIVEN = ':given'


def on_given_rows(factor: float) -> tuple[PolicySpec | str, ...]:
    """Return what is compared on rows with given advantages, whose rewards are scaled by a factor."""
    cawr = PolicySpec('cawr_rows', 'cawr, rewards scaled as on the whole set', algorithm='cawr',
                      overrides=dict(reward_norm=None, reward=dict(scale=factor, shift=0.0)))
    given = PolicySpec('cawr_given', 'cawr with the advantages of the dataset', algorithm='cawr',
                       overrides=dict(reward_norm=None, advantage='dataset'))
    return cawr, given, 'bc'


@dataclass(frozen=True)
class Part:
    """A row of the plan: every policy on every set, with every seed and share of corrupted actions.

    Attributes:
        policies: of a comparison, or names of such.
        corrupt: shares of actions that are corrupted, at scale 1.
    """
    name: str
    about: str
    sets: Sequence[str]
    policies: Sequence[PolicySpec | str]
    iterations: int
    seeds: Sequence[int]
    eval_freq: int = 2_500
    episodes: int = 10
    corrupt: Sequence[float] = (0.0, )

    def jobs(self, dataset: Dataset, seed: int) -> Iterator[Job]:
        """Yield the runs on a set with a seed in their order, critics before those that take them."""
        policies = [find_policy(each) if isinstance(each, str) else each for each in self.policies]
        budget, given = Budget(self.iterations, self.eval_freq, self.episodes), set()
        for rate in self.corrupt:
            for policy in policies:
                job = Job(dataset.corrupted('action', rate, 1.0), policy, (seed, ), budget, f'evidence {self.name}')
                if job.critics and job.critics.title not in given:
                    given.add(job.critics.title)
                    yield job.critics
                yield job


#: Columns of the main table: titles by policies of parts a. and j.
MAIN_COLUMNS = {
    'bc': 'bc', 'bc_l1': 'bc by l1', 'bc_best': 'bc_best', 'iql': 'iql', 'iql_quick': 'iql_quick', 'cawr': 'cawr',
    'td3_bc': 'td3_bc', 'a2pr_mask_quick': 'a2pr_mask',
}
#: Columns of the tables of parts k. and l., of seed 0.
BETTER_COLUMNS = {
    'bc_best': 'bc_best (0.15)', 'bc_best_0.25': '0.25', 'bc_best_0.4': '0.4', 'cawr': 'cawr',
    'cawr_best_0.15_0.4': 'cawr on better draws',
}
IDEAS_COLUMNS = {
    'a2pr_mask_quick': 'a2pr_mask', 'a2pr_mask_quick_l1': 'by l1', 'a2pr_mask_quick_priority': 'normal priority',
    'a2pr_mask_best_0.15': 'better episodes', 'cawr': 'cawr', 'bc_best': 'bc_best',
}
#: Rows and columns of the table of long runs: titles by policies of parts b., and iterations.
LONG_ROWS = {
    'cawr': 'cawr', 'iql': "iql (its paper's rates)", 'a2pr_mask_quick': 'a2pr_mask (rates 1e-3)',
    'bc': 'bc', 'iql_quick': 'iql_quick', 'cawr_released': 'cawr_released', 'a2pr': 'a2pr',
}
LONG_COLUMNS = 25_000, 50_000, 75_000, 100_000, 125_000, 150_000, 200_000, 300_000, 400_000
#: In the order in which it is run. The last seeds are for what the first ones chose.
PLAN = (
    Part('h', 'bfloat16', (BUNDLED, ), PRECISIONS, 20_000, (0, 1, 2, 3, 4), eval_freq=2_000),
    Part('a', 'main table', MAIN_SETS, MAIN_POLICIES, 50_000, (0, 1, 2)),
    Part('g', "A2PR's other settings", (DOPE, REPLAY, WALKER), A2PR_FORMS[1:], 50_000, (0, )),
    Part('j', 'behaviour cloning: its loss, and the better episodes', (*MAIN_SETS, *EXPERT_SETS),
         ('bc', CLONING_L1, 'bc_best'), 50_000, (0, 1, 2)),
    Part('l', "CAWR's ideas in A2PR", MIXED_SETS, CAWR_IN_A2PR, 50_000, (0, )),
    Part('k', 'the share of the better episodes', MIXED_SETS, ON_BETTER, 50_000, (0, )),
    Part('i', 'AWR on datasets', (DOPE, 'halfcheetah-medium-expert'), ('awr', 'awr_td'), 50_000, (0, 1, 2)),
    Part('c', 'Table 1 on critics trained before', (DOPE, ), TABLE_1, 20_000, (0, 1)),
    Part('d', 'losses under corrupted actions', (DOPE, ), UNDER_NOISE, 20_000, (0, 1), corrupt=(0.0, 0.1, 0.3, 0.5)),
    Part('e', 'learnt advantages, whole sets', tuple(REWARD_FACTORS), ('cawr', ), 20_000, (0, 1, 2)),
    *(Part(f'e, {name.removesuffix(":dope")}', 'given advantages', (name + GIVEN, ), on_given_rows(factor), 20_000,
           (0, 1, 2)) for name, factor in REWARD_FACTORS.items()),
    # 'auto' on a set is the run that it stands for, so that it needs none of its own.
    Part('f', 'choice by data quality', (*MAIN_SETS, *EXPERT_SETS), ('bc', 'bc_best', 'cawr'), 50_000, (0, 1, 2)),
    Part('b', "the paper's length", (DOPE, ), ('bc', 'iql', 'iql_quick', 'cawr', 'cawr_released'), 400_000, (0, )),
    Part('b, a2pr', 'A2PR at length', (DOPE, ), (A2PR_FORMS[0], 'a2pr'), 200_000, (0, )),
    Part('a, published', 'main table, published settings', MAIN_SETS, PUBLISHED, 50_000, (0, 1, 2)),
    Part('a, reported', 'main table on other seeds', MAIN_SETS, MAIN_POLICIES, 50_000, (10, 11, 12)),
)


def path_of(name: str, folder: Path) -> Path:
    """Return where a stand-in's file is."""
    whole = name.partition(':')[0].replace('-', '_')
    return folder / 'given' / f'{whole}_given.hdf5' if name.endswith(GIVEN) else folder / f'{whole}-v2.hdf5'


@cache
def described(name: str) -> Dataset:
    """Return a set as the plan knows it, without its file."""
    if name == BUNDLED:
        return find_dataset(name)
    env_id = f"{name.partition(':')[0]}-v2"
    task, _ = split_d4rl_id(env_id)
    return Dataset(name, path_of(name, Path()), env_id, task.obs_shape, task.action_shape, '', 'stand-in', None)


@cache
def found(name: str, folder: Path) -> Dataset:
    """Return a set with its file.

    Raises:
        FileNotFoundError: the stand-in is not in the folder.
    """
    if name == BUNDLED:
        return find_dataset(name)
    path = path_of(name, folder)
    if not path.is_file() and name.endswith(GIVEN):
        raise FileNotFoundError(
            f'there is no {path}; make it of the stand-in {name.removesuffix(GIVEN)} and its behaviour policy with '
            'benchmarks/advantages.py'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no {path}, the stand-in {name}; docs/results.md says what the stand-ins are, and the raw lines '
            'have their SHA-256'
        )
    return replace(find_dataset(str(path)), name=name)


def key(about: dict) -> str:
    """Return what makes a run the same run, with the set's name for its file."""
    return results.identity({**about, 'dataset_sha256': about['dataset']})


def finished(path: Path) -> dict[str, dict]:
    """Return the finished runs in the results by their keys, each as its first line."""
    if not path.exists():
        return {}
    runs = results.read(path).finished.drop_duplicates('run').to_dict('records')
    return {key(run): run for run in runs}


def code() -> dict[str, str | bool]:
    """Return the commit of the code, and whether the package is as committed there."""
    def git(*words: str) -> str:
        return subprocess.run(['git', '-C', ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
    return dict(commit=git('rev-parse', 'HEAD'), clean=not git('status', '--porcelain', '--', 'ding_cawr'))


class Queue(Comparison):
    """A comparison that writes one line a run and keeps no checkpoints but those of critics.

    Arguments:
        file: where finished runs go. Failures go to the results.jsonl of the folder ``out``.
    """

    def __init__(self, file: Path, out: Path, jobs: Sequence[Job], slots: int) -> None:
        super().__init__(out, jobs, LocalLauncher(slots, threads=1))
        self._file = file

    def _finished(self) -> set[str]:
        return {run['identity'] for run in finished(self._file).values()}

    def _make_folder(self, job: Job) -> None:
        now, file = code(), self._part(job) / CODE
        if file.exists() and json.loads(file.read_text()) != now:
            shutil.rmtree(self._part(job))
        super()._make_folder(job)
        file.write_text(json.dumps(now))

    def _write_down(self, event: Event) -> None:
        if event.kind == 'done':
            begun_with = json.loads((self._part(event.job) / CODE).read_text())
            if event.job.policy.iterations is not None:  # critics, which other runs take
                self._keep(event.job)
            results.append(self._file, [{**results.condensed(event.value), **begun_with}])
            self._outcome.ran += 1
            shutil.rmtree(self._part(event.job), ignore_errors=True)
        else:
            self._fail(event.job, event.value)


def run(plan: Sequence[Part], data: Path, file: Path, work: Path, slots: int) -> list[dict[str, str]]:
    """Run what is missing, set by set within a seed of a part; return the failures.

    Raises:
        FileNotFoundError: a stand-in is not there when its turn comes.
        ValueError: a set's file is not that of the results, or another queue is running.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    turns = [(part, seed, name) for part in plan for seed in part.seeds for name in part.sets]
    for part, seed, name in turns:
        done = finished(file)
        if all(key(job.about(seed)) in done for job in part.jobs(described(name), seed)):
            continue
        dataset = found(name, data)
        if {each['dataset_sha256'] for each in done.values() if each['dataset'] == name} - {dataset.sha256}:
            raise ValueError(f'{dataset.path} is not the file that the results of {name} are of; give other --results')
        missing = [job for job in part.jobs(dataset, seed) if key(job.about(seed)) not in done]
        print(f'{part.name}: {part.about}, {name}, seed {seed}: {len(missing)} runs', flush=True)
        failures += Queue(file, work, missing, slots).run().failures
    return failures


def listing(plan: Sequence[Part], file: Path) -> str:
    """Return done and missing runs of every part and set."""
    done, lines = finished(file), [f'{"part":24} {"set":30} {"iterations":>10} {"done":>5} {"missing":>8}']
    every: set[str] = set()
    for part in plan:
        for name in part.sets:
            keys = [key(job.about(seed)) for seed in part.seeds for job in part.jobs(described(name), seed)]
            count = sum(each in done for each in keys)
            every.update(keys)
            lines.append(f'{part.name:24} {name:30} {part.iterations:>10,} {count:>5} {len(keys) - count:>8}')
    ended = len(every & done.keys())
    return '\n'.join([*lines, f'{ended} runs done, {len(every) - ended} missing; one that parts share counts once'])


def report(plan: Sequence[Part], file: Path, out: Path) -> list[Path]:
    """Write the lines of each part's finished runs, what `cawr report` makes of them, and a picture of all scores to
    folders; return these.

    Critics that other runs take have no place in the tables; part c. is written as the paper's Table 1.
    """
    lines, folders = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else [], []
    for part in plan:
        jobs = [(job, seed) for name in part.sets for seed in part.seeds for job in part.jobs(described(name), seed)]
        keys = {key(job.about(seed)) for job, seed in jobs if job.policy.iterations is None}
        preset = TABLE_1_PRESET if part.name == 'c' else part.about
        found = [{**line, 'preset': preset} for line in lines if key(line) in keys]
        if found:
            folders.append(out / part.name.replace(', ', '_'))
            folders[-1].mkdir(parents=True, exist_ok=True)
            (folders[-1] / FILE).write_text('\n'.join(map(json.dumps, found)) + '\n')
            sections.report(gather([folders[-1]])).write(folders[-1] / 'report')
            for draw in (scores, noise) if len(part.corrupt) > 1 else (scores, ):
                picture = figures.render(draw(folders[-1] / FILE, part.about))['png']
                (folders[-1] / f'{draw.__name__}.png').write_bytes(picture)
    return folders


def scores(file: Path, title: str) -> Figure:
    """Draw the scores of all runs in a file against iterations, a panel a set, and where rows are corrupted a share."""
    rows = results.read(file).finished
    corrupted = rows.corruption.map(corruption_text).fillna('')
    points = pd.DataFrame(dict(panel=rows.dataset.str.cat(corrupted, sep=' ').str.strip(), policy=rows.policy,
                               iterations=rows.iteration, score=rows['mean']))
    points = points.groupby(['panel', 'policy', 'iterations'], sort=False).score.agg(spread).reset_index()
    looks = figures.styles(dict.fromkeys(points.policy))
    return figures.lines(f'{title}: not scores on D4RL', points, looks, 'iterations',
                         ('training iteration', 'normalized score'))


def noise(file: Path, title: str) -> Figure:
    """Draw the mean of all evaluations of each loss against the share of corrupted rows, a panel a priority."""
    rows = results.read(file).finished
    names = rows.policy.str.split('+', expand=True)
    rate = [0.0 if each is None else each['rate'] for each in rows.corruption]
    points = pd.DataFrame(dict(panel='priority ' + names[1], policy=names[0], rate=rate, run=rows.run,
                               score=rows['mean']))
    points = points.groupby(['panel', 'policy', 'rate', 'run'], sort=False).score.mean()
    points = points.groupby(['panel', 'policy', 'rate'], sort=False).agg(spread).rename('score').reset_index()
    points = points.sort_values('rate', kind='stable')
    looks = figures.styles(dict.fromkeys(LOSSES))
    return figures.lines(f'{title}: not scores on D4RL', points, looks, 'rate',
                         ('share of corrupted rows', 'normalized score, mean of all evaluations'))


def main_table(plan: Sequence[Part], file: Path, sets: Sequence[str] | None = None) -> str:
    """Return the main table in Markdown: a row for each of the sets (None: for all), a column for each of
    ``MAIN_COLUMNS``.

    A cell is the mean of the last ten evaluations. Where there are several seeds it is their mean ± standard deviation
    (population), and their number in brackets. The best mean of a row is bold. The last row has the means over
    ``MAIN_SETS``, of policies with a cell for each of them.
    """
    rows = evaluations(plan, file, ('a', 'j'))
    sets = sets or list(dict.fromkeys(name for part in plan if part.name in ('a', 'j') for name in part.sets))
    runs = rows.groupby(['dataset', 'policy', 'run'])['mean'].agg(PROTOCOLS[MEAN_OF_LAST])
    cells = runs.groupby(['dataset', 'policy']).agg(spread).unstack().reindex(index=sets, columns=MAIN_COLUMNS)
    behaviour = rows.groupby('dataset').behaviour_score.first()
    lines = [['data', 'its episodes', *MAIN_COLUMNS.values()]]
    for name, row in cells.dropna(how='all').iterrows():
        best = max(cell.mean for cell in row.dropna())
        texts = [cell_text(cell, cell.mean == best) if isinstance(cell, Spread) else '-' for cell in row]
        lines.append([name, f'{behaviour[name]:.1f}', *texts])
    common = cells.reindex(MAIN_SETS).dropna(axis=1).map(lambda cell: cell.mean).mean()
    if len(common):
        texts = [f'{common[policy]:.1f}' if policy in common else '-' for policy in MAIN_COLUMNS]
        lines.append([f'mean of the first {len(MAIN_SETS)}', f'{behaviour[list(MAIN_SETS)].mean():.1f}', *texts])
    return markdown(lines)


def first_seed_table(plan: Sequence[Part], file: Path, parts: Sequence[str], columns: dict[str, str]) -> str:
    """Return a table of seed 0 in Markdown: a row for each set of the last of the parts, a column for each of
    ``columns`` with runs. A cell is the mean of the last ten evaluations, and in brackets that of the last three."""
    rows = evaluations(plan, file, parts)
    runs = rows[rows.seed == 0].groupby(['dataset', 'policy'])['mean']
    cells = runs.agg(lambda scores: f'{PROTOCOLS[MEAN_OF_LAST](scores):.1f} ({scores[-3:].mean():.1f})').unstack()
    sets = next(part.sets for part in plan if part.name == parts[-1])
    cells = cells.reindex(index=sets, columns=columns).dropna(axis=1, how='all').fillna('-')
    return markdown([['data', *map(columns.get, cells)], *([name, *row] for name, row in cells.iterrows())])


def length_table(plan: Sequence[Part], file: Path) -> str:
    """Return the table of long runs in Markdown: a row for each policy of parts b. with a run of seed 0.

    A cell is the mean of the ten evaluations up to that iteration.
    """
    rows = evaluations(plan, file, ('b', 'b, a2pr'))
    lines = [['policy', *(f'{each:,}' for each in LONG_COLUMNS)]]
    for policy, title in LONG_ROWS.items():
        run = rows[(rows.policy == policy) & (rows.seed == 0)].set_index('iteration')
        if len(run):
            means = run['mean'].rolling(10).mean().reindex(LONG_COLUMNS)
            lines.append([title, *('-' if pd.isna(each) else f'{each:.1f}' for each in means)])
    return markdown(lines)


def evaluations(plan: Sequence[Part], file: Path, parts: Sequence[str]) -> pd.DataFrame:
    """Return the evaluations of the finished runs of some parts."""
    keys = {key(job.about(seed)) for part in plan if part.name in parts for name in part.sets for seed in part.seeds
            for job in part.jobs(described(name), seed)}
    rows = results.read(file).finished
    return rows[[key(row) in keys for row in rows.to_dict('records')]]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose first line is its head."""
    head, *rows = lines
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, ['---'] * len(head), *rows])


def tables(plan: Sequence[Part], file: Path) -> dict[str, str]:
    """Return the tables of the documents by the part that they show."""
    return {
        'a': main_table(plan, file),
        'b': length_table(plan, file),
        'k': first_seed_table(plan, file, ('a', 'j', 'k'), BETTER_COLUMNS),
        'l': first_seed_table(plan, file, ('a', 'j', 'k', 'l'), IDEAS_COLUMNS),
    }


def cell_text(cell: Spread, is_best: bool) -> str:
    """Return a cell of the main table."""
    text = f'{cell:.1f}' + (f' ({cell.n})' if cell.n > 1 else '')
    return f'**{text}**' if is_best else text


def main(arguments: Sequence[str] | None = None, plan: Sequence[Part] = PLAN) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true', help='say what is done and what is missing, and run nothing')
    parser.add_argument('--report', type=Path, help='a folder for tables and figures of each part; run nothing')
    parser.add_argument('--table', action='store_true', help='print the tables of the documents and run nothing')
    parser.add_argument('--data', type=Path, help='the folder of the stand-ins')
    parser.add_argument('--part', action='append', choices=[part.name for part in plan],
                        help='run, list or report this part of the plan alone; may be repeated')
    parser.add_argument('--jobs', type=int, default=1, help='runs at once')
    parser.add_argument('--results', type=Path, default=ROOT / 'benchmarks' / 'results' / 'evidence' / 'results.jsonl')
    parser.add_argument('--work', type=Path, default=ROOT / 'evidence_runs', help='folder of runs, logs and failures')
    options = parser.parse_args(arguments)
    chosen = [part for part in plan if not options.part or part.name in options.part]
    if options.table and not options.results.is_file():
        parser.error(f'--results is {options.results}, which is not a file')
    if options.list:
        print(listing(chosen, options.results))
        return
    if options.report:
        print(*report(chosen, options.results, options.report), sep='\n')
        return
    if options.table:
        print(*tables(plan, options.results).values(), sep='\n\n')
        return
    if options.jobs < 1:
        parser.error(f'--jobs is {options.jobs}; it must be 1 or more')
    if options.data is None:
        parser.error('--data is missing: the folder of the stand-ins')
    os.nice(max(0, 10 - os.nice(0)))
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    try:
        failures = run(chosen, options.data, options.results, options.work, options.jobs)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f'{error}\n')
    for failure in failures:
        print(f'{failure["run"]} failed: {failure["error"]}; its log is {failure["log"]}')
    raise SystemExit(int(bool(failures)))


if __name__ == '__main__':
    main()
