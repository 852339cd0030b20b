"""The one look at a sweep from which a submission decides what it submits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.config.sweep import Cell
from experiments.errors import SuiteError
from experiments.run import reuse
from experiments.rundir import names
from results.progress.states import UNDER_WAY
from results.progress.status import status

from .scheduler import cluster


@dataclass(frozen=True)
class Seen:
    """The runs of a sweep at one moment.

    Attributes:
        free: Runs without a result on which no process works and for which no job waits.
        under_way: Those that wait or run.
        done: Number of runs that have a result.
        busy: Number of runs of the whole sweep that wait or run.
        later: Number of free runs that are left for a later call.
    """

    free: Sequence[Cell]
    under_way: Sequence[Cell]
    done: int
    busy: int = 0
    later: int = 0

    def limited(self, limit: int | None) -> Seen:
        """Return as many free runs as may be added to those of the sweep that wait or run, the first of the table."""
        room = len(self.free) if limit is None else max(0, limit - self.busy)
        return replace(self, free=self.free[:room], later=max(0, len(self.free) - room))


def look(folder: Path, cells: Sequence[Cell]) -> Seen:
    """Tell the runs of a sweep apart.

    The scheduler and the claims are asked first and the results are read last, so that a run that ends meanwhile has a
    result, and is not taken for one that nobody works on.

    Args:
        folder: The sweep's folder.
        cells: The runs.

    Raises:
        SuiteError: if the scheduler does not answer.
        UserError: if a folder holds another run, see `reuse.finished`.
    """
    states = _states(folder, cells)
    todo = [cell for cell in cells if reuse.finished(cell.spec, cell.identity, folder / cell.path) is None]
    free = [cell for cell in todo if states.get(cell.path) not in UNDER_WAY]
    under_way = [cell for cell in todo if states.get(cell.path) in UNDER_WAY]
    busy = sum(state in UNDER_WAY for state in states.values())
    return Seen(free, under_way, len(cells) - len(todo), busy)


def _states(folder: Path, cells: Sequence[Cell]) -> dict[str, str]:
    if not (folder / names.MANIFEST).is_file():
        return {}  # nothing has begun here
    until = time.monotonic() + cluster.PATIENCE
    while True:
        report = status(folder)
        states: dict[str, str] = {run.path.name: run.state for run in report.runs}
        if all(states.get(cell.path) != "unknown" for cell in cells):
            return states
        if time.monotonic() > until:
            raise SuiteError(f"cannot tell which runs are under way; the scheduler says: {report.problem}", str(folder))
        time.sleep(1)
