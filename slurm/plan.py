"""Planning of job arrays from runs and a profile, as a pure function of its arguments.

Runs that request the same resources share arrays; an array holds at most `MaxArraySize` jobs.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from experiments.config.sweep import Cell
from experiments.errors import UserError

from . import sbatch
from .array import ArrayPlan, Resources, RunsOfJob, rows
from .profile import Profile
from .script import EVERYTHING, command, setup
from .snapshot import verification


@dataclass(frozen=True)
class Place:
    """The folders of a submission, on a file system that all nodes share.

    Attributes:
        folder: Folder of the submission, for pickles, batch scripts and logs.
        sweep: Folder of the sweep, which messages of the job name.
        snapshot: Folder of the code that the jobs run.
        python: Command that starts Python in a job.
        home: Working directory of the jobs, the one of the sweep's first submission: what a profile's commands name by
            relative paths lies there, wherever a later submission is made.
    """

    folder: Path
    sweep: Path
    snapshot: Path
    python: str
    home: Path


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
        classes.setdefault(resources_of(cell, profile), []).append(cell)
    arrays: list[tuple[Resources, tuple[RunsOfJob, ...]]] = []
    for resources, group in classes.items():
        tasks = [tuple(task) for task in _chunks(group, profile.runs_per_job if resources.ranks == 1 else 1)]
        arrays += [(resources, tuple(part)) for part in _chunks(tasks, max(1, array_size))]
    return [
        ArrayPlan(
            name=f"{name}-{number}",
            tasks=tasks,
            resources=resources,
            gpus=resources.ranks * profile.gpus_per_rank,
            parameters=_parameters(f"{name}-{number}", tasks, resources, profile, place),
        )
        for number, (resources, tasks) in enumerate(arrays)
    ]


def script(array: ArrayPlan, place: Place) -> str:
    """Return the batch script that is passed to sbatch for an array, with names for jobs that have no number yet."""
    return sbatch.text(place.folder, command(place.python), len(array.tasks), array.held({}))


def resources_of(cell: Cell, profile: Profile) -> Resources:
    """Return what the job of a run requests.

    Raises:
        UserError: if its time limit is not longer than the warning before it.
    """
    own = cell.spec.resources
    asked = {key: getattr(own, key) if getattr(own, key) is not None else getattr(profile, key) for key in _BY_RUN}
    minutes = math.ceil((own.hours or profile.hours) * 60)
    if 60 * minutes <= profile.signal_seconds:
        raise UserError(
            f"{minutes} min are not longer than signal_seconds, {profile.signal_seconds} s: a job would be told to end "
            "as it begins; write more hours, or fewer seconds in the profile",
            where="resources.hours" if own.hours else "hours of the profile",
        )
    return Resources(minutes=minutes, **asked)


_BY_RUN = [one.name for one in fields(Resources) if one.name != "minutes"]


def _named(place: Place) -> str:
    """Return the line that makes the queue show a job's own row while it runs, and not those of all its array."""
    job = '"${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"'
    rows = f'{shlex.quote(str(place.folder))}/"$SLURM_JOB_NAME.rows"'
    row = f'"$(sed -n "$((${{SLURM_ARRAY_TASK_ID:-0}} + 1))p" {rows})"'
    return f"timeout 10 scontrol update jobid={job} comment={row} > /dev/null 2>&1 || true"


def _verified(place: Place) -> str:
    """Return the line that ends a job whose code is not the one it was submitted with, before anything is imported."""
    way_out = f"ham status {shlex.quote(str(place.sweep))} --resubmit lost"
    text = f"the code of this job, {place.snapshot}, was changed or removed; to go on with the present code: {way_out}"
    return f"{verification(place.snapshot)} || {{ echo {shlex.quote(text)} >&2; exit 1; }}"


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _parameters(
    name: str, tasks: Sequence[RunsOfJob], resources: Resources, profile: Profile, place: Place
) -> dict[str, Any]:
    ranks = resources.ranks_per_node
    further: dict[str, Any] = {"requeue" if profile.requeue else "no-requeue": True, "chdir": str(place.home)}
    named = [] if "comment" in profile.sbatch else [_named(place)]  # a comment of the user's stays
    if profile.reservation is not None:
        further["reservation"] = profile.reservation
    parameters: dict[str, Any] = {
        "job_name": name,
        "comment": rows(tasks),
        "partition": resources.partition,
        "account": profile.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": ranks,
        "cpus_per_task": resources.cpus_per_rank,
        "signal_delay_s": profile.signal_seconds,
        "wckey": None,  # submitit's default would be refused on clusters that register keys
        "setup": [_verified(place), *named, *setup(profile, place.snapshot, place.folder, place.sweep)],
        "srun_args": _srun_args(resources, profile),
        "additional_parameters": {**further, **profile.sbatch},
    }
    if profile.gpus_per_rank:
        # per node, not per task: ranks of a node must see each other's GPUs, which NCCL needs
        parameters["gpus_per_node"] = f"{resources.gpu_type}:{ranks}" if resources.gpu_type else ranks
    if resources.mem_per_rank_gb is not None:
        parameters["mem"] = f"{math.ceil(resources.mem_per_rank_gb * 1024 * ranks)}M"
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def _srun_args(resources: Resources, profile: Profile) -> list[str]:
    arguments = [EVERYTHING, "--kill-on-bad-exit=1"]
    if resources.cpus_per_rank is not None:
        arguments.append(f"--cpus-per-task={resources.cpus_per_rank}")  # since 22.05, srun does not inherit it
    return arguments + profile.srun_args
