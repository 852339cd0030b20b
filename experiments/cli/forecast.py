"""How long the runs of a sweep will take: what the estimates need, collected."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.config.schema import Spec
    from experiments.config.sweep import Cell, Sweep
    from experiments.launch.estimate import Estimate, StepTime


def expected(table: Sweep, folder: Path, todo: list[Cell], *, probe: bool) -> dict[str, Estimate]:
    """Estimate the time of some runs, by path; what nothing is known about is missing.

    Args:
        table: The sweep.
        folder: Its folder.
        todo: Those of its runs, none of which has a result.
        probe: Whether to time some steps of each specification of which no run has finished.
    """
    from experiments import data as datasets
    from experiments.launch import estimate
    from experiments.run import length, reuse
    from experiments.rundir import checkpoint

    results = [(cell, reuse.finished(cell.spec, cell.identity, folder / cell.path)) for cell in table.runs]
    finished = [(cell, result) for cell, result in results if result is not None]
    timed = _timed(todo, {cell.identity for cell, _ in finished}) if probe else {}
    outlines: dict[str, datasets.Outline] = {}

    def steps(spec: Spec) -> int:
        section = spec.data.model_dump_json()
        if section not in outlines:
            outlines[section] = datasets.outline(spec.data)
        return length.steps(spec, outlines[section])

    def done(cell: Cell) -> int:
        return next((saved.step for saved in checkpoint.found(folder / cell.path)), 0)

    return estimate.estimates(todo, finished, steps, timed, done)


def _timed(cells: list[Cell], known: set[str]) -> dict[str, StepTime]:
    from experiments.launch import timing

    from .terminal import shown

    unknown = {cell.identity: cell for cell in reversed(cells) if cell.identity not in known}
    with shown(len(unknown), unit="timed") as listener:
        found, wrong = timing.timed([*unknown.values()][::-1], listener)
    for line in wrong:
        print(f"could not be timed: {line}", file=sys.stderr)
    return found
