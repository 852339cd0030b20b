"""The state of a run, as a pure function of the facts in its folder and of the scheduler's answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from experiments.rundir.holder import LEASE, fault
from slurm.scheduler import words
from slurm.scheduler.parse import Job

from .facts import Facts, Known

State = Literal[
    "done",
    "running",
    "suspended",
    "completing",
    "pending",
    "held",
    "elsewhere",
    "unknown",
    "resumable",
    "failed",
    "lost",
    "cancelled",
    "not started",
    "never submitted",
]
STATES: tuple[State, ...] = State.__args__
UNDER_WAY: frozenset[State] = frozenset(
    {"running", "suspended", "completing", "pending", "held", "elsewhere", "unknown"}
)
"""States of runs on which a process works or may work, or whose job is not over."""

BAD: frozenset[State] = frozenset({"failed", "lost", "never submitted"})
"""States of runs that nobody wanted and that only a command or a look at the run changes."""

SUBMITTING = 90.0
"""Seconds after which a submission without a job number counts as never having reached the scheduler."""


class StateVerdict(NamedTuple):
    """A state, a note on it (such as why the run waits or failed), and the job that it is concluded from."""

    state: State
    note: str | None = None
    job: Job | None = None


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
    jobs = known.jobs(facts)
    if facts.open and facts.alive:
        job = next((job for job in jobs if job.running), None)
        return (_stopping(facts, job) if job is not None else None) or StateVerdict("running", None, job)
    active = next((job for job in jobs if job.active), None)
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
    if words.is_held(job):
        return StateVerdict("held", words.waiting(job), job)
    if not job.running or words.is_readied(job):
        return StateVerdict("pending", words.waiting(job), job)
    mine = attempt.get("job") in (job.id, job.raw) and attempt.get("restarts", 0) == job.restarts
    over = mine and "ended" in attempt
    if over and facts.error is not None:
        return StateVerdict("failed", facts.error, job)
    if over:
        return _stopping(facts, job) or StateVerdict("completing", f"stopped{_cancelled_too(facts)}; {_ENDS}", job)
    if (stopping := _stopping(facts, job)) is not None:
        return stopping
    packed = any(len(task.runs) > 1 and task.name == job.name for task in facts.tasks)
    if packed and not mine:
        return StateVerdict("pending", "waits for its turn in its job", job)
    return StateVerdict("running", None if mine else "starting", job)


_ENDS = "its job is about to end or to be requeued"


def _stopping(facts: Facts, job: Job) -> StateVerdict | None:
    """Return the state of a run whose job has nodes, but stands still or is ending; None if it simply runs."""
    if words.is_suspended(job):
        return StateVerdict("suspended", words.waiting(job), job)
    if words.is_ending(job):
        return StateVerdict("completing", f"{words.waiting(job)}{_cancelled_too(facts)}", job)
    return None


def _cancelled_too(facts: Facts) -> str:
    return ", cancelled" if was_cancelled(facts) else ""


def was_cancelled(facts: Facts) -> bool:
    """Return whether `ham cancel` cancelled the newest submission of a run, and it was not started elsewhere since."""
    since, attempt = facts.cancelled, facts.attempt or {}
    if since is None or any(task.time > since for task in facts.tasks):
        return False
    of_task = facts.job is not None and facts.job in {task.id for task in facts.tasks}
    return of_task or attempt.get("time", 0.0) <= since


def _over(facts: Facts, known: Known, now: float) -> StateVerdict:
    """Determine the state of a run without an error on which, as far as can be checked, no process works."""
    attempt = facts.attempt or {}
    if facts.open and facts.job is None and facts.silent is not None and facts.silent < LEASE:
        return StateVerdict("elsewhere", f"held by {_holder(attempt)}")
    past = known.past(facts)
    if not _local(facts):
        if was_cancelled(facts) or (past is not None and past.state == "CANCELLED"):
            return StateVerdict("cancelled", _by_whom(facts, past), past)
        if facts.ids or past is not None:
            return StateVerdict("lost", words.ended(past) if past is not None else _gone(known, bool(attempt)), past)
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


def _by_whom(facts: Facts, past: Job | None) -> str:
    """Say who cancelled a job: what sacct says, or the record that `ham cancel` left."""
    if past is not None and past.state == "CANCELLED" and (past.reason.startswith("by ") or not was_cancelled(facts)):
        return str(past)  # squeue's reason may still be why it once waited
    return f"CANCELLED by `ham cancel`, {minute(facts.cancelled)}"


def minute(at: float | None) -> str:
    """Write a time, in unix seconds, as notes do."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


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
