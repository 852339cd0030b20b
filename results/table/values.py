"""A table as a value, with finished cells; `formats` and `markup` write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from results.numbers.measure import Measurements

FIGURE_SPACE = "\u2007"
"""A space as wide as a digit: numbers padded with it align at their decimal points, also in proportional fonts."""


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        parts: Numbers at even and literal text at odd positions, such as ``("82.13", " ± ", "0.45", " (3)")``.
        side: +1 or -1 for a difference whose interval lies above or below zero, which is set in bold; otherwise 0.
    """

    parts: tuple[str, ...] = ()
    side: int = 0

    @property
    def text(self) -> str:
        """The cell's text, padded with figure spaces if `align` has been applied."""
        return "".join(self.parts)


@dataclass(frozen=True)
class TableRow:
    """One row of a table; ``opens_group`` is True if it is the first row of a base method."""

    cells: tuple[TableCell, ...]
    opens_group: bool


@dataclass(frozen=True)
class TableHead:
    """Heading of one column; neighbouring columns of the same ``group`` share a heading above."""

    label: str
    group: str = ""


@dataclass(frozen=True)
class TableGrid:
    """One rectangular table with an optional heading."""

    heading: str
    header: tuple[TableHead, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """Everything that a writer needs. It holds no time, date or path, so that equal results give equal bytes.

    Attributes:
        name: Short name of the sweep.
        title: Title of the table.
        grids: One for a sweep of a single column; one each for accuracy, differences and costs for several columns.
        caption: The explanation of the numbers, one element per paragraph.
        warnings: Warnings about rows that are not comparable.
        column_keys: Keys that vary between columns.
        measurements: The numbers themselves, for csv and JSON.
        records: What csv and JSON have in place of measurements, for a table that is not one of cells.
        tuning: How the rows' settings were chosen, for JSON; None if nothing is known.
    """

    name: str
    title: str
    grids: tuple[TableGrid, ...]
    caption: tuple[str, ...]
    warnings: tuple[str, ...]
    column_keys: tuple[str, ...]
    measurements: Measurements
    records: tuple[Mapping[str, Any], ...] | None = None
    tuning: Mapping[str, Any] | None = None


def spans(grid: TableGrid) -> list[tuple[str, int]]:
    """Return the group headings, each with the number of columns that it spans; a heading may be empty."""
    return [(group, len(list(heads))) for group, heads in groupby(head.group for head in grid.header)]
