"""Reading of several folders at once: sweeps as they are, and folders of runs without a manifest as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.errors import UserError, nearest
from experiments.rundir import names

from .discover import found_cells
from .kinds import one_line
from .schema import SweepResults
from .store import outcomes, read_plan


def read_several(directories: Sequence[str | Path], baseline: str | None = None) -> list[SweepResults]:
    """Read the results of several folders, each once.

    Args:
        directories: Folders as for `store.read`. Those without a manifest become one table.
        baseline: The plain row of all other rows of that table, which has no manifest to name one.

    Raises:
        UserError: as for `store.read`, for a baseline that is no row, and if all folders have manifests.
    """
    found = {sweep.directory: sweep for sweep in map(read_plan, directories)}
    loose = [sweep for sweep in found.values() if not (sweep.directory / names.MANIFEST).is_file()]
    sweeps = [sweep for sweep in found.values() if sweep not in loose]
    if loose:
        sweeps.append(_compared(_one(loose), baseline))
    elif baseline is not None:
        text = f"is for folders of runs; the rows of a sweep have theirs in its configuration and {names.MANIFEST}"
        raise UserError(text, "--baseline")
    return [outcomes(sweep) for sweep in sweeps]


def _one(sweeps: Sequence[SweepResults]) -> SweepResults:
    """Join folders without a manifest; runs of one label are one row, wherever they lie."""
    if len(sweeps) == 1:
        return sweeps[0]
    paths = dict.fromkeys(run.path for sweep in sweeps for run in sweep.runs)
    parents = {sweep.directory.parent for sweep in sweeps}
    name = one_line(parents.pop().name) if len(parents) == 1 else ", ".join(sweep.name for sweep in sweeps)
    return replace(sweeps[0], name=name, title=name, entries=tuple(found_cells(paths)))


def _compared(sweep: SweepResults, baseline: str | None) -> SweepResults:
    if baseline is None:
        return sweep
    if baseline not in sweep.rows:
        rows = ", ".join(sweep.rows)
        raise UserError(f"{baseline!r} is not a row; rows: {rows}{nearest(baseline, sweep.rows)}", "--baseline")
    return replace(sweep, baselines={row: baseline for row in sweep.rows if row != baseline})
