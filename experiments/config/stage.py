"""The tuning of a sweep as a sweep of its own: rows × settings × the tuning's seeds, in the folder ``NAME-tuning``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .grid import at
from .identity import CALIBRATED, THRESHOLD_DECAY, calibration_identity, identity
from .resolve import Loaded, calibration_path, read_calibration, with_threshold_decay
from .schema import Spec
from .sweep import Cell, Sweep, changes_table, grid_of, name_of, named, tuning_of
from .tuning import Chooser, ContentHash, Tuning

ENDING = "-tuning"


@dataclass(frozen=True)
class TunedPlace:
    """A row in a column for which a setting is to be chosen; `chosen` if that has happened."""

    row: str
    column: dict[str, Any]
    identity: str
    chosen: bool

    def __str__(self) -> str:
        """Name it as messages do."""
        return f"{self.row!r}{at(self.column)}"


@dataclass(frozen=True)
class Stage:
    """The tuning of a sweep.

    Attributes:
        name: Of its folder.
        tuning: What is tried.
        places: For what settings are chosen, in table order.
        cells: One for each row, column, setting and seed; their columns hold the settings too.
        unsolved: Cells whose threshold decay is not known, one a setting; they are not in `cells`.
    """

    name: str
    tuning: Tuning
    places: list[TunedPlace]
    cells: list[Cell] = field(repr=False)
    unsolved: list[Cell] = field(repr=False)

    @property
    def open(self) -> list[TunedPlace]:
        """Those for which no setting is chosen."""
        return [place for place in self.places if not place.chosen]

    def of(self, places: Collection[TunedPlace]) -> list[Cell]:
        """Return the cells of some places."""
        return [cell for cell in self.cells if self._is_of(cell, places)]

    def unsolved_of(self, places: Collection[TunedPlace]) -> list[Cell]:
        """Return those of some places whose threshold decay is not known."""
        return [cell for cell in self.unsolved if self._is_of(cell, places)]

    def _is_of(self, cell: Cell, places: Collection[TunedPlace]) -> bool:
        columns = self.tuning.grid.section.columns
        compared = {key: value for key, value in cell.column.items() if key in columns}
        return any(place.row == cell.row and place.column == compared for place in places)

    def sweep(self, places: Collection[TunedPlace]) -> Sweep:
        """Return the runs of some places as a sweep."""
        grid, section = self.tuning.grid, self.tuning.section
        lost = [{"row": cell.row, "column": cell.column} for cell in self.unsolved_of(places)]
        return Sweep(
            name=self.name,
            title=f"{grid.section.title or name_of(grid)}: tuning",
            notes=None,
            tuning_cells=None,
            column_keys=[*grid.section.columns, *self.tuning.keys],
            baselines={},
            cells=self.of(places),
            config=grid.loaded.path.resolve(),
            overrides=list(filter(changes_table, grid.loaded.overrides)),
            tunes={"columns": list(grid.section.columns), "on": section.on, "unsolved": lost},
        )


def stage(
    loaded: Loaded,
    choose: Chooser,
    decays: Mapping[str, float],
    content_hash: ContentHash | None = None,
) -> Stage | None:
    """Resolve the tuning of a configuration's sweep.

    Args:
        loaded: The configuration.
        choose: Finds what is chosen already.
        decays: Calibrated threshold decays by identity, see `known_decays`.
        content_hash: As for `sweep.expand`.

    Returns:
        The stage, or None if no row is tuned.

    Raises:
        UserError: if the sweep or its tuning is not valid.
    """
    if loaded.sweep is None:
        return None
    grid = grid_of(loaded)
    tuning = tuning_of(grid)
    if tuning is None:
        return None
    places, cells, unsolved = [], [], []
    for row, column in tuning.places():
        chosen = choose(tuning, row, column) is not None
        places.append(TunedPlace(row, column, tuning.identity(row, column), chosen))
        for setting, uncalibrated in tuning.specs(row, column):
            spec = _calibrated(uncalibrated, decays)
            solved = not wants_decay(spec)
            hashed = identity(spec, content_hash(spec) if content_hash else None)
            found = [
                Cell(row, {**column, **setting}, seed, spec.model_copy(update={"seed": seed, "label": row}), hashed, "")
                for seed in tuning.section.seeds
            ]
            (cells if solved else unsolved).extend(found if solved else found[:1])
    return Stage(f"{name_of(grid)}{ENDING}", tuning, places, named(cells), named(unsolved))


def known_decays(files: tuple[Path, ...], *further: Path) -> dict[str, float]:
    """Return all calibrated decays of a configuration's files, by identity; those of its own file count first."""
    paths = [*further, *map(calibration_path, files)]
    return {key: value for path in paths for key, value in read_calibration(path).items()}


def wants_decay(spec: Spec) -> bool:
    """Return whether a specification asks for a calibrated decay that is not filled in."""
    return getattr(spec.representation.options, THRESHOLD_DECAY, None) == CALIBRATED


def _calibrated(spec: Spec, decays: Mapping[str, float]) -> Spec:
    number = decays.get(calibration_identity(spec)) if wants_decay(spec) else None
    return spec if number is None else with_threshold_decay(spec, number)
