"""Queries of the scheduler by squeue and sacct, and cancellation by scancel, each with a bounded wait.

A scheduler that is absent or does not answer raises no error: `Answer.problem` holds the message.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .environment import clean
from .parse import HISTORY_FIELDS, QUEUE_FIELDS, Job, fold, parse_history, parse_queue

PATIENCE = 15.0
"""Seconds that `queue` waits for an answer: longer than a restart of slurmctld and than squeue's own ten seconds."""
HISTORY_PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """The scheduler's answer to a query.

    Attributes:
        jobs: Jobs by `Job.id`.
        problem: None if it answered; otherwise its error message, or that it did not answer.
        absent: Whether its commands are not installed here.
    """

    jobs: Mapping[str, Job] = field(default_factory=dict)
    problem: str | None = None
    absent: bool = False

    @cached_property
    def _named(self) -> Mapping[tuple[str, str], Job]:
        return {(job.name, job.id.partition("_")[2]): job for job in self.jobs.values()}

    def task(self, array: str | None, index: int, name: str) -> Job | None:
        """Return the job of one task of an array, or None; a job that is not an array is its own task 0.

        Args:
            array: Number of the array; None finds it by its name alone, which must then be unique.
            index: Number of the task.
            name: The array's name. A job with this number but another name is a different job, since a cluster that is
                set up anew reuses numbers.
        """
        if array is None:
            return self._named.get((name, str(index))) or (self._named.get((name, "")) if index == 0 else None)
        job = self.jobs.get(f"{array}_{index}") or (self.jobs.get(array) if index == 0 else None)
        return job if job is not None and job.name == name else None


def queue(ids: Iterable[str] = (), names: Iterable[str] = (), patience: float = PATIENCE) -> Answer:
    """Query squeue for jobs that wait, run, or ended within the last minutes (Slurm's MinJobAge).

    Args:
        ids: Jobs, arrays or tasks; for a task, its whole array is returned.
        names: Names of jobs, queried in a separate call.
        patience: Seconds to wait in total; a query that fails earlier is repeated within this time.
    """
    until = time.monotonic() + patience
    arrays = sorted({name.partition("_")[0] for name in ids})
    selections = [["-j", ",".join(arrays)]] if arrays else []
    selections += [["--name", ",".join(sorted(set(names)))]] if names else []
    form = ",".join(f"{name}:{width}" for name, width in QUEUE_FIELDS.items())
    jobs: dict[str, Job] = {}
    for selection in selections:
        output, problem = _ask(["squeue", "-h", "-r", "-t", "all", *selection, "-O", form], until, again=True)
        if problem and "invalid job id" in problem.lower():  # a single job that ended long ago
            continue
        if problem:
            return Answer(problem=problem, absent=shutil.which("squeue") is None)
        jobs |= parse_queue(output)
    return Answer(jobs)


def history(
    ids: Iterable[str] = (), names: Iterable[str] = (), since: float = 0.0, patience: float = HISTORY_PATIENCE
) -> Answer:
    """Query sacct for jobs that squeue no longer knows; without accounting, the answer has a problem.

    Args:
        ids: Jobs, arrays or tasks; for a task, its whole array is returned.
        names: Names of jobs, queried in a separate call.
        since: Unix seconds; jobs found by name that ended earlier are left out.
        patience: Seconds to wait in total.
    """
    until = time.monotonic() + patience
    arrays = sorted({name.partition("_")[0] for name in ids})
    start = ["-S", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))]
    selections = [["-j", ",".join(arrays)]] if arrays else []
    selections += [["--name", ",".join(sorted(set(names))), *start]] if names else []
    jobs: dict[str, Job] = {}
    for selection in selections:
        output, problem = _ask(["sacct", "-n", "-P", "-X", *selection, "-o", ",".join(HISTORY_FIELDS)], until)
        if problem:
            return Answer(problem=problem, absent=shutil.which("sacct") is None)
        jobs |= parse_history(output)
    return Answer(jobs)


def is_running(job: str, restarts: int) -> bool | None:
    """Return whether a start of a job is still running, or None if the scheduler does not answer or not know the job.

    Args:
        job: The scheduler's internal number of the job, ``SLURM_JOB_ID`` (not "1234_5").
        restarts: ``SLURM_RESTART_COUNT`` of that start.
    """
    answer = queue([job])
    if answer.problem is not None:
        return None
    found = [one for one in answer.jobs.values() if one.raw == job]
    return any(one.running and one.restarts == restarts for one in found) if found else None


def cancel(ids: Iterable[str], patience: float = PATIENCE) -> str | None:
    """Cancel jobs, arrays or tasks of arrays; those that have ended are not affected.

    Returns:
        None, or the scheduler's error message.
    """
    folded = fold(ids)
    return _ask(["scancel", *folded], time.monotonic() + patience)[1] if folded else None


def _ask(command: list[str], until: float, again: bool = False) -> tuple[str, str | None]:
    """Run a command of Slurm and return its output and None, or an empty text and an error message."""
    said = f"{command[0]} did not answer within {max(0.0, until - time.monotonic()):.0f} s"
    env = {**clean(), "SLURM_TIME_FORMAT": "%s"}
    while True:
        try:
            left = max(0.1, until - time.monotonic())
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=left, env=env)
        except FileNotFoundError:
            return "", f"there is no {command[0]} on this machine"
        except subprocess.TimeoutExpired:
            return "", said
        except OSError as error:
            return "", f"{command[0]} cannot be run: {error.strerror}"
        if done.returncode == 0:
            return done.stdout, None
        said = " ".join((done.stderr or done.stdout).split()) or f"{command[0]} ended with code {done.returncode}"
        said = said.removeprefix("slurm_load_jobs error: ").removeprefix("scancel: error: ")
        before, fatal, last = said.partition(" fatal: ")  # a machine with Slurm's programs but no configuration
        said = last or before
        if not again or fatal or "invalid" in said.lower() or time.monotonic() + 1 > until:
            return "", said
        time.sleep(1)
