"""The submissions of a sweep, from the records that each writes into the sweep's folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from experiments.rundir import names
from experiments.rundir.reading import Unreadable, read_object, typed

from .kinds import Cancellation, Submission

log = logging.getLogger("results")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class ArrayTask:
    """One task of a job array.

    Attributes:
        name: The array's job name, unique among all submissions.
        array: The array's job number; None if the scheduler's answer was never recorded.
        index: Number of the task within the array.
        runs: Folders of the runs that the task executes.
        logs: Folder of its output.
        time: Unix seconds of the submission.
        alone: Whether it is the only task of its array; the scheduler may then list it without "_0".
    """

    name: str
    array: str | None
    index: int
    runs: tuple[Path, ...]
    logs: Path
    time: float
    alone: bool

    @property
    def id(self) -> str | None:
        """The job as the scheduler prints it, "1234_5"."""
        return None if self.array is None else f"{self.array}_{self.index}"


@dataclass(frozen=True)
class Submissions:
    """All submissions of a sweep.

    Attributes:
        home: The sweep's folder.
        tasks: All tasks, those of the newest submission first.
        cancelled: Unix seconds of the newest cancellation of each run whose job was cancelled.
    """

    home: Path
    tasks: tuple[ArrayTask, ...] = ()
    cancelled: Mapping[Path, float] = field(default_factory=dict)

    @cached_property
    def by_run(self) -> Mapping[Path, list[ArrayTask]]:
        """The tasks of each run folder, newest first."""
        found: dict[Path, list[ArrayTask]] = {}
        for task in self.tasks:
            for run in task.runs:
                found.setdefault(run, []).append(task)
        return found


def submissions(directory: Path) -> Submissions:
    """Read the submissions of a sweep; for a single run, those of the sweep it belongs to.

    A record that cannot be read is reported and left out.

    Args:
        directory: The folder of the sweep or run.
    """
    home = directory.parent if (directory / names.SPEC).is_file() else directory
    folder = home / names.SUBMISSIONS
    tasks = [task for record in _records(folder, Submission) for task in _tasks(home, record)]
    cancelled: dict[Path, float] = {}
    for record in _records(folder / names.CANCELLED, Cancellation):
        for run in record.runs:
            cancelled[home / run] = max(record.time, cancelled.get(home / run, 0.0))
    return Submissions(home, tuple(sorted(tasks, key=lambda task: (-task.time, task.name, task.index))), cancelled)


def _records(folder: Path, kind: type[M]) -> Iterator[M]:
    for path in folder.glob("*.json"):
        try:
            yield typed(kind, read_object(path))
        except (FileNotFoundError, Unreadable) as error:
            log.warning("%s: %s; left out", path, error)


def _tasks(home: Path, record: Submission) -> Iterator[ArrayTask]:
    for array in record.arrays:
        for index, runs in enumerate(array.tasks):
            yield ArrayTask(
                name=array.name,
                array=None if array.job is None else str(array.job),
                index=index,
                runs=tuple(home / run for run in runs),
                logs=home / names.SUBMISSIONS / record.id,
                time=record.time,
                alone=len(array.tasks) == 1,
            )
