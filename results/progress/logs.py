"""The output of a run: its own log, and the output of its job."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from experiments.rundir import names
from results.runs.submissions import ArrayTask
from slurm.scheduler.output import plain

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
            self._show(plain(text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")))
            new, self._last = True, path
        return new


def near(path: Path) -> Path:
    """Return a path relative to the current folder, if it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
