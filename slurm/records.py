"""What a submission leaves behind: the record that `results.submissions` reads, and the runs for another one.

``submissions/<id>.json`` is written before sbatch is called and again once the scheduler has answered, so that a
submission that is killed in between can be found by the names of its jobs.
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
from experiments.errors import Busy
from experiments.rundir import attempts, names
from experiments.rundir.files import read_json, write_json

from .plan import ArrayPlan

PATIENCE = 120.0
"""Seconds to wait for another command that submits runs of the same sweep: it may wait a minute for the scheduler."""
_RUNS = "runs.json"


class SubmissionRecord:
    """The record of one submission under way.

    Args:
        folder: Of the sweep.
        content: `id`, `time`, `profile` and `snapshot`.
        arrays: What is to be submitted.
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
        """Note the job number of an array."""
        self._content["arrays"][number]["job"] = job
        write_json(self._path, self._content)

    def refused(self) -> int:
        """Forget the arrays that were not accepted, and all of the submission if none was; how many were."""
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
    """Let one command at a time submit runs of a sweep; the run directories themselves have one writer in any case.

    Raises:
        Busy: if another command is at it for longer than `PATIENCE`.
    """
    (folder / names.SUBMISSIONS).mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            held = attempts.claim(folder)
            break
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    try:
        yield
    finally:
        held.end("done")


def keep_runs(folder: Path, identifier: str, sweep: Sweep, homes: Collection[Path]) -> None:
    """Keep the specifications of all runs of a sweep beside a submission, for `recorded_runs`.

    Args:
        folder: Of the sweep.
        identifier: Of the submission.
        sweep: The sweep.
        homes: Folders of modules of the user's own.
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
    write_json(folder / names.SUBMISSIONS / identifier / _RUNS, {"folders": sorted(map(str, homes)), "runs": runs})


def recorded_runs(folder: Path) -> dict[str, Cell]:
    """The runs of a sweep by path, as its submissions kept them; the newest submission wins.

    Raises:
        UserError: if a module of the user's own is no longer there.
    """
    found: dict[str, Cell] = {}
    for path in sorted((folder / names.SUBMISSIONS).glob(f"*/{_RUNS}"), key=lambda path: path.stat().st_mtime):
        kept = read_json(path) or {"folders": [], "runs": []}
        for run in kept["runs"]:
            import_modules(run["spec"]["imports"], [Path(home) for home in kept["folders"]], shown(path))
            spec = from_mapping(run["spec"])
            found[run["path"]] = Cell(run["row"], run["column"], spec.seed, spec, run["identity"], run["path"])
    return found
