"""Cancellation of a sweep's jobs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import SuiteError
from experiments.rundir import names
from experiments.rundir.attempts import newest
from experiments.rundir.files import write_json
from results.runs.submissions import Submissions

from . import records
from .scheduler import queue
from .scheduler.parse import Job, fold


@dataclass(frozen=True)
class Cancelled:
    """The cancelled jobs and runs.

    Attributes:
        jobs: The jobs, in their state before.
        runs: Directories of the runs of these jobs.
        others: Those of them that were not requested, but shared a job with one that was.
    """

    jobs: tuple[Job, ...]
    runs: tuple[Path, ...]
    others: tuple[Path, ...]

    def __str__(self) -> str:
        """Return the message for the user."""
        if not self.jobs:
            return "nothing to cancel: no job of these runs waits or runs"
        jobs = "1 job" if len(self.jobs) == 1 else f"{len(self.jobs)} jobs"
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        text = f"cancelled {jobs} of {runs}: {' '.join(fold(job.id for job in self.jobs))}"
        running = sum(job.running for job in self.jobs)
        if running:
            stop = "stops" if running == 1 else "stop"
            text += f"; {running} that ran {stop} at a checkpoint"
        if self.others:
            text += f"\nalso stopped, since they shared a job: {', '.join(path.name for path in self.others)}"
        return text


@contextmanager
def settled(home: Path) -> Iterator[None]:
    """Let no command submit runs of a sweep meanwhile: it would send those that it has not sent yet.

    Args:
        home: The sweep's folder.

    Raises:
        Busy: if a command is submitting for longer than `records.PATIENCE`.
    """
    if not (home / names.SUBMISSIONS).is_dir():
        yield
        return
    with records.alone(home):
        yield


def cancel(submitted: Submissions, paths: Collection[Path]) -> Cancelled:
    """Cancel the waiting and running jobs of some runs.

    A record of it stays, since a scheduler without accounting forgets within minutes what was cancelled.

    Args:
        submitted: The sweep's submissions.
        paths: The run directories.

    Raises:
        SuiteError: if the scheduler does not answer or refuses; the error quotes it.
    """
    tasks = {task for path in paths for task in submitted.by_run.get(path, ())}
    begun = {path: str(job) for path in paths if (job := (newest(path) or {}).get("job")) is not None}
    ids = {task.array for task in tasks if task.array is not None} | set(begun.values())
    answer = queue.queue(ids, {task.name for task in tasks if task.array is None})
    if answer.problem is not None:
        raise SuiteError(f"nothing was cancelled; the scheduler says: {answer.problem}")
    jobs: dict[str, Job] = {}
    runs: set[Path] = set()
    for task in tasks:
        job = answer.task(task.array, task.index, task.name)
        if job is not None and job.active:
            jobs[job.id] = job
            runs.update(task.runs)
    of_submissions = {task.id for task in tasks}
    for path, name in begun.items():
        job = answer.jobs.get(name)
        if name not in of_submissions and job is not None and job.active:
            jobs[job.id] = job
            runs.add(path)
    if jobs:
        _cancel(submitted.home, jobs, runs)
    return Cancelled(tuple(jobs.values()), tuple(sorted(runs)), tuple(sorted(runs - set(paths))))


def _cancel(home: Path, jobs: Collection[str], runs: Collection[Path]) -> None:
    folder, now = home / names.SUBMISSIONS / names.CANCELLED, time.time()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{now:.0f}-{secrets.token_hex(4)}.json"
    # before the call: whoever is killed in between finds runs that continue, or runs that are known to be cancelled
    write_json(record, {"time": now, "jobs": sorted(jobs), "runs": sorted(str(run.relative_to(home)) for run in runs)})
    if (problem := queue.cancel(jobs)) is not None:
        record.unlink(missing_ok=True)
        raise SuiteError(f"not all was cancelled; the scheduler says: {problem}")
