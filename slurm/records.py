"""The files that a submission writes: a record that `results.runs.submissions` reads, and the runs for resubmitting.

``submissions/<id>.json`` is written before sbatch is called, and again once the scheduler has answered, so that the
jobs of a submission that is killed in between can be found by their names.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.config.methods import import_modules
from experiments.config.resolve import from_mapping
from experiments.config.sweep import Cell, Sweep
from experiments.config.yaml_text import shown
from experiments.errors import Busy, UserError
from experiments.rundir import attempts, names, waiting
from experiments.rundir.files import write_json
from experiments.rundir.reading import Unreadable, read_object, typed
from results.runs.kinds import KeptRuns

from .plan import ArrayPlan

PATIENCE = 120.0
"""Seconds to wait for another command that submits runs of the same sweep, which may itself wait a minute for Slurm."""
_RUNS = "runs.json"


class SubmissionRecord:
    """The record of one submission, written while it proceeds.

    Args:
        folder: Folder of the sweep.
        content: `id`, `time`, `profile` and `snapshot`.
        arrays: The arrays to be submitted.
    """

    def __init__(self, folder: Path, content: dict[str, Any], arrays: Sequence[ArrayPlan]):
        self._path = folder / names.SUBMISSIONS / f"{content['id']}.json"
        entries = [
            {"name": array.name, "job": None, "tasks": [[cell.path for cell in task] for task in array.tasks]}
            for array in arrays
        ]
        self._content: dict[str, Any] = {**content, "arrays": entries}
        write_json(self._path, self._content)

    def accepted(self, number: int, job: str) -> None:
        """Record the job number of an array that sbatch has accepted."""
        self._content["arrays"][number]["job"] = job
        write_json(self._path, self._content)

    def refused(self) -> int:
        """Remove the arrays that were not accepted, or the whole record if none was; return how many were."""
        kept = [array for array in self._content["arrays"] if array["job"] is not None]
        self._content["arrays"] = kept
        if kept:
            write_json(self._path, self._content)
        else:
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._path.with_suffix(""), ignore_errors=True)
        return len(kept)


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


def recorded_runs(folder: Path) -> dict[str, Cell]:
    """Read the runs of a sweep by path from its submissions; for each run, the newest submission counts.

    Raises:
        UserError: if a record is damaged, or one of the user's own modules no longer exists.
    """
    found: dict[str, Cell] = {}
    for path in sorted((folder / names.SUBMISSIONS).glob(f"*/{_RUNS}"), key=lambda path: path.stat().st_mtime):
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
