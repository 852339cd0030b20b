"""Construction of a sweep's table from its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from results.numbers.measure import Measured, Measurements, measure
from results.numbers.stats import Summary
from results.runs.schema import SPARSITY_KEY, SweepResults, column_groups, column_id, column_label, inner_key

from .notes import DAGGER, caption, points, warnings
from .values import FIGURE_SPACE, Table, TableCell, TableGrid, TableHead, TableRow

DASH = "–"


def table(sweep: SweepResults) -> Table:
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


Show = Callable[[Measured], TableCell]


def _single(sweep: SweepResults, measurements: Measurements) -> list[TableGrid]:
    column = sweep.columns[0]
    shows = [show for _, shows, _ in _blocks(sweep) for show in shows]
    picks = [(TableHead(title), column, show) for title, show in shows]
    return [_grid(sweep, measurements, column_label(column), picks, sweep.rows)]


def _several(sweep: SweepResults, measurements: Measurements) -> list[TableGrid]:
    by = ", by target sparsity" if inner_key(sweep) == SPARSITY_KEY else ""
    grids = []
    for name, columns in column_groups(sweep):
        for title, shows, rows in _blocks(sweep):
            heading = f"{name}: {title}{by}" if name else f"{title[0].upper()}{title[1:]}{by}"
            # a block with one kind of number has it in its heading; with several, each needs its own heading
            groups = [group if len(shows) > 1 else "" for group, _ in shows]
            picks = [
                (TableHead(_inner(sweep, column), group), column, show)
                for group, (_, show) in zip(groups, shows, strict=True)
                for column in columns
            ]
            grids.append(_grid(sweep, measurements, heading, picks, rows))
    return grids


def _blocks(sweep: SweepResults) -> list[tuple[str, list[tuple[str, Show]], tuple[str, ...]]]:
    """Return the blocks of a table, each as (title, kinds of numbers with their headings, rows)."""
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


def _inner(sweep: SweepResults, column: Mapping[str, Any]) -> str:
    key = inner_key(sweep)
    return column_label(column, (key,)).removesuffix(" sparse") if key else ""


def _grid(
    sweep: SweepResults,
    measurements: Measurements,
    heading: str,
    picks: Sequence[tuple[TableHead, Mapping[str, Any], Show]],
    rows: Sequence[str],
) -> TableGrid:
    lines, last = [], None
    for row in rows:
        cells = [TableCell((row,))]
        for _, column, show in picks:
            measured = measurements.get((row, column_id(column)))
            cells.append(show(measured) if measured else TableCell())
        base = sweep.base_of(row)
        lines.append(TableRow(tuple(cells), opens_group=base != last))
        last = base
    return TableGrid(heading, (TableHead("Method"), *(head for head, _, _ in picks)), align(lines))


def align(lines: Sequence[TableRow]) -> tuple[TableRow, ...]:
    """Pad the numbers within cells so that they align in each column."""
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
        TableRow(tuple(cells), line.opens_group)
        for line, cells in zip(lines, zip(first, *columns, strict=True), strict=True)
    )


def _pad(parts: tuple[str, ...], widths: Mapping[int, int]) -> tuple[str, ...]:
    return tuple(
        part if place % 2 else FIGURE_SPACE * (widths[place] - len(part)) + part for place, part in enumerate(parts)
    )


def _seeds(cell: Measured) -> str:
    return f" ({cell.done})" if cell.done == cell.planned else f" ({cell.done} of {cell.planned})"


def _accuracy(cell: Measured) -> TableCell:
    if cell.accuracy is None:
        return TableCell((DASH, _seeds(cell)))
    std = DASH if cell.accuracy.std is None else f"{100 * cell.accuracy.std:.2f}"
    mark = f" {DAGGER}" if cell.off_target is not None else ""
    return TableCell((f"{100 * cell.accuracy.mean:.2f}", " ± ", std, _seeds(cell) + mark))


def _difference(cell: Measured) -> TableCell:
    if cell.plain is None:
        return TableCell()
    difference = cell.difference
    if difference is None:
        return TableCell((DASH, " (0)"))
    mark = "" if cell.comparable else f" {DAGGER}"
    low, high = (DASH if bound is None else points(bound) for bound in (difference.low, difference.high))
    parts = (points(difference.mean), " [", low, ", ", high, f"] ({difference.n}){mark}")
    return TableCell(parts, side=difference.side if cell.comparable else 0)


def _spread(sample: Summary | None) -> TableCell:
    """Return a sparsity in per cent, with its spread over seeds if that is visible at this precision."""
    if sample is None:
        return TableCell((DASH,))
    std = f"{100 * (sample.std or 0):.2f}"
    spread = (" ± ", std) if float(std) else ()
    return TableCell((f"{100 * sample.mean:.2f}", *spread))


def _fraction(sample: Summary | None) -> TableCell:
    return TableCell((DASH,)) if sample is None else TableCell((f"{sample.mean:.3f}",))
