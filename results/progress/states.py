"""The state of a run, as a pure function of the facts in its folder and of the scheduler's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from experiments.rundir.holder import LEASE, fault
from results.runs.submissions import ArrayTask
from slurm.scheduler.parse import Job
from slurm.scheduler.queue import Answer

State = Literal[
    "done",
    "running",
    "pending",
    "elsewhere",
    "unknown",
    "resumable",
    "failed",
    "lost",
    "not started",
    "never submitted",
]
STATES: tuple[State, ...] = State.__args__
UNDER_WAY: frozenset[State] = frozenset({"running", "pending", "elsewhere", "unknown"})
"""States of runs that may change without a further command."""

SUBMITTING = 90.0
"""Seconds after which a submission without a job number counts as never having reached the scheduler."""


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
    """

    error: str | None = None
    failed_at: float = 0.0
    attempt: Mapping[str, Any] | None = None
    alive: bool = False
    silent: float | None = None
    checkpoint: int | None = None
    tasks: Sequence[ArrayTask] = ()
    submitted: bool = False

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


class StateVerdict(NamedTuple):
    """A state, a note on it (such as why the run waits or failed), and the job that it is concluded from."""

    state: State
    note: str | None = None
    job: Job | None = None


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


def judge(facts: Facts, known: Known, now: float) -> StateVerdict:
    """Determine the state of an unfinished run.

    The process table and the queue take precedence over files. A run is never called lost if a process that cannot be
    checked may still hold it.

    Args:
        facts: The facts in the run's folder and its submissions.
        known: The scheduler's answers. They must be older than the facts; otherwise a run that ends in between would
            seem lost.
        now: Unix seconds.
    """
    if facts.open and facts.alive:
        return StateVerdict("running", None, next((job for job in known.jobs(facts) if job.running), None))
    active = next((job for job in known.jobs(facts) if job.active), None)
    if active is not None:
        return _queued(facts, active)
    asked = bool(facts.ids) or any(task.array is None for task in facts.tasks)
    silent = asked and known.queue.problem is not None
    if facts.error is not None and not (silent and _tried_since(facts)):
        return StateVerdict("failed", facts.error, known.past(facts))
    if silent:
        return StateVerdict("unknown")
    return _over(facts, known, now)


def _queued(facts: Facts, job: Job) -> StateVerdict:
    """Determine the state of a run whose job waits or runs."""
    attempt = facts.attempt or {}
    if job.pending:
        return StateVerdict("pending", job.reason or job.state, job)
    mine = attempt.get("job") in (job.id, job.raw) and attempt.get("restarts", 0) == job.restarts
    if mine and "ended" in attempt:
        if facts.error is not None:
            return StateVerdict("failed", facts.error, job)
        return StateVerdict("pending", "stopped; its job is about to end or to be requeued", job)
    packed = any(len(task.runs) > 1 and task.name == job.name for task in facts.tasks)
    if packed and not mine:
        return StateVerdict("pending", "waits for its turn in its job", job)
    return StateVerdict("running", None if mine else "starting", job)


def _over(facts: Facts, known: Known, now: float) -> StateVerdict:
    """Determine the state of a run without an error on which, as far as can be checked, no process works."""
    attempt = facts.attempt or {}
    if facts.open and facts.job is None and facts.silent is not None and facts.silent < LEASE:
        return StateVerdict("elsewhere", f"held by {_holder(attempt)}")
    past = known.past(facts)
    if facts.ids and not _local(facts):
        return StateVerdict("lost", str(past) if past is not None else _gone(known, bool(attempt)), past)
    if any(task.array is None for task in facts.tasks) and not attempt:
        task = facts.tasks[0]
        if now - task.time < SUBMITTING:
            return StateVerdict("pending", "is being submitted")
        return StateVerdict("never submitted", f"the scheduler knows no job named {task.name}")
    if facts.open or attempt.get("reason") == "crashed":
        return StateVerdict("lost", f"{_holder(attempt)} died")
    if facts.checkpoint is not None:
        return StateVerdict("resumable")
    return StateVerdict("never submitted" if facts.submitted else "not started")


def _holder(attempt: Mapping[str, Any]) -> str:
    if fault(attempt) is not None:
        return "a process whose claim is damaged"
    return f"process {attempt['pid']} on {attempt.get('host')}"


def _local(facts: Facts) -> bool:
    """Return whether the newest attempt was started without the scheduler, and after all submissions of the run."""
    attempt = facts.attempt or {}
    return bool(attempt) and facts.job is None and all(task.time <= attempt.get("time", 0.0) for task in facts.tasks)


def _gone(known: Known, begun: bool) -> str:
    text = "its job is gone from the queue"
    if known.history.problem is not None:
        return f"{text}; sacct: {known.history.problem}"
    # tasks of an array that are cancelled while they wait leave no record
    return f"{text}, and sacct does not know it" + ("" if begun else ", as if it was cancelled while it waited")


def _tried_since(facts: Facts) -> bool:
    """Return whether the run was submitted again after it failed."""
    return any(task.time > facts.failed_at for task in facts.tasks)
