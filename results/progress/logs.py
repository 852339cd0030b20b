"""Where a run's output lies: its own log, and what the scheduler kept of its job."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from experiments.rundir import names
from results.runs.submissions import ArrayTask

_TAIL = 1 << 13
_JOB_LOG = re.compile(r"(?P<job>\d+(_\d+)?)_(?P<rank>\d+)_log\.(out|err)")


def job_logs(task: ArrayTask, rank: int | None = None) -> list[Path]:
    """The output files of a task's job, as submitit names them: "1234_5_0_log.out" for rank 0 of task 5.

    Args:
        task: The task.
        rank: Which rank's; None for all.
    """
    written = _written(task.logs)
    found = written.get(task.id or "", []) or (written.get(task.array or "", []) if task.alone else [])
    return [task.logs / name for of_rank, name in found if rank in (None, of_rank)]


def _written(folder: Path) -> Mapping[str, Sequence[tuple[int, str]]]:
    """Rank and name of the output files in a folder by job, listed again only when the folder has changed."""
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
    """The log that a run wrote itself, None if it wrote none."""
    log = path / names.LOG
    return log if log.is_file() and log.stat().st_size else None


def telling_log(path: Path, tasks: Sequence[ArrayTask], of_job: bool) -> Path | None:
    """The file that most likely says what went wrong.

    Args:
        path: The run's folder.
        tasks: What was submitted of it, newest first.
        of_job: Whether the job's output comes before the run's: the run itself could not say why it ended.
    """
    files = [file for file in job_logs(tasks[0]) if file.stat().st_size] if tasks else []
    job = next((file for file in files if file.suffix == ".err"), files[0] if files else None)
    own = own_log(path)
    return (job or own) if of_job else (own or job)


def last_line(path: Path) -> str | None:
    """The last line of a file that is not blank, without control characters; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((text for line in reversed(lines) if (text := clean(line))), None)


def clean(line: str) -> str:
    """One line as text alone: no control characters or colours, single spaces."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", "", line).split())


def files_of(path: Path, tasks: Sequence[ArrayTask], rank: int = 0) -> list[Path]:
    """What `ham logs` prints of a run: its own log, then the output of its newest job that has any.

    Args:
        path: The run's folder.
        tasks: What was submitted of it, newest first.
        rank: Whose output.
    """
    own = own_log(path)
    return ([own] if own else []) + next((files for task in tasks if (files := job_logs(task, rank))), [])


class Follower:
    """Prints what is new in a set of files, each piece under the name of its file.

    Args:
        show: Takes the text.
    """

    def __init__(self, show: Callable[[str], None]):
        self._show = show
        self._read: dict[Path, int] = {}
        self._last: Path | None = None

    def look(self, files: Sequence[Path], lines: int | None = None) -> bool:
        """Print what was written since the last look.

        Args:
            files: The files; those of earlier looks that are not among them are left alone.
            lines: Print only so many of the last lines; None for all.

        Returns:
            Whether there was anything new.
        """
        new = False
        for path in files:
            try:
                with path.open("rb") as file:
                    file.seek(min(self._read.get(path, 0), os.fstat(file.fileno()).st_size))  # a file may start anew
                    text = file.read()
                    self._read[path] = file.tell()
            except OSError:  # not there yet, or not any more
                continue
            if not text:
                continue
            if lines is not None:
                text = b"".join(text.splitlines(keepends=True)[-lines:])
            if path != self._last:
                self._show(f"==> {near(path)} <==\n")
            self._show(text.decode(errors="replace"))
            new, self._last = True, path
        return new


def near(path: Path) -> Path:
    """A path from the current folder, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
