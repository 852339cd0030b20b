"""What one call of sbatch asks for: jobs of equal resources, how many may run at once, and after which others."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.config.grid import at
from experiments.config.sweep import Cell

RunsOfJob = tuple[Cell, ...]
"""The runs of one job."""


@dataclass(frozen=True)
class Resources:
    """The resources that one job requests: those of the run's configuration, or else of the profile.

    Attributes:
        nodes: Number of nodes.
        ranks_per_node: Number of ranks per node.
        minutes: Time limit in minutes.
        partition: Partition, or None for the cluster's default; likewise for the next three.
        qos: Quality of service.
        constraint: Features that a node must have.
        gpu_type: GPU type as the scheduler names it.
        cpus_per_rank: CPUs per rank.
        mem_per_rank_gb: Memory per rank in GiB.
    """

    nodes: int
    ranks_per_node: int
    minutes: int
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_type: str | None = None
    cpus_per_rank: int | None = None
    mem_per_rank_gb: float | None = None

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return self.nodes * self.ranks_per_node

    def __str__(self) -> str:
        """Return the request in words."""
        named = [self.partition, self.qos and f"QOS {self.qos}", self.constraint, self.gpu_type]
        named += [self.cpus_per_rank and f"{self.cpus_per_rank} CPUs a rank"]
        named += [self.mem_per_rank_gb and f"{self.mem_per_rank_gb:g} GiB a rank"]
        words = [f"{self.nodes} × {self.ranks_per_node} ranks", *filter(None, named)]
        return f"{', '.join(words)} and {self.minutes} minutes"


@dataclass(frozen=True)
class ArrayPlan:
    """One job array, submitted by one call of sbatch.

    Attributes:
        name: Unique name of the job.
        tasks: The runs of each job of the array.
        resources: Resources of one job.
        gpus: Number of GPUs of one job.
        parameters: Parameters of submitit's `SlurmExecutor`, without those that `held` adds.
        width: How many of its jobs may run at the same time; None: all.
        after: Arrays, by name or job number, whose jobs must have ended before one of these begins.
    """

    name: str
    tasks: tuple[RunsOfJob, ...] = field(repr=False)
    resources: Resources
    gpus: int
    parameters: dict[str, Any] = field(repr=False)
    width: int | None = None
    after: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(len(task) for task in self.tasks)

    @property
    def gpu_hours(self) -> float:
        """GPUs × time limit × jobs: the request, and an upper bound of what these jobs use until their time limit."""
        return self.gpus * self.resources.minutes / 60 * len(self.tasks)

    @property
    def titles(self) -> list[str]:
        """What each job does, in words for `squeue`: the rows and seeds of its runs."""
        return [", ".join(f"{one.row}{at(one.column)} s{one.seed}" for one in task) for task in self.tasks]

    def held(self, numbers: Mapping[str, str]) -> dict[str, Any]:
        """Return the parameters of the call, with the throttle and the jobs to wait for.

        Args:
            numbers: Job numbers of arrays that have been submitted, by name.
        """
        parameters = {**self.parameters, "array_parallelism": self.width or len(self.tasks)}
        if self.after:
            ours = "afterany:" + ":".join(numbers.get(name, name) for name in self.after)
            further = dict(parameters["additional_parameters"])
            further["dependency"] = ",".join(filter(None, [further.get("dependency"), ours]))
            parameters["additional_parameters"] = further
        return parameters

    def halves(self) -> tuple[ArrayPlan, ArrayPlan]:
        """Return two arrays instead of this one; if it has a throttle, the second waits for the first."""
        middle = len(self.tasks) // 2
        first, second = (
            replace(
                self, name=f"{self.name}{part}", tasks=tasks, parameters=_renamed(self, f"{self.name}{part}", tasks)
            )
            for part, tasks in (("a", self.tasks[:middle]), ("b", self.tasks[middle:]))
        )
        return first, replace(second, after=(first.name,)) if self.width is not None else second

    def behind(self, name: str, other: str) -> ArrayPlan:
        """Return this array, waiting for another one in place of the one with some name."""
        return replace(self, after=tuple(other if one == name else one for one in self.after))


def _renamed(array: ArrayPlan, name: str, tasks: Sequence[RunsOfJob]) -> dict[str, Any]:
    return {**array.parameters, "job_name": name, "comment": rows(tasks)}


def rows(tasks: Sequence[RunsOfJob]) -> str:
    """Return the rows of some jobs in one line, without what would end a quotation in a batch script."""
    text = ", ".join(dict.fromkeys(one.row for task in tasks for one in task))
    return textwrap.shorten(text.translate(_NO_QUOTES), 120, placeholder=" ...")


_NO_QUOTES = str.maketrans(dict.fromkeys("'\"\\", " "))
