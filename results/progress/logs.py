"""The output of a run: its own log, and the output of its job."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from experiments.rundir import names
from results.runs.submissions import ArrayTask

_TAIL = 1 << 13
_LONGEST = 400
_NOISE = re.compile(
    r"the task did not start \(exit code"
    r"|submitit (INFO|WARNING)"
    r"|srun: (launch/slurm: )?_?(step_signal|task_finish|mpir_|Job step aborted|Terminating|Force Terminated|got SIG)"
    r"|srun: (forcing job termination|Complete StepId|interrupt)"
    r"|srun: error: (Timed out waiting for job step|Node failure on)"
    r"|srun: error: \S+: tasks? [\d,\-]+: (Killed|Terminated|Exited|Abort)"
    r"|srun: job \d+ (queued|has been)"
    r"|slurmstepd\S*: (error: )?\*\*\* (JOB|STEP) "
    r"|slurmstepd\S*: (error: )?_?(step_signal|task exit|get_exit_code|Failed to send MESSAGE_TASK_EXIT)"
    r"|.*resource_tracker(\.py)?:|.*destroy_process_group",
)
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_JOB_LOG = re.compile(r"(?P<job>\d+(_\d+)?)_(?P<rank>\d+)_log\.(out|err)")


def job_logs(task: ArrayTask, rank: int | None = None) -> list[Path]:
    """Return the output files of a task's job, as submitit names them: "1234_5_0_log.out" for rank 0 of task 5.

    Args:
        task: The task.
        rank: The rank whose output is returned; None returns that of all.
    """
    written = _written(task.logs)
    found = written.get(task.id or "", []) or (written.get(task.array or "", []) if task.alone else [])
    paths = (task.logs / name for of_rank, name in found if rank in (None, of_rank))
    return [path for path in paths if path.is_file()]


def _written(folder: Path) -> Mapping[str, Sequence[tuple[int, str]]]:
    """Return rank and name of the output files in a folder by job; the folder is read again only if it has changed."""
    try:
        return _listing(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> Mapping[str, Sequence[tuple[int, str]]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for name in os.listdir(folder):
        if match := _JOB_LOG.fullmatch(name):
            found.setdefault(match["job"], []).append((int(match["rank"]), name))
    return {job: sorted(files) for job, files in found.items()}


def own_log(path: Path) -> Path | None:
    """Return the log that a run wrote itself, or None if it wrote none."""
    log = path / names.LOG
    return log if log.is_file() and log.stat().st_size else None


def telling_log(path: Path, tasks: Sequence[ArrayTask], of_job: bool) -> Path | None:
    """Return the file that most likely says what went wrong.

    Args:
        path: The run's folder.
        tasks: The tasks that were submitted for it, newest first.
        of_job: Whether to prefer the job's output to the run's log, since the run itself could not log why it ended.
    """
    files = [file for file in job_logs(tasks[0]) if file.stat().st_size] if tasks else []
    job = next((file for file in files if file.suffix == ".err"), files[0] if files else None)
    own = own_log(path)
    return (job or own) if of_job else (own or job)


def last_words(path: Path) -> str | None:
    """Return the last line of a file that says something, see `told`, or None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next(reversed(told(lines)), None)


def told(lines: Iterable[str]) -> list[str]:
    """Return the lines of a log that a program or Slurm says something with, cleaned.

    What srun adds about ending a step hides the reason that stands above it: such lines are left out, unless there are
    no others.
    """
    said = [text for line in lines if (text := clean(line))]
    return [text for text in said if not _NOISE.match(text)] or said


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
    return " ".join(_STEERING.sub("", line).split())


def files_of(path: Path, tasks: Sequence[ArrayTask], rank: int = 0) -> list[Path]:
    """Return the files that `ham logs` prints for a run: its own log, and the output of its newest job that has any.

    Args:
        path: The run's folder.
        tasks: The tasks that were submitted for it, newest first.
        rank: The rank whose output is returned.
    """
    own = own_log(path)
    return ([own] if own else []) + next((files for task in tasks if (files := job_logs(task, rank))), [])


class Follower:
    """A printer of the new content of a set of files, each part under the name of its file.

    Args:
        show: Function that prints a text.
    """

    def __init__(self, show: Callable[[str], None]):
        self._show = show
        self._read: dict[Path, int] = {}
        self._last: Path | None = None

    def look(self, files: Sequence[Path], lines: int | None = None) -> bool:
        """Print what has been written to the files since the last call.

        Args:
            files: The files; files of earlier calls that are not among them are ignored.
            lines: Number of last lines to print per file; None prints all.

        Returns:
            Whether there was new content.
        """
        new = False
        for path in files:
            try:
                with path.open("rb") as file:
                    # a file may have been truncated since the last call
                    file.seek(min(self._read.get(path, 0), os.fstat(file.fileno()).st_size))
                    text = file.read()
                    self._read[path] = file.tell()
            except OSError:  # the file does not exist yet, or no longer
                continue
            if not text:
                continue
            if lines is not None:
                text = b"".join(text.splitlines(keepends=True)[-lines:])
            if path != self._last:
                self._show(f"==> {near(path)} <==\n")
            self._show(_STEERING.sub("", text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")))
            new, self._last = True, path
        return new


def near(path: Path) -> Path:
    """Return a path relative to the current folder, if it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
