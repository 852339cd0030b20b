"""The last words of a job: the lines of its output that say why it ended, without those that only follow from it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

_TAIL = 1 << 14
_LONGEST = 400
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# what Slurm, and the batch script, say once a task has ended or a job is being ended
_FOLLOWS = re.compile(
    r"ham: |the task did not start|Terminated$|submitit (INFO|WARNING)"
    r"|.*resource_tracker(\.py)?:|.*destroy_process_group"
    r"|(srun|slurmstepd)[\w-]*: .*("
    r"_step_signal|Terminating StepId|Force Terminated|forcing job termination|Job step aborted|Complete StepId"
    r"|\*\*\* .* (CANCELLED|FAILED|KILLED|ABORTED)\b|Timed out waiting for job step|got SIGCONT|interrupt \("
    r"|tasks? [\d,-]+: (Killed|Terminated|Exited|Abort)|Node failure on|task exit|get_exit_code"
    r"|mpir_|task_finish|Failed to send MESSAGE_TASK_EXIT|job \d+ (queued|has been)"
    r"|step creation (temporarily|still) disabled|Step created for|Job is pending execution|Check SLURM_JOB_ID)"
)

# a step is also cancelled when one of its tasks fails; a job that ends for another reason is "CANCELLED AT ... DUE TO"
_CANCELLED = re.compile(r"slurmstepd[\w-]*: error: \*\*\* JOB \d+ ON \S+ CANCELLED AT (\S+) (.*)\*\*\*$")


def last_words(path: Path, count: int = 1) -> list[str]:
    """Return the last lines of a file that say something, or those that follow from others if there are no others.

    Args:
        path: The file; one that does not exist says nothing.
        count: Largest number of lines.
    """
    return told(_tail(path))[-count:]


def cancelled(path: Path) -> float | None:
    """Return when a job was cancelled, in unix seconds, if its output says so and nothing else of its last end.

    Slurm itself writes it there, so it stays known when the scheduler has forgotten the job.

    Args:
        path: The standard error of the job's batch script.
    """
    found = [match for line in _tail(path) if (match := _CANCELLED.match(clean(line)))]
    if not found or found[-1][2]:
        return None
    try:
        return time.mktime(time.strptime(found[-1][1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def told(lines: Iterable[str]) -> list[str]:
    """Return the lines that say something, cleaned, or those that follow from others if there are no others."""
    said = [text for line in lines if (text := clean(line))]
    return [text for text in said if not _FOLLOWS.match(text)] or said


def in_one_line(text: str) -> str:
    """Return an error in one line, without its traceback, of which only the error's own lines stay."""
    lines = text.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    if any(line.startswith("Traceback (most recent call last)") for line in lines) and frames:
        lines = lines[frames[-1] + 1 :] or lines
    joined = " / ".join(said for line in lines if (said := clean(line)))
    return joined if len(joined) <= _LONGEST else f"{joined[:_LONGEST]} …"


def clean(line: str) -> str:
    """Remove control characters and colours from a line, and reduce white space to single spaces."""
    return " ".join(plain(line).split())


def plain(text: str) -> str:
    """Remove control characters and colours from a text, but not the ends of its lines."""
    return _STEERING.sub("", text)
