"""Sending of arrays to the scheduler: what was accepted is recorded at once, and nothing in the queue is forgotten."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from experiments.errors import SuiteError, UserError
from experiments.rundir.files import write_text

from . import sbatch, script
from .array import ArrayPlan, RunsOfJob
from .job.crashes import Limits
from .job.payload import JobPayload, JobRun
from .plan import Place
from .profile import Profile
from .records import SubmissionRecord
from .scheduler import cluster, queue


def send(arrays: Sequence[ArrayPlan], place: Place, chosen: Profile, record: SubmissionRecord) -> SuiteError | None:
    """Submit arrays one after the other, and halve those that a limit of the cluster refuses.

    Args:
        arrays: The arrays.
        place: Folders of the submission.
        chosen: The profile.
        record: The submission's record, which then says which arrays have been accepted.

    Returns:
        None, or why the remaining arrays have not been accepted.
    """
    waiting = list(arrays)
    while waiting:
        array = waiting[0]
        try:
            write_text(place.folder / f"{array.name}.rows", "".join(f"{title}\n" for title in array.titles))
            record.accepted(array.name, _send(array, place, chosen, record))
        except LimitReached as error:
            if len(array.tasks) == 1:
                return error
            first, second = array.halves()
            waiting = [first, second, *(one.behind(array.name, second.name) for one in waiting[1:])]
            record.planned(waiting)
            continue
        except SuiteError as error:
            return error
        except OSError:
            record.uncertain(array.name)
            raise
        del waiting[0]
    return None


class LimitReached(SuiteError):
    """The cluster has a limit on the number of submitted jobs, which this call would exceed."""


def _send(array: ArrayPlan, place: Place, chosen: Profile, record: SubmissionRecord) -> str:
    """Submit one array, repeatedly if the scheduler does not answer, and return its job number."""
    until = time.monotonic() + cluster.PATIENCE
    payloads = [_payload(task, array, place, chosen) for task in array.tasks]
    while True:
        try:
            python = script.command(place.python)
            return sbatch.call(place.folder, python, payloads, array.held(record.numbers))
        except sbatch.NotAccepted as error:
            said = str(error)
        while (problem := _withdraw(array.name)) is not None and time.monotonic() < until:
            time.sleep(1)
        if problem is not None:
            record.uncertain(array.name)
            text = f"sbatch was given up, since the scheduler has not answered for {cluster.PATIENCE:g} s"
            raise SuiteError(f"{text}: {said}; a job named {array.name} may have entered the queue all the same")
        if not cluster.silent(said):
            kind = LimitReached if _limit(said) else UserError
            raise kind(f"sbatch refused the job: {said}")
        if time.monotonic() > until:
            raise SuiteError(
                f"sbatch was given up, since the scheduler has not answered for {cluster.PATIENCE:g} s: {said}"
            )


def _limit(said: str) -> bool:
    """Return whether a refusal is about the number of submitted jobs, and not about time, size or a partition."""
    named = re.findall(r"(?:Assoc|QOS)\w+", said)
    return any("Submit" in name for name in named) if named else "job submit limit" in said.lower()


def _withdraw(name: str) -> str | None:
    """Cancel jobs that a call of sbatch without an answer may have left in the queue.

    A job that enters the queue even later finds no pickle and ends by itself.

    Returns:
        None, or the scheduler's message if it is not certain that no such job is left.
    """
    answer = queue.queue(names=[name], patience=5)
    active = [job.id for job in answer.jobs.values() if job.active]
    return answer.problem or queue.cancel(active, patience=5)


def _payload(task: RunsOfJob, array: ArrayPlan, place: Place, chosen: Profile) -> JobPayload:
    runs = tuple(JobRun(str(place.sweep / one.path), one.identity, one.spec.model_dump()) for one in task)
    staged_root = chosen.staging.root if chosen.staging else None
    limits = Limits(chosen.max_restarts, chosen.max_requeues)
    return JobPayload(runs, limits, array.gpus > 0, staged_root)
