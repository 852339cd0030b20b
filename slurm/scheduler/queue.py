"""What the scheduler knows: squeue, sacct and scancel, each with a bounded wait.

An absent or silent scheduler is an answer like others: `Answer.problem` says what it said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .parse import HISTORY_FIELDS, QUEUE_FIELDS, Job, fold, parse_history, parse_queue

PATIENCE = 15.0
"""Seconds that `queue` waits for an answer: longer than a restart of slurmctld and than squeue's own ten."""
HISTORY_PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """What the scheduler answered.

    Attributes:
        jobs: Jobs by `Job.id`.
        problem: None if it answered; else what it said, or that it said nothing.
        absent: Whether its commands are not installed here.
    """

    jobs: Mapping[str, Job] = field(default_factory=dict)
    problem: str | None = None
    absent: bool = False

    @cached_property
    def _named(self) -> Mapping[tuple[str, str], Job]:
        return {(job.name, job.id.partition("_")[2]): job for job in self.jobs.values()}

    def task(self, array: str | None, index: int, name: str) -> Job | None:
        """Task of a job array; a job that is no array is its own task 0.

        Args:
            array: Number of the array; None to go by its name alone, where that is unique.
            index: Number of the task.
            name: The array's name. A job of the number with another name is another's: numbers are given again after a
                new start of a cluster.
        """
        if array is None:
            return self._named.get((name, str(index))) or (self._named.get((name, "")) if index == 0 else None)
        job = self.jobs.get(f"{array}_{index}") or (self.jobs.get(array) if index == 0 else None)
        return job if job is not None and job.name == name else None


def queue(ids: Iterable[str] = (), names: Iterable[str] = (), patience: float = PATIENCE) -> Answer:
    """Ask squeue for jobs: waiting and running ones, and those that ended some minutes ago (its MinJobAge).

    Args:
        ids: Jobs, arrays or tasks; of a task its whole array is given.
        names: Job names, asked for in a call of its own.
        patience: Seconds to wait in all; a scheduler that fails at once is asked again meanwhile.
    """
    until = time.monotonic() + patience
    arrays = sorted({name.partition("_")[0] for name in ids})
    selections = [["-j", ",".join(arrays)]] if arrays else []
    selections += [["--name", ",".join(sorted(set(names)))]] if names else []
    form = ",".join(f"{name}:{width}" for name, width in QUEUE_FIELDS.items())
    jobs: dict[str, Job] = {}
    for selection in selections:
        output, problem = _ask(["squeue", "-h", "-r", "-t", "all", *selection, "-O", form], until, again=True)
        if problem and "invalid job id" in problem.lower():  # a single job that is long over
            continue
        if problem:
            return Answer(problem=problem, absent=shutil.which("squeue") is None)
        jobs |= parse_queue(output)
    return Answer(jobs)


def history(
    ids: Iterable[str] = (), names: Iterable[str] = (), since: float = 0.0, patience: float = HISTORY_PATIENCE
) -> Answer:
    """Ask sacct for jobs that squeue no longer knows; a cluster without accounting is a problem of the answer.

    Args:
        ids: Jobs, arrays or tasks; of a task its whole array is given.
        names: Job names, asked for in a call of its own.
        since: Unix seconds: jobs with a name that were over before are left out.
        patience: Seconds to wait in all.
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


def may_be_running(job: str, restarts: int) -> bool:
    """Whether a start of a job may still be running; true where the scheduler cannot be asked.

    Args:
        job: The scheduler's own number of the job, ``SLURM_JOB_ID`` (not "1234_5").
        restarts: ``SLURM_RESTART_COUNT`` of that start.
    """
    answer = queue([job])
    found = (one for one in answer.jobs.values() if one.raw == job and one.running)
    return answer.problem is not None or any(one.restarts == restarts for one in found)


def cancel(ids: Iterable[str], patience: float = PATIENCE) -> str | None:
    """Cancel jobs, arrays or tasks of arrays; ones that are over are left alone.

    Returns:
        None, or what the scheduler objected.
    """
    folded = fold(ids)
    return _ask(["scancel", *folded], time.monotonic() + patience)[1] if folded else None


def _ask(command: list[str], until: float, again: bool = False) -> tuple[str, str | None]:
    """Run a command of the scheduler's: its output and None, or what it said instead."""
    said = f"{command[0]} did not answer within {max(0.0, until - time.monotonic()):.0f} s"
    # a person's own defaults, such as SQUEUE_STATES, would hide jobs
    env = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SACCT_", "SCANCEL_"))}
    env["SLURM_TIME_FORMAT"] = "%s"
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
        before, fatal, last = said.partition(" fatal: ")  # a machine with Slurm's programs and no configuration
        said = last or before
        if not again or fatal or "invalid" in said.lower() or time.monotonic() + 1 > until:
            return "", said
        time.sleep(1)
