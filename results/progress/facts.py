"""What is known about a run before its state is judged: the facts in its folder, and the scheduler's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.runs.submissions import ArrayTask
from slurm.scheduler.parse import Job
from slurm.scheduler.queue import Answer


@dataclass(frozen=True)
class Facts:
    """The facts about a run that its folder and its submissions state.

    Attributes:
        error: Why it failed, or None.
        failed_at: Unix seconds of the failure.
        attempt: The record of its newest attempt; None if there was none.
        alive: Whether the attempt's process is alive, as far as it can be seen from here.
        silent: Seconds since the attempt's last sign of life, None if its process can be seen from here.
        checkpoint: Step of the newest checkpoint, None if there is none.
        tasks: The tasks that were submitted for it, newest first.
        submitted: Whether any run of its sweep was ever submitted.
        cancelled: Unix seconds at which `ham cancel` last cancelled its job, None if it never did.
    """

    error: str | None = None
    failed_at: float = 0.0
    attempt: Mapping[str, Any] | None = None
    alive: bool = False
    silent: float | None = None
    checkpoint: int | None = None
    tasks: Sequence[ArrayTask] = ()
    submitted: bool = False
    cancelled: float | None = None

    @property
    def open(self) -> bool:
        """Whether the attempt has not recorded its end."""
        return self.attempt is not None and "ended" not in self.attempt

    @property
    def job(self) -> str | None:
        """The job of the attempt, "1234_5"."""
        job = (self.attempt or {}).get("job")
        return None if job is None else str(job)

    @property
    def ids(self) -> list[str]:
        """Jobs that may have executed this run, newest first."""
        own = [] if self.job is None else [self.job]
        return list(dict.fromkeys([task.id for task in self.tasks if task.id] + own))


@dataclass(frozen=True)
class Known:
    """The scheduler's answers.

    Attributes:
        queue: Answer of squeue.
        history: Answer of sacct; empty as long as no job is missing from the queue.
    """

    queue: Answer = field(default_factory=Answer)
    history: Answer = field(default_factory=Answer)

    def jobs(self, facts: Facts) -> list[Job]:
        """Return the run's jobs that squeue lists, newest first."""
        submitted = (_of_task(self.queue, task) for task in facts.tasks)
        return [job for job in (*submitted, _own(self.queue, facts)) if job is not None]

    def past(self, facts: Facts) -> Job | None:
        """Return the run's newest job if it has ended; sacct takes precedence, since it says who cancelled a job."""
        for answer in (self.history, self.queue):
            job = _of_task(answer, facts.tasks[0]) if facts.tasks else _own(answer, facts)
            if job is not None and not job.active:
                return job
        return None


def _of_task(answer: Answer, task: ArrayTask) -> Job | None:
    return answer.task(task.array, task.index, task.name)


def _own(answer: Answer, facts: Facts) -> Job | None:
    """Return the job of the attempt, if it does not belong to a recorded submission."""
    if facts.job is None or facts.job in {task.id for task in facts.tasks}:
        return None
    return answer.jobs.get(facts.job)
