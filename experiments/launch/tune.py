"""Execution of a tuning stage on this machine: threshold decays first, then the runs that are not over."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from experiments.config.stage import Stage, TunedPlace
from experiments.config.sweep import Cell, Sweep
from experiments.errors import RunFailure
from experiments.run import reuse
from experiments.rundir import names
from experiments.rundir.files import read_json

from . import calibrate
from .local import run_sweep
from .pool import Listener


def solve(stage: Stage, places: Collection[TunedPlace], folder: Path, jobs: int, listener: Listener) -> None:
    """Search for the threshold decays that settings of some places ask for, and store them in the tuning's folder.

    A setting for which none is found cannot be chosen; the listener learns why.
    """
    if cells := unsolved(stage, places):
        calibrate.calibrate(cells, folder / names.DECAYS, jobs, listener)


def unsolved(stage: Stage, places: Collection[TunedPlace]) -> list[Cell]:
    """Return one cell for each setting of some places whose threshold decay is not known."""
    return calibrate.needed(stage.unsolved_of(places), {})


def kept(stage: Stage, places: Collection[TunedPlace], folder: Path) -> Sweep:
    """Return the stage as its folder's table shows it: some places, and those that the table shows already."""
    old = read_json(folder / names.MANIFEST)
    listed = old.get("cells") if isinstance(old, dict) else None
    there = {str(cell.get("identity")) for cell in listed or () if isinstance(cell, dict)}
    shown = [place for place in stage.places if place in places or _is_there(stage, place, there)]
    return reuse.placed(stage.sweep(shown), folder)


def _is_there(stage: Stage, place: TunedPlace, identities: Collection[str]) -> bool:
    return any(cell.identity in identities for cell in stage.of([place]))


def pending(sweep: Sweep, cells: Collection[Cell], folder: Path, *, again: bool = False) -> list[str]:
    """Return the folders of those runs that are not over; a failed one is, unless it is to be tried again."""
    wanted = {(cell.identity, cell.seed) for cell in cells}
    return [
        cell.path
        for cell in reuse.pending(sweep.runs, folder)
        if (cell.identity, cell.seed) in wanted and (again or not _has_failed(folder / cell.path))
    ]


def _has_failed(folder: Path) -> bool:
    """Return whether training itself has failed, and not the machine."""
    failure = read_json(folder / names.FAILURE)
    return isinstance(failure, dict) and failure.get("unexpected") is not True


def train(sweep: Sweep, runs_root: Path, only: Collection[str], *, jobs: int, listener: Listener) -> None:
    """Train some runs of a tuning; one that fails in training loses, and stops nothing.

    Raises:
        RunFailure: if the machine or a defect has made some fail.
    """
    if not sweep.cells:  # no setting has a threshold decay
        return
    try:
        cells = [cell for cell in sweep.runs if cell.path in only]
        run_sweep(sweep, runs_root, jobs=jobs, listener=listener, cells=cells)
    except RunFailure:
        folder = runs_root / sweep.name
        todo = {cell.path for cell in reuse.pending(sweep.runs, folder)} & set(only)
        if not all(_has_failed(folder / path) for path in todo):
            raise
