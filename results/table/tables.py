"""The table of a sweep: a plain value with finished cells, which `formats` and `markup` write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from results.numbers.measure import Measured, Measurements, measure
from results.numbers.stats import Summary
from results.runs.schema import SPARSITY_KEY, Sweep, column_groups, column_id, column_label, inner_key
from results.runs.store import read

from .notes import DAGGER, caption, points, warnings

DASH = "–"
FIGURE_SPACE = "\u2007"
"""As wide as a digit: pads numbers so that decimal points stand above each other, also in proportional fonts."""


@dataclass(frozen=True)
class Cell:
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
class Line:
    """One table row; ``opens_group`` is True where a new base method begins."""

    cells: tuple[Cell, ...]
    opens_group: bool


@dataclass(frozen=True)
class Head:
    """Heading of one column; neighbours of the same ``group`` share a heading above."""

    label: str
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """One rectangular table with an optional heading."""

    heading: str
    header: tuple[Head, ...]
    rows: tuple[Line, ...]


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
    grids: tuple[Grid, ...]
    caption: tuple[str, ...]
    warnings: tuple[str, ...]
    column_keys: tuple[str, ...]
    measurements: Measurements


def spans(grid: Grid) -> list[tuple[str, int]]:
    """Headings above the column headings, each with the number of columns it spans; all empty if there are none."""
    return [(group, len(list(heads))) for group, heads in groupby(head.group for head in grid.header)]


def render(directory: str | Path, format: str = "text") -> str:
    """Read a directory of runs and write its table.

    Args:
        directory: What `results.load` takes.
        format: "text", "markdown", "csv", "latex" or "html".

    Raises:
        UserError: for an unknown format, and as `results.load` does.
    """
    from .formats import renderer

    return renderer(format)(table(read(directory)))


def table(sweep: Sweep) -> Table:
    """Make the table of a sweep that has been read with its results."""
    measurements = measure(sweep)
    grids = _single(sweep, measurements) if len(sweep.columns) == 1 else _several(sweep, measurements)
    return Table(
        name=sweep.name,
        title=sweep.title,
        grids=tuple(grids),
        caption=caption(sweep),
        warnings=warnings(sweep, measurements),
        column_keys=sweep.column_keys,
        measurements=measurements,
    )


Show = Callable[[Measured], Cell]


def _single(sweep: Sweep, measurements: Measurements) -> list[Grid]:
    column = sweep.columns[0]
    shows = [show for _, shows, _ in _blocks(sweep) for show in shows]
    picks = [(Head(title), column, show) for title, show in shows]
    return [_grid(sweep, measurements, column_label(column), picks, sweep.rows)]


def _several(sweep: Sweep, measurements: Measurements) -> list[Grid]:
    by = ", by target sparsity" if inner_key(sweep) == SPARSITY_KEY else ""
    grids = []
    for name, columns in column_groups(sweep):
        for title, shows, rows in _blocks(sweep):
            heading = f"{name}: {title}{by}" if name else f"{title[0].upper()}{title[1:]}{by}"
            # a block of one kind of number says in its heading what it is; several need a heading each
            groups = [group if len(shows) > 1 else "" for group, _ in shows]
            picks = [
                (Head(_inner(sweep, column), group), column, show)
                for group, (_, show) in zip(groups, shows, strict=True)
                for column in columns
            ]
            grids.append(_grid(sweep, measurements, heading, picks, rows))
    return grids


def _blocks(sweep: Sweep) -> list[tuple[str, list[tuple[str, Show]], tuple[str, ...]]]:
    """What a table shows: (title, kinds of numbers with their headings, rows) a block."""
    blocks: list[tuple[str, list[tuple[str, Show]], tuple[str, ...]]] = [
        ("accuracy, %", [("Accuracy, %", _accuracy)], sweep.rows)
    ]
    if sweep.baselines:
        added = tuple(row for row in sweep.rows if row in sweep.baselines)
        title = "Δ to plain, points [95 % CI]"
        blocks.append((title, [(title, _difference)], added))
    costs: list[tuple[str, Show]] = [
        ("Sparsity, %", lambda cell: _spread(cell.sparsity)),
        ("FLOPs, inference", lambda cell: _fraction(cell.inference)),
        ("FLOPs, training", lambda cell: _fraction(cell.training)),
    ]
    blocks.append(("realised sparsity and FLOPs", costs, sweep.rows))
    return blocks


def _inner(sweep: Sweep, column: Mapping[str, Any]) -> str:
    key = inner_key(sweep)
    return column_label(column, (key,)).removesuffix(" sparse") if key else ""


def _grid(
    sweep: Sweep,
    measurements: Measurements,
    heading: str,
    picks: Sequence[tuple[Head, Mapping[str, Any], Show]],
    rows: Sequence[str],
) -> Grid:
    lines, last = [], None
    for row in rows:
        cells = [Cell((row,))]
        for _, column, show in picks:
            measured = measurements.get((row, column_id(column)))
            cells.append(show(measured) if measured else Cell())
        base = sweep.base_of(row)
        lines.append(Line(tuple(cells), opens_group=base != last))
        last = base
    return Grid(heading, (Head("Method"), *(head for head, _, _ in picks)), align(lines))


def align(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Pad the numbers within cells, so that they stand above each other column by column."""
    if not lines:
        return ()
    columns = []
    for cells in list(zip(*(line.cells for line in lines), strict=True))[1:]:
        widths: dict[int, int] = {}
        for cell in cells:
            for place, part in enumerate(cell.parts):
                widths[place] = max(widths.get(place, 0), len(part))
        columns.append([replace(cell, parts=_pad(cell.parts, widths)) for cell in cells])
    first = [line.cells[0] for line in lines]
    return tuple(
        Line(tuple(cells), line.opens_group)
        for line, cells in zip(lines, zip(first, *columns, strict=True), strict=True)
    )


def _pad(parts: tuple[str, ...], widths: Mapping[int, int]) -> tuple[str, ...]:
    return tuple(
        part if place % 2 else FIGURE_SPACE * (widths[place] - len(part)) + part for place, part in enumerate(parts)
    )


def _seeds(cell: Measured) -> str:
    return f" ({cell.done})" if cell.done == cell.planned else f" ({cell.done} of {cell.planned})"


def _accuracy(cell: Measured) -> Cell:
    if cell.accuracy is None:
        return Cell((DASH, _seeds(cell)))
    std = DASH if cell.accuracy.std is None else f"{100 * cell.accuracy.std:.2f}"
    mark = f" {DAGGER}" if cell.off_target is not None else ""
    return Cell((f"{100 * cell.accuracy.mean:.2f}", " ± ", std, _seeds(cell) + mark))


def _difference(cell: Measured) -> Cell:
    if cell.plain is None:
        return Cell()
    difference = cell.difference
    if difference is None:
        return Cell((DASH, " (0)"))
    mark = "" if cell.comparable else f" {DAGGER}"
    low, high = (DASH if bound is None else points(bound) for bound in (difference.low, difference.high))
    parts = (points(difference.mean), " [", low, ", ", high, f"] ({difference.n}){mark}")
    return Cell(parts, side=difference.side if cell.comparable else 0)


def _spread(sample: Summary | None) -> Cell:
    """A sparsity in per cent; its spread over seeds only where it shows at this precision."""
    if sample is None:
        return Cell((DASH,))
    std = f"{100 * (sample.std or 0):.2f}"
    spread = (" ± ", std) if float(std) else ()
    return Cell((f"{100 * sample.mean:.2f}", *spread))


def _fraction(sample: Summary | None) -> Cell:
    return Cell((DASH,)) if sample is None else Cell((f"{sample.mean:.3f}",))
