"""List the runs of a comparison: every dataset, policy and seed, and in what order."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from easydict import EasyDict

from ding_cawr.compare import results
from ding_cawr.compare.datasets import Dataset
from ding_cawr.compare.policies import Budget, PolicySpec, settings_of

#: File in a run's folder: its evaluations so far, for a run that goes on after an interruption.
RECORD = 'evaluations.json'


@dataclass(frozen=True)
class Job:
    """The work of one process: a policy on a dataset with a seed, or with several that train at once."""
    dataset: Dataset
    policy: PolicySpec
    seeds: tuple[int, ...]
    budget: Budget
    preset: str | None = None

    @cached_property
    def configuration(self) -> tuple[EasyDict, EasyDict]:
        """(main_config, create_config); where another run gives the critics, without them."""
        return self.policy.build(self.dataset, self.budget)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The policy's configuration, for the results."""
        settings = settings_of(*self.configuration)
        if self.policy.critics:
            settings['learn']['pretrained_critics'] = f'those of {self.policy.critics.name}, of the same seed'
        return settings

    def about(self, seed: int) -> dict[str, Any]:
        """Return a seed's run by the names of the results, without versions and machine."""
        dataset, budget = self.dataset, self.budget
        return dict(
            dataset=dataset.name, dataset_sha256=dataset.sha256, origin=dataset.origin, env_id=dataset.env_id,
            corruption=dataset.corruption and dict(dataset.corruption), behaviour_score=dataset.behaviour_score,
            policy=self.policy.name, policy_source=self.policy.source, settings=self.settings, seed=seed,
            iterations=budget.iterations, eval_freq=budget.eval_freq, episodes=budget.episodes, preset=self.preset,
        )

    def name(self, seed: int) -> str:
        """Return the name of a seed's run and of its folder; another configuration has another name."""
        digest = hashlib.sha256(results.identity(self.about(seed)).encode()).hexdigest()[:6]
        return f'{self.dataset.slug}_{self.policy.name.replace("@", "_")}_seed{seed}_{digest}'

    @property
    def title(self) -> str:
        """The name of the whole job and of the folder that it runs in."""
        first = self.name(self.seeds[0])
        return first if len(self.seeds) == 1 else f'{first}_to_seed{self.seeds[-1]}'

    def run_folder(self, seed: int) -> str:
        """Return the folder that a seed's run makes in that of the job."""
        return 'run' if len(self.seeds) == 1 else f'run_seed{seed}'

    @cached_property
    def critics(self) -> Job | None:
        """The job whose run has to be there before this one begins."""
        critics = self.policy.critics
        return critics and replace(self, policy=critics, budget=replace(
            self.budget, iterations=critics.iterations or self.budget.iterations
        ))


def make_jobs(
    datasets: Iterable[Dataset], policies: Sequence[PolicySpec], seeds: Sequence[int], budget: Budget,
    preset: str | None = None, replicas: bool = False,
) -> list[Job]:
    """Return all runs, seed by seed, so that early results compare all policies; jobs that give critics come first.
    What 'auto' stands for on a dataset runs once, also where it is named beside it. With ``replicas``, the seeds of
    each of this package's algorithms train at once."""
    jobs: dict[str, Job] = {}
    single = [(seed, ) for seed in seeds]
    for group in [tuple(seeds)] if replicas else single:
        for dataset, policy in product(datasets, policies):
            policy = policy.on(dataset)
            for part in [group] if policy.trains_replicas or not replicas else single:
                job = Job(dataset, policy, part, budget, preset)
                if job.critics:
                    jobs.setdefault(job.critics.title, job.critics)
                jobs.setdefault(job.title, job)
    return sorted(jobs.values(), key=lambda job: job.critics is not None)


def missing(jobs: Sequence[Job], finished: set[str]) -> list[Job]:
    """Return the jobs, or their seeds, that have no finished run among these identities."""
    left = [replace(job, seeds=tuple(seed for seed in job.seeds if results.identity(job.about(seed)) not in finished))
            for job in jobs]
    return [job for job in left if job.seeds]


def folder_of(out: Path, job: Job, seed: int) -> Path:
    """Return the folder of a finished run."""
    return out / 'runs' / job.name(seed)
