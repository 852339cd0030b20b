"""Planning of job arrays from runs and a profile, as a pure function of its arguments.

Runs that request the same nodes, ranks and time share arrays; an array holds at most `MaxArraySize` jobs.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.sweep import Cell
from experiments.errors import UserError

from .profile import Profile
from .script import EVERYTHING, command, setup

RunsOfJob = tuple[Cell, ...]
"""The runs of one job."""


@dataclass(frozen=True, order=True)
class Resources:
    """The resources that one job requests.

    Attributes:
        nodes: Number of nodes.
        ranks_per_node: Number of ranks per node.
        minutes: Time limit in minutes.
    """

    nodes: int
    ranks_per_node: int
    minutes: int


@dataclass(frozen=True)
class Place:
    """The folders of a submission, on a file system that all nodes share.

    Attributes:
        folder: Folder of the submission, for pickles, batch scripts and logs.
        sweep: Folder of the sweep, which messages of the job name.
        snapshot: Folder of the code that the jobs run.
        python: Command that starts Python in a job.
    """

    folder: Path
    sweep: Path
    snapshot: Path
    python: str


@dataclass(frozen=True)
class ArrayPlan:
    """One job array, submitted by one call of sbatch.

    Attributes:
        name: Unique name of the job.
        tasks: The runs of each job of the array.
        resources: Resources of one job.
        gpus: Number of GPUs of one job.
        parameters: Parameters of submitit's `SlurmExecutor`.
    """

    name: str
    tasks: tuple[RunsOfJob, ...] = field(repr=False)
    resources: Resources
    gpus: int
    parameters: dict[str, Any] = field(repr=False)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(len(task) for task in self.tasks)

    @property
    def gpu_hours(self) -> float:
        """GPUs × time limit × jobs: the request, and an upper bound of what these jobs use until their time limit."""
        return self.gpus * self.resources.minutes / 60 * len(self.tasks)


def plan(cells: Sequence[Cell], profile: Profile, place: Place, *, name: str, array_size: int) -> list[ArrayPlan]:
    """Arrange runs in job arrays.

    Args:
        cells: The runs in table order, which is kept among runs with equal resources.
        profile: Profile of the cluster.
        place: Folders of the submission.
        name: Prefix of the jobs' names.
        array_size: The scheduler's `MaxArraySize`, the largest number of jobs per array.
    """
    classes: dict[Resources, list[Cell]] = {}
    for cell in cells:
        classes.setdefault(_resources(cell, profile), []).append(cell)
    arrays: list[tuple[Resources, tuple[RunsOfJob, ...]]] = []
    for resources, group in classes.items():
        alone = resources.nodes * resources.ranks_per_node == 1
        tasks = [tuple(task) for task in _chunks(group, profile.runs_per_job if alone else 1)]
        arrays += [(resources, tuple(part)) for part in _chunks(tasks, max(1, array_size))]
    return [
        ArrayPlan(
            name=f"{name}-{number}",
            tasks=tasks,
            resources=resources,
            gpus=resources.nodes * resources.ranks_per_node * profile.gpus_per_rank,
            parameters=_parameters(f"{name}-{number}", len(tasks), resources, profile, place),
        )
        for number, (resources, tasks) in enumerate(arrays)
    ]


def script(array: ArrayPlan, place: Place) -> str:
    """Return the batch script that submitit passes to sbatch for an array."""
    from submitit.slurm.slurm import _make_sbatch_string

    count = len(array.tasks) if len(array.tasks) > 1 else None  # submitit makes no array of a single job
    start = f"{command(place.python)} -u -m submitit.core._submit {shlex.quote(str(place.folder))}"
    return _make_sbatch_string(start, place.folder, map_count=count, **array.parameters)


def _resources(cell: Cell, profile: Profile) -> Resources:
    asked = cell.spec.resources
    minutes = math.ceil((asked.hours or profile.hours) * 60)
    if 60 * minutes <= profile.signal_seconds:
        raise UserError(
            f"{minutes} min are not longer than signal_seconds, {profile.signal_seconds} s: a job would be told to end "
            "as it begins; write more hours, or fewer seconds in the profile",
            where="resources.hours" if asked.hours else "hours of the profile",
        )
    return Resources(asked.nodes or profile.nodes, asked.ranks_per_node or profile.ranks_per_node, minutes)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _parameters(name: str, jobs: int, resources: Resources, profile: Profile, place: Place) -> dict[str, Any]:
    ranks = resources.ranks_per_node
    further: dict[str, Any] = {"requeue" if profile.requeue else "no-requeue": True}
    if profile.reservation is not None:
        further["reservation"] = profile.reservation
    parameters: dict[str, Any] = {
        "job_name": name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": ranks,
        "cpus_per_task": profile.cpus_per_rank,
        "signal_delay_s": profile.signal_seconds,
        "array_parallelism": profile.max_running or jobs,
        "wckey": None,  # submitit's default would be refused on clusters that register keys
        "setup": setup(profile, place.snapshot, place.folder, place.sweep),
        "srun_args": _srun_args(profile),
        "additional_parameters": {**further, **profile.sbatch},
    }
    if profile.gpus_per_rank:
        # per node, not per task: ranks of a node must see each other's GPUs, which NCCL needs
        parameters["gpus_per_node"] = f"{profile.gpu_type}:{ranks}" if profile.gpu_type else ranks
    if profile.mem_per_rank_gb is not None:
        parameters["mem"] = f"{math.ceil(profile.mem_per_rank_gb * 1024 * ranks)}M"
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def _srun_args(profile: Profile) -> list[str]:
    arguments = [EVERYTHING, "--kill-on-bad-exit=1"]
    if profile.cpus_per_rank is not None:
        arguments.append(f"--cpus-per-task={profile.cpus_per_rank}")  # since 22.05, srun does not inherit it
    return arguments + profile.srun_args
