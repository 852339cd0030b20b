"""Take jobs of a sweep out of the queue."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import SuiteError
from experiments.rundir.attempts import newest
from results.runs.submissions import Submissions

from .scheduler import queue
from .scheduler.parse import Job, fold


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled.

    Attributes:
        jobs: The jobs as they stood before.
        runs: Run folders that they worked on or waited for.
        others: Of these, the ones that were not asked for: they shared a job with one that was.
    """

    jobs: tuple[Job, ...]
    runs: tuple[Path, ...]
    others: tuple[Path, ...]

    def __str__(self) -> str:
        """What a person wants to read."""
        if not self.jobs:
            return "nothing to cancel: no job of these runs waits or runs"
        running = sum(job.running for job in self.jobs)
        text = (
            f"cancelled {len(self.jobs)} job{'s' * (len(self.jobs) > 1)} of {len(self.runs)} "
            f"run{'s' * (len(self.runs) > 1)}: {' '.join(fold(job.id for job in self.jobs))}"
        )
        text += f"; {running} that ran stop{'s' * (running == 1)} at a checkpoint" if running else ""
        also = f"\nalso stopped, since they shared a job: {', '.join(path.name for path in self.others)}"
        return text + (also if self.others else "")


def cancel(submitted: Submissions, paths: Collection[Path]) -> Cancelled:
    """Cancel what waits or runs of some runs.

    Args:
        submitted: The sweep's submissions.
        paths: The run folders.

    Raises:
        SuiteError: if the scheduler does not answer or objects; with its words.
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
    if jobs and (problem := queue.cancel(jobs)) is not None:
        raise SuiteError(f"not all was cancelled; the scheduler says: {problem}")
    return Cancelled(tuple(jobs.values()), tuple(sorted(runs)), tuple(sorted(runs - set(paths))))
