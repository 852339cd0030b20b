"""``ham clean``: what runs and submissions left behind, and neither a result nor a run that may resume needs."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.rundir import attempts, names
from experiments.rundir.outcome import read_result
from experiments.rundir.reading import Unreadable, read_object, typed
from results.progress.report import Report
from results.progress.states import UNDER_WAY
from results.progress.status import statuses
from results.runs.discover import places
from results.runs.kinds import Submission
from results.runs.submissions import ArrayTask, submissions

from . import snapshot
from .doctor import finding
from .scheduler import queue

_SNAPSHOT = re.compile(r"[0-9a-f]{16,64}")
_DRAFT = re.compile(r"\..*\.tmp")
_DOCTOR = 3600.0
"""Seconds after which a folder of `ham doctor` counts as left behind."""


@dataclass(frozen=True)
class Leftover:
    """Files and folders that can go.

    Attributes:
        where: What to show: one of them, or the folder that they are in.
        paths: The files and folders.
        size: Their bytes.
        why: Why nothing needs them.
    """

    where: Path
    paths: tuple[Path, ...]
    size: int
    why: str


@dataclass(frozen=True)
class Tidying:
    """What can go, and in words what stays because something is under way or cannot be read."""

    leftovers: tuple[Leftover, ...]
    kept: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(one.size for one in self.leftovers)


def look(directories: Sequence[Path]) -> Tidying:
    """Find what can go.

    Args:
        directories: Folders of sweeps, of runs, or of many sweeps. Snapshots are shared by all sweeps of a folder, so
            all of them are asked, also those that are not named here.

    Raises:
        UserError: as for `results.load`.
    """
    found = list(dict.fromkeys(place.resolve() for one in directories for place in places(one)))
    leftovers: list[Leftover] = []
    kept: list[str] = []
    for report in statuses(found):
        busy = {run.path for run in report.runs if run.state in UNDER_WAY}
        if busy:
            kept.append(f"{report.sweep.directory}: {len(busy)} runs are under way, and what they may need stays")
        leftovers += [*_of_runs(report, busy), *_of_sweep(report.sweep.directory, busy)]
    roots = {path.parent for path in found if (path / names.MANIFEST).is_file()}
    for root in sorted(roots | {one.resolve() for one in directories}):
        snapshots, why = _of_root(root)
        leftovers += snapshots
        kept += [why] if why else []
    return Tidying(tuple(one for one in leftovers if one.paths), tuple(kept))


def remove(tidying: Tidying, directories: Sequence[Path]) -> tuple[int, list[str]]:
    """Remove what can go, and can still go when it is looked at again.

    Returns:
        The number of bytes that were removed, and a line for each path that could not be.
    """
    still = {path for one in look(directories).leftovers for path in one.paths}
    freed, problems = 0, []
    for path in (path for one in tidying.leftovers for path in one.paths if path in still):
        size = _size(path)
        try:
            _remove(path)
            freed += size
        except OSError as error:
            problems.append(f"{error.filename or path}: {error.strerror}")
    return freed, problems


def _of_runs(report: Report, busy: Collection[Path]) -> Iterator[Leftover]:
    for run in report.runs:
        if run.path in busy or not run.path.is_dir():
            continue
        if run.state == "done":
            old = [path for path in _inside(run.path / names.CHECKPOINTS) if names.parse_checkpoint(path.name)]
            yield _leftover(run.path / names.CHECKPOINTS, old, "checkpoints of a run that has its result")
        yield _drafts(run.path, run.path, run.path / names.CHECKPOINTS, run.path / names.ATTEMPTS)


def _of_sweep(folder: Path, busy: Collection[Path]) -> Iterator[Leftover]:
    submitted = submissions(folder)
    if submitted.home != folder:  # a single run, whose sweep was not named
        return
    if not _submitting(folder):
        yield _drafts(folder, folder, folder / names.SUBMISSIONS, folder / names.ATTEMPTS)
    queued = _queued(submitted.tasks)
    needed = {task.logs for task in submitted.tasks if task in queued or any(run in busy for run in task.runs)}
    for logs in sorted({task.logs for task in submitted.tasks} - needed):
        files = [path for path in _inside(logs) if path.suffix in (".pkl", ".verdict")]
        yield _leftover(logs, files, "no job of this submission waits or runs")


def _queued(tasks: Sequence[ArrayTask]) -> set[ArrayTask]:
    """Return the tasks whose jobs are not over, also those of runs that are done; none if the scheduler is silent."""
    numbers, labels = {task.array for task in tasks if task.array}, {task.name for task in tasks if not task.array}
    answer = queue.queue(numbers, labels) if numbers or labels else queue.Answer()
    jobs = {task: answer.task(task.array, task.index, task.name) for task in tasks}
    return {task for task, job in jobs.items() if job is not None and job.active}


def _of_root(root: Path) -> tuple[list[Leftover], str | None]:
    """Return what is left in the folder of all sweeps, and why snapshots stay that might go."""
    probes = [path for path in _inside(root / finding.FOLDER) if time.time() - path.lstat().st_mtime > _DOCTOR]
    left = [_leftover(root / finding.FOLDER, probes, "left by `ham doctor`")]
    held = root / snapshot.FOLDER
    entries = [path for path in _inside(held) if path.is_dir()]
    sweeps = [path.parent for path in root.glob(f"*/{names.SUBMISSIONS}")]
    if not entries:
        return left, None
    if busy := next((path for path in sweeps if _submitting(path)), None):
        return left, f"{held}: stays, since {busy} is being submitted"
    try:
        needed = {name for sweep in sweeps for name in _snapshots_of(sweep)}
    except Unreadable as error:
        return left, f"{held}: stays, since {error}"
    drafts = [path for path in entries if _DRAFT.fullmatch(path.name)]
    left += [_leftover(held, drafts, "begun by a submission that was killed")]
    old = (path for path in entries if _SNAPSHOT.fullmatch(path.name) and path.name not in needed)
    return left + [_leftover(path, [path], "no unfinished run was submitted with it") for path in old], None


def _snapshots_of(sweep: Path) -> Iterator[str]:
    """Yield the names of the snapshots with which runs were submitted that have no result."""
    for path in (sweep / names.SUBMISSIONS).glob("*.json"):
        try:
            record = typed(Submission, read_object(path))
        except FileNotFoundError:
            continue
        except Unreadable as error:
            raise Unreadable(f"{path} {error}, and may need one") from None
        runs = {run for array in record.arrays for task in array.tasks for run in task}
        if record.snapshot and any(read_result(sweep / run) is None for run in runs):
            yield Path(record.snapshot).name


def _submitting(folder: Path) -> bool:
    """Return whether a command submits runs of this sweep now; see `records.alone`."""
    claim = attempts.newest(folder)
    return claim is not None and attempts.alive(folder, claim)


def _drafts(where: Path, *folders: Path) -> Leftover:
    found = [path for folder in folders for path in _inside(folder) if _DRAFT.fullmatch(path.name)]
    return _leftover(where, [path for path in found if path.is_file()], "temporary files of killed processes")


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, without links, which may lead anywhere."""
    try:
        return sorted(path for path in folder.iterdir() if not path.is_symlink()) if not folder.is_symlink() else []
    except OSError:
        return []


def _leftover(where: Path, paths: Iterable[Path], why: str) -> Leftover:
    found = tuple(paths)
    return Leftover(where, found, sum(map(_size, found)), why)


def _size(path: Path) -> int:
    with suppress(OSError):
        files = (one for one in path.rglob("*") if not one.is_dir()) if path.is_dir() else [path]
        return sum(one.lstat().st_size for one in files)
    return 0


def _remove(path: Path) -> None:
    """Remove a file or a folder; a snapshot that a submission has just chosen is put back."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    gone = path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(4)}.tmp")
    path.rename(gone)
    # a submission claims its sweep before it looks for a snapshot: what had found this one is seen here
    root = path.parent.parent
    sweeps = [one.parent for one in root.glob(f"*/{names.SUBMISSIONS}")]
    if path.parent.name == snapshot.FOLDER and any(map(_submitting, sweeps)):
        with suppress(OSError):  # it has made its own meanwhile
            gone.rename(path)
            return
    shutil.rmtree(gone)
