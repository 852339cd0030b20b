"""The files that a submission writes: a record that `results.runs.submissions` reads, and the runs for resubmitting.

``submissions/<id>.json`` is written before sbatch is called, and again once the scheduler has answered, so that the
jobs of a submission that is killed in between can be found by their names.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.config.methods import import_modules
from experiments.config.resolve import from_mapping
from experiments.config.sweep import Cell, Sweep
from experiments.config.yaml_text import dump, shown
from experiments.errors import Busy, SuiteError, UserError
from experiments.rundir import attempts, names, waiting
from experiments.rundir.files import read_json, write_json, write_text
from experiments.rundir.reading import Unreadable, read_object, typed
from results.runs.kinds import KeptRuns, Submission, SubmittedArray

from .array import ArrayPlan
from .profile import Profile
from .scheduler import queue
from .throttle import Earlier

PATIENCE = 120.0
"""Seconds to wait for another command that submits runs of the same sweep, which may itself wait a minute for Slurm."""
_RUNS, _PROFILE = "runs.json", "profile.yaml"


class SubmissionRecord:
    """The record of one submission, written while it proceeds.

    Args:
        folder: Folder of the sweep.
        content: `id`, `time`, `profile`, `snapshot`, and `home`, the working directory of the jobs.
        arrays: The arrays to be submitted.

    Attributes:
        numbers: Job numbers of the arrays that have been accepted, by name.
    """

    def __init__(self, folder: Path, content: dict[str, Any], arrays: Sequence[ArrayPlan]):
        self._path = folder / names.SUBMISSIONS / f"{content['id']}.json"
        self._content = content
        self._arrays = {array.name: array for array in arrays}
        self._uncertain: set[str] = set()
        self.numbers: dict[str, str] = {}
        self._write()

    def planned(self, arrays: Sequence[ArrayPlan]) -> None:
        """Record other arrays in place of those that have not been accepted."""
        self._arrays = {array.name: array for array in (*self.sent, *arrays)}
        self._write()

    def accepted(self, name: str, job: str) -> None:
        """Record the job number of an array that sbatch has accepted."""
        self.numbers[name] = job
        self._write()

    def uncertain(self, name: str) -> None:
        """Record that an array may be in the queue, where it can be found by its name."""
        self._uncertain.add(name)

    def closed(self) -> None:
        """Remove the arrays that were not accepted, or the whole record if none was."""
        self._arrays = {name: one for name, one in self._arrays.items() if name in {*self.numbers, *self._uncertain}}
        if self._arrays:
            self._write()
        else:
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._path.with_suffix(""), ignore_errors=True)

    @property
    def sent(self) -> list[ArrayPlan]:
        """The arrays that have been accepted."""
        return [array for name, array in self._arrays.items() if name in self.numbers]

    def _write(self) -> None:
        entries = [
            {
                "name": name,
                "job": self.numbers.get(name),
                "width": array.width,
                "waits": bool(array.after),
                "tasks": [[cell.path for cell in task] for task in array.tasks],
            }
            for name, array in self._arrays.items()
        ]
        write_json(self._path, {**self._content, "arrays": entries})


def earlier(folder: Path) -> list[Earlier]:
    """Return the arrays of a sweep's earlier submissions of which jobs wait or run.

    Raises:
        SuiteError: if the scheduler does not answer.
    """
    found: list[SubmittedArray] = []
    for path in sorted((folder / names.SUBMISSIONS).glob("*.json")):
        with suppress(FileNotFoundError, Unreadable):  # `status` has named it
            found += typed(Submission, read_object(path)).arrays
    if not found:
        return []
    answer = queue.queue([str(array.job) for array in found if array.job], [one.name for one in found if not one.job])
    if answer.problem is not None:
        raise SuiteError(f"cannot tell how many jobs are under way; the scheduler says: {answer.problem}", str(folder))
    numbers: dict[str, list[str]] = {}
    for job in answer.jobs.values():
        if job.active:
            numbers.setdefault(job.name, []).append(job.id.partition("_")[0])
    left = [(array, numbers[array.name]) for array in found if array.name in numbers]
    return [Earlier(jobs[0], len(jobs), array.width, array.waits) for array, jobs in left]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let only one command at a time submit runs of a sweep; run directories have a single writer in any case.

    Raises:
        Busy: if another command is submitting for longer than `PATIENCE`.
    """
    (folder / names.SUBMISSIONS).mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            claim = attempts.claim(folder)
            break
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    with attempts.held(claim):
        for _ in waiting.for_earlier(claim):
            pass
        yield


def keep_runs(folder: Path, identifier: str, sweep: Sweep, homes: Collection[Path]) -> None:
    """Write the specifications of all runs of a sweep beside a submission, for `recorded_runs`.

    Args:
        folder: Folder of the sweep.
        identifier: Identifier of the submission.
        sweep: The sweep.
        homes: Folders of the user's own modules.
    """
    runs = [
        {
            "row": one.row,
            "column": one.column,
            "identity": one.identity,
            "path": one.path,
            "spec": one.spec.model_dump(),
        }
        for one in sweep.runs
    ]
    path = folder / names.SUBMISSIONS / identifier / _RUNS
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"folders": sorted(map(str, homes)), "runs": runs})


def keep_profile(folder: Path, identifier: str, profile: Profile) -> None:
    """Write a profile as it was read, with the defaults of this version, beside a submission, for `last_profile`."""
    write_text(folder / names.SUBMISSIONS / identifier / _PROFILE, dump(profile.model_dump()))


def last_profile(folder: Path) -> tuple[Path, Path]:
    """Return the copy of the profile of a sweep's last submission, and the working directory of its jobs.

    Raises:
        UserError: if no copy is left.
    """
    kept = _kept(folder, _PROFILE)
    if not kept:
        text = f"no submission has its {_PROFILE} any more: use `ham sweep CONFIG --cluster slurm --profile NAME`"
        raise UserError(text, shown(folder / names.SUBMISSIONS))
    content = read_json(kept[-1].parent.with_suffix(".json"))
    home = content.get("home") if isinstance(content, dict) else None
    return kept[-1], Path(home) if isinstance(home, str) else Path.cwd()


def _kept(folder: Path, name: str) -> list[Path]:
    """Return a sweep's files of some name, one for each submission, that of the newest last.

    The records say when; the files' own times do not survive a copy of the folder, and may be another clock's.
    """

    def time_of(path: Path) -> float:
        content = read_json(path.parent.with_suffix(".json"))
        at = content.get("time") if isinstance(content, dict) else None
        return at if isinstance(at, int | float) else path.stat().st_mtime

    return sorted((folder / names.SUBMISSIONS).glob(f"*/{name}"), key=time_of)


def recorded_runs(folder: Path) -> dict[str, Cell]:
    """Read the runs of a sweep by path from its submissions; for each run, the newest submission counts.

    Raises:
        UserError: if a record is damaged, or one of the user's own modules no longer exists.
    """
    found: dict[str, Cell] = {}
    for path in _kept(folder, _RUNS):
        try:
            kept = typed(KeptRuns, read_object(path))
        except Unreadable as error:
            raise UserError(f"{error}; remove it if other submissions have the runs", shown(path)) from None
        for run in kept.runs:
            imports = run.spec.get("imports")
            modules = [name for name in imports if isinstance(name, str)] if isinstance(imports, list) else []
            import_modules(modules, [Path(home) for home in kept.folders], shown(path))
            spec = from_mapping(run.spec)
            found[run.path] = Cell(run.row, run.column, spec.seed, spec, run.identity, run.path)
    return found
