"""The runs of a comparison: every dataset, policy and seed, and in what order."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from easydict import EasyDict

from ding_cawr.compare import results
from ding_cawr.compare.datasets import Dataset
from ding_cawr.compare.entrants import Budget, Entrant, settings_of


@dataclass(frozen=True)
class Job:
    """One process's work: a policy on a dataset with a seed, or with several that train at once."""
    dataset: Dataset
    entrant: Entrant
    seeds: tuple[int, ...]
    budget: Budget
    preset: str | None = None

    @cached_property
    def configuration(self) -> tuple[EasyDict, EasyDict]:
        """(main_config, create_config); where another run gives the critics, without them."""
        return self.entrant.build(self.dataset, self.budget)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The policy's configuration, for the results."""
        settings = settings_of(*self.configuration)
        if self.entrant.critics:
            settings['learn']['pretrained_critics'] = f'those of {self.entrant.critics.name}, of the same seed'
        return settings

    def about(self, seed: int) -> dict[str, Any]:
        """What identifies a seed's run and says what it is, by the names of the results; versions and machine aside."""
        dataset, budget = self.dataset, self.budget
        return dict(
            dataset=dataset.name, dataset_sha256=dataset.sha256, origin=dataset.origin, env_id=dataset.env_id,
            corruption=dict(dataset.corruption) if dataset.corruption else None,
            behaviour_score=dataset.behaviour_score, policy=self.entrant.name, policy_source=self.entrant.source,
            settings=self.settings, seed=seed, iterations=budget.iterations, eval_freq=budget.eval_freq,
            episodes=budget.episodes, preset=self.preset,
        )

    def name(self, seed: int) -> str:
        """Of a seed's run and of its folder; another configuration has another name."""
        digest = hashlib.sha256(results.identity(self.about(seed)).encode()).hexdigest()[:6]
        return f'{self.dataset.slug}_{self.entrant.name.replace("@", "_")}_seed{seed}_{digest}'

    @property
    def title(self) -> str:
        """Of the whole job, for people and for the folder that it runs in."""
        first = self.name(self.seeds[0])
        return first if len(self.seeds) == 1 else f'{first}_to_seed{self.seeds[-1]}'

    @property
    def critics(self) -> Job | None:
        """The job whose run has to be there before this one begins."""
        critics = self.entrant.critics
        if critics is None:
            return None
        budget = replace(self.budget, iterations=critics.iterations or self.budget.iterations)
        return Job(self.dataset, critics, self.seeds, budget, self.preset)


def make_jobs(
    datasets: Iterable[Dataset], entrants: Sequence[Entrant], seeds: Sequence[int], budget: Budget,
    preset: str | None = None, replicas: bool = False,
) -> list[Job]:
    """All runs, seed by seed, so that early results compare all policies; jobs that give critics come first.

    Arguments:
        replicas: train the seeds of each of this package's algorithms at once.
    """
    jobs: dict[str, Job] = {}
    groups = [(seed, ) for seed in seeds]
    for group in ([tuple(seeds)] if replicas else groups):
        for dataset in datasets:
            for entrant in entrants:
                parts = [group] if entrant.trains_replicas else [(seed, ) for seed in group]
                for part in parts:
                    job = Job(dataset, entrant, part, budget, preset)
                    if job.critics:
                        jobs.setdefault(job.critics.title, job.critics)
                    jobs.setdefault(job.title, job)
    return sorted(jobs.values(), key=lambda job: job.critics is not None)


def missing(jobs: Sequence[Job], finished: set[str]) -> list[Job]:
    """The jobs, or their seeds, that have no finished run among these identities."""
    left = []
    for job in jobs:
        seeds = tuple(seed for seed in job.seeds if results.identity(job.about(seed)) not in finished)
        if seeds:
            left.append(Job(job.dataset, job.entrant, seeds, job.budget, job.preset))
    return left


def folder_of(out: Path, job: Job, seed: int) -> Path:
    """Where a finished run's checkpoints, logs and events are."""
    return out / 'runs' / job.name(seed)
