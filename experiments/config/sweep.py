"""A table: rows × columns × seeds to a list of runs, in a fixed order.

A cell of the table is a row, a column and a seed. Several cells may be one run: a dense row under a column of
sparsities is trained once per seed and repeated in the table.
"""

from __future__ import annotations

import itertools
import re
import shlex
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.rundir import names

from .choices import Choice, read_choices, stored_paths
from .grid import SweepGrid, at
from .identity import folder_suffix, identity
from .keys import lookup
from .problems import show
from .resolve import Loaded, resolve, with_threshold_decay
from .schema import Spec
from .tuning import Chooser, ContentHash, Tuning, chosen_by, known, record, show_place
from .yaml_text import Located, shown

_NAMING = ("sweep.name", "sweep.title", "sweep.notes", "sweep.seeds", "sweep.tuning_cells")
MAX_NAME = 80  # characters of a run's folder


@dataclass(frozen=True)
class Cell:
    """One run's place in the table.

    Attributes:
        row: Label of the row.
        column: Column key to value.
        seed: The seed.
        spec: The resolved specification, with this seed and the row as label.
        identity: Its identity.
        path: Name of the run's folder; the same for all cells of one run.
    """

    row: str
    column: dict[str, Any]
    seed: int
    spec: Spec
    identity: str
    path: str


@dataclass(frozen=True)
class Sweep:
    """A table to be filled.

    Attributes:
        name: Folder of the table's runs.
        column_keys: Dotted keys of the columns.
        baselines: Row to the row it is compared with, seed by seed.
        cells: In table order: rows, columns, seeds.
        config: Path of its configuration, None if it is not known.
        overrides: What the command line set of that which title and notes may speak of.
        tuning: How its rows' settings were chosen, as its manifest says it; None if nothing was.
        tunes: What its manifest says of a tuning stage; None for a table.
    """

    name: str
    title: str | None
    notes: str | None
    tuning_cells: int | None
    column_keys: list[str]
    baselines: dict[str, str]
    cells: list[Cell] = field(repr=False)
    config: Path | None = None
    overrides: list[str] = field(default_factory=list)
    tuning: dict[str, Any] | None = None
    tunes: dict[str, Any] | None = None

    @property
    def runs(self) -> list[Cell]:
        """One cell for each different run, in table order."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.path, cell)
        return list(first.values())


def expand(
    loaded: Loaded,
    *,
    calibrate: bool = True,
    content_hash: ContentHash | None = None,
    choose: Chooser | None = None,
) -> Sweep:
    """Resolve every cell of a configuration's sweep.

    Args:
        loaded: The configuration.
        calibrate: Whether calibrated values are filled in, see `resolve`.
        content_hash: Hash of the data of a specification, for the identity; None leaves it out.
        choose: Finds the settings of tuned rows; None looks beside the configuration's files.

    Raises:
        UserError: if there is no sweep, the base or a cell is not valid, two rows are the same run in a column, a row
            is not tuned yet, or a label, key or value in ``cells``, ``baselines`` or ``tuning`` does not exist.
    """
    grid = grid_of(loaded)
    tuning = tuning_of(grid)
    choose = choose or known(read_choices(stored_paths(loaded.files)), content_hash)
    chosen = chosen_by(tuning, choose) if tuning else {}
    cells = []
    for row, column in itertools.product(grid.rows, grid.columns()):
        choice = chosen.get(show_place(row, tuning.column(column))) if tuning else None
        spec = _resolved(grid, row, column, calibrate, choice)
        hashed = identity(spec, content_hash(spec) if content_hash else None)
        for seed in grid.seeds:
            own = spec.model_copy(update={"seed": seed, "label": row})
            cells.append(Cell(row, column, seed, own, hashed, ""))
    _check_cells(grid, cells, tuning)
    section = grid.section
    return Sweep(
        name=name_of(grid),
        title=section.title,
        notes=section.notes,
        tuning_cells=section.tuning_cells,
        column_keys=list(section.columns),
        baselines=section.baselines,
        cells=named(cells),
        config=loaded.path.resolve(),
        overrides=list(filter(changes_table, loaded.overrides)),
        tuning=record(tuning, chosen) if tuning else None,
    )


def grid_of(loaded: Loaded) -> SweepGrid:
    """Return rows, columns and seeds of a configuration's sweep.

    Raises:
        UserError: if there is none, or it is not valid by itself.
    """
    if loaded.sweep is None:
        text = f"has no section sweep, so it is a single run: use `ham run {shlex.quote(loaded.config)}`"
        raise UserError(text, shown(loaded.path))
    return SweepGrid(loaded, resolve(loaded, calibrate=False))


def tuning_of(grid: SweepGrid) -> Tuning | None:
    """Return what is tried for each row of a grid, or None without a section ``tuning``."""
    return Tuning(grid, grid.section.tuning) if grid.section.tuning else None


def name_of(grid: SweepGrid) -> str:
    """Return the name of a sweep, that of the folder of its runs."""
    return grid.section.name or slug(grid.loaded.path.stem)[:MAX_NAME].rstrip("-.")


def _resolved(grid: SweepGrid, row: str, column: dict[str, Any], calibrate: bool, choice: Choice | None) -> Spec:
    if choice is None:
        return grid.resolve(row, column, calibrate)
    overrides = Located(choice.chosen, dict.fromkeys(choice.chosen, "sweep.tuning"))
    # a setting brings the decay that it was tried with along, which is another one at another sparsity
    if choice.threshold_decay is None or choice.column != column:
        return grid.resolve(row, column, calibrate, overrides)
    return with_threshold_decay(grid.resolve(row, column, False, overrides), choice.threshold_decay)


def changes_table(override: str) -> bool:
    """Return whether a setting of the command line changes more of a table than its name, words and seeds."""
    key = override.partition("=")[0].strip()
    return key not in _NAMING and (names.identifies(key) or names.below(key, ("sweep",)))


def manifest(sweep: Sweep) -> dict[str, Any]:
    """Return the content of ``sweep.json``: what a table needs to find and order its runs; paths are relative to it.

    The specifications, one for each identity, say what a run will be before it has begun.
    """
    cells = [
        {"row": cell.row, "column": cell.column, "seed": cell.seed, "identity": cell.identity, "path": cell.path}
        for cell in sweep.cells
    ]
    keys = ("name", "title", "column_keys", "tuning_cells", "notes", "baselines", "overrides")
    told = {key: value for key in ("tuning", "tunes") if (value := getattr(sweep, key)) is not None}
    first = {cell.identity: cell.spec for cell in reversed(sweep.cells)}
    specs = {identity: first[identity].model_dump(exclude={"seed", "label"}) for identity in sorted(first)}
    return {**{key: getattr(sweep, key) for key in keys}, **told, "cells": cells, "specs": specs}


def slug(text: str) -> str:
    """Reduce a text to lower-case ASCII letters, digits and dots joined by dashes: "RiGL + HAM" becomes "rigl-ham"."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9.]+", "-", ascii_text).strip("-.") or "row"


def run_name(label: str, hashed: str, seed: int) -> str:
    """Name a run's folder, with at most 80 characters that every file system takes."""
    suffix = folder_suffix(hashed, seed)
    return slug(label)[: MAX_NAME - len(suffix)].rstrip("-.") + suffix


def _check_cells(grid: SweepGrid, cells: list[Cell], tuning: Tuning | None) -> None:
    """Refuse what shows only in resolved cells: columns without effect, rows that are the same."""
    for key in grid.section.columns:
        if not any(lookup(cell.spec.model_dump(), key.split("."))[0] for cell in cells):
            parent = key.rpartition(".")[0]
            raise grid.fail(f"has no effect, since no row has {parent}: set {parent} in a row", "columns", key)
    seen: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        first = seen.setdefault((cell.identity, cell.seed, *cell.column.values()), cell)
        # two tuned rows may have come to the same settings
        if first.row != cell.row and not (tuning and (tuning.tried(first.row) or tuning.tried(cell.row))):
            rows = f"the rows {first.row!r} and {cell.row!r}"
            raise grid.fail(f"{rows} are the same run{at(cell.column)}; change or drop one", "rows", cell.row)


def named(cells: list[Cell]) -> list[Cell]:
    """Give the cells their folders: one per identity and seed, named after its first row.

    The name has the values of the columns that the run depends on. It does not depend on which other columns the table
    has, so that a table grows without orphaning its runs.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.identity, []).append(cell)
    stems = {}
    for hashed, group in groups.items():
        dumped = group[0].spec.model_dump()
        first = group[0].column
        depends = [
            key
            for key, value in first.items()
            if all(cell.column[key] == value for cell in group) and lookup(dumped, key.split(".")) == (True, value)
        ]
        stems[hashed] = "-".join([group[0].row, *(show(first[key]) for key in depends)])
    return [replace(cell, path=run_name(stems[cell.identity], cell.identity, cell.seed)) for cell in cells]
