"""What state a run is in: a pure judgement of what its folder and the scheduler say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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
"""States that may change by themselves."""

SUBMITTING = 90.0
"""Seconds after which a submission without a job number counts as one that never reached the scheduler."""


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
        error: Why it failed, or None.
        failed_at: Unix seconds of that.
        attempt: Its newest attempt, as the attempt's file states it; None if there was none.
        here: Whether that attempt was on this host.
        alive: Whether its process lives on this host.
        checkpoint: Step of the newest one, None if there is none.
        tasks: What was submitted of it, newest first.
        submitted: Whether anything of its sweep ever was.
    """

    error: str | None = None
    failed_at: float = 0.0
    attempt: Mapping[str, Any] | None = None
    here: bool = False
    alive: bool = False
    checkpoint: int | None = None
    tasks: Sequence[ArrayTask] = ()
    submitted: bool = False

    @property
    def open(self) -> bool:
        """Whether the attempt has not said that it is over."""
        return self.attempt is not None and "ended" not in self.attempt and "pid" in self.attempt

    @property
    def job(self) -> str | None:
        """The job of the attempt, "1234_5"."""
        job = (self.attempt or {}).get("job")
        return None if job is None else str(job)

    @property
    def ids(self) -> list[str]:
        """Jobs that may know of this run, newest first."""
        own = [] if self.job is None else [self.job]
        return list(dict.fromkeys([task.id for task in self.tasks if task.id] + own))


class StateVerdict(NamedTuple):
    """A state, a word on it (why it waits, why it failed), and the job it rests on."""

    state: State
    note: str | None = None
    job: Job | None = None


@dataclass(frozen=True)
class Known:
    """What the scheduler answered, by job and by name.

    Attributes:
        queue: Of squeue.
        history: Of sacct; empty until something is missing from the queue.
    """

    queue: Answer = field(default_factory=Answer)
    history: Answer = field(default_factory=Answer)

    def jobs(self, facts: Facts) -> list[Job]:
        """The run's jobs that squeue knows, newest first."""
        submitted = (_of_task(self.queue, task) for task in facts.tasks)
        return [job for job in (*submitted, _own(self.queue, facts)) if job is not None]

    def past(self, facts: Facts) -> Job | None:
        """How the run's newest job ended; sacct comes first, since it says who cancelled it."""
        for answer in (self.history, self.queue):
            job = _of_task(answer, facts.tasks[0]) if facts.tasks else _own(answer, facts)
            if job is not None and not job.active:
                return job
        return None


def _of_task(answer: Answer, task: ArrayTask) -> Job | None:
    return answer.task(task.array, task.index, task.name)


def _own(answer: Answer, facts: Facts) -> Job | None:
    """The job of the attempt, where it is of no submission that is on record."""
    if facts.job is None or facts.job in {task.id for task in facts.tasks}:
        return None
    return answer.jobs.get(facts.job)


def judge(facts: Facts, known: Known, now: float) -> StateVerdict:
    """Say in which state an unfinished run is.

    What the process table and the queue show comes before what files say; nothing is called lost that somebody who
    cannot be asked may still hold.

    Args:
        facts: What the run's folder and its submissions say.
        known: What the scheduler says; asked before the folder was read, or a run that ends between looks lost.
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
    """A run whose job waits or runs."""
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
    """A run without error that nobody who can be asked works on."""
    attempt = facts.attempt or {}
    if facts.open and not facts.here and facts.job is None:
        return StateVerdict(
            "elsewhere", f"held by process {attempt['pid']} on {attempt.get('host')}, which is not this host"
        )
    past = known.past(facts)
    if facts.ids and not _local(facts):
        return StateVerdict("lost", str(past) if past is not None else _gone(known, bool(attempt)), past)
    if any(task.array is None for task in facts.tasks) and not attempt:
        task = facts.tasks[0]
        if now - task.time < SUBMITTING:
            return StateVerdict("pending", "is being submitted")
        return StateVerdict("never submitted", f"the scheduler knows no job named {task.name}")
    if facts.open or attempt.get("reason") == "crashed":
        return StateVerdict("lost", f"process {attempt.get('pid')} on {attempt.get('host')} died")
    if facts.checkpoint is not None:
        return StateVerdict("resumable")
    return StateVerdict("never submitted" if facts.submitted else "not started")


def _local(facts: Facts) -> bool:
    """Whether the run was taken up without the scheduler after all that was submitted of it."""
    attempt = facts.attempt or {}
    return bool(attempt) and facts.job is None and all(task.time <= attempt.get("time", 0.0) for task in facts.tasks)


def _gone(known: Known, begun: bool) -> str:
    text = "its job is gone from the queue"
    if known.history.problem is not None:
        return f"{text}; sacct: {known.history.problem}"
    # what is cancelled while it waits in an array leaves no record
    return f"{text}, and sacct does not know it" + ("" if begun else ", as if it was cancelled while it waited")


def _tried_since(facts: Facts) -> bool:
    """Whether the run was submitted again after it failed."""
    return any(task.time > facts.failed_at for task in facts.tasks)
