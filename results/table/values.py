"""A table as a value: finished cells, which `formats` and `markup` write down."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from results.numbers.measure import Measurements

FIGURE_SPACE = "\u2007"
"""As wide as a digit: pads numbers so that decimal points stand above each other, also in proportional fonts."""


@dataclass(frozen=True)
class TableCell:
    """One cell: numbers at even and literal text at odd places of ``parts``.

    Attributes:
        parts: For example ``("82.13", " ± ", "0.45", " (3)")``.
        side: +1 or -1 for a difference whose interval lies above or below zero, to be set in bold; else 0.
    """

    parts: tuple[str, ...] = ()
    side: int = 0

    @property
    def text(self) -> str:
        """The cell's text; padded with figure spaces after `align`."""
        return "".join(self.parts)


@dataclass(frozen=True)
class TableRow:
    """One table row; ``opens_group`` is True where a new base method begins."""

    cells: tuple[TableCell, ...]
    opens_group: bool


@dataclass(frozen=True)
class TableHead:
    """Heading of one column; neighbours of the same ``group`` share a heading above."""

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
    """Everything a renderer needs; holds no time, date or path, so equal results give equal bytes.

    Attributes:
        name: Short name of the sweep.
        title: Title.
        grids: One for a sweep of a single column; accuracy, differences and costs for several.
        caption: What the numbers mean, a paragraph an element.
        warnings: What keeps rows from being comparable.
        column_keys: Keys that the columns vary.
        measurements: The numbers themselves, for csv.
    """

    name: str
    title: str
    grids: tuple[TableGrid, ...]
    caption: tuple[str, ...]
    warnings: tuple[str, ...]
    column_keys: tuple[str, ...]
    measurements: Measurements


def spans(grid: TableGrid) -> list[tuple[str, int]]:
    """Headings above the column headings, each with the number of columns it spans; all empty if there are none."""
    return [(group, len(list(heads))) for group, heads in groupby(head.group for head in grid.header)]
