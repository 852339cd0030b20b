"""Construction of a sweep's table from its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from experiments.errors import UserError, nearest
from results.numbers.measure import Measured, Measurements, measure
from results.numbers.stats import Summary
from results.runs.facts import Settings, settings
from results.runs.schema import SPARSITY_KEY, SweepResults, column_groups, column_id, column_label, inner_key

from .notes import DAGGER, caption, points
from .origin import distributions, title
from .values import FIGURE_SPACE, Table, TableCell, TableGrid, TableHead, TableRow
from .warned import warnings

DASH = "–"

SHOWN = ("accuracy", "delta", "sparsity", "flops")
"""What a table shows unless asked for something else."""
DIGITS = 2
Pick = Callable[[Measured], TableCell]
Kinds = Mapping[str, list[tuple[str, Pick]]]


def table(
    sweep: SweepResults,
    shown: Sequence[str] = SHOWN,
    digits: int = DIGITS,
    known: tuple[Measurements, Settings] | None = None,
) -> Table:
    """Make the table of a sweep that has been read with its results.

    Args:
        sweep: The sweep.
        shown: The kinds of number, keys of `KINDS`; also "layers", which is shown anyway where rows differ in it.
        digits: Decimal places of accuracies and differences in per cent.
        known: Measurements and configurations of the sweep, if the caller has read them.

    Raises:
        UserError: for a kind that does not exist.
    """
    for kind in shown:
        if kind not in (*KINDS, LAYERS):
            allowed = (*KINDS, LAYERS)
            raise UserError(
                f"{kind!r} cannot be shown; allowed: {', '.join(allowed)}{nearest(kind, allowed)}", "--show"
            )
    measurements, specs = known or (measure(sweep), settings(sweep))
    layers = distributions(sweep, specs)
    if LAYERS not in shown and len(set(filter(None, layers.values()))) < 2:
        layers = {}
    wanted = [kind for kind in KINDS if kind in shown and (sweep.baselines or kind not in COMPARED)]
    kinds = {kind: [(head, partial(show, digits=digits)) for head, show in KINDS[kind]] for kind in wanted}
    make = _single if len(sweep.columns) == 1 else _several
    return Table(
        name=sweep.name,
        title=title(sweep),
        grids=tuple(make(sweep, measurements, kinds, layers)),
        caption=caption(sweep, measurements, specs, kinds),
        warnings=warnings(sweep, measurements, specs),
        column_keys=sweep.column_keys,
        measurements=measurements,
        tuning=sweep.tuning,
    )


def _single(
    sweep: SweepResults, measurements: Measurements, kinds: Kinds, layers: Mapping[str, str]
) -> list[TableGrid]:
    column = sweep.columns[0]
    picks = [(TableHead(head), column, show) for heads in kinds.values() for head, show in heads]
    return [_grid(sweep, measurements, column_label(column), picks, sweep.rows, layers)]


def _several(
    sweep: SweepResults, measurements: Measurements, kinds: Kinds, layers: Mapping[str, str]
) -> list[TableGrid]:
    by = ", by target sparsity" if inner_key(sweep) == SPARSITY_KEY else ""
    added = tuple(row for row in sweep.rows if row in sweep.baselines)
    grids = []
    for name, columns in column_groups(sweep):
        for heading, heads in _blocks(kinds):
            full = f"{name}: {_lower(heading)}{by}" if name else f"{heading}{by}"
            # a block with one kind of number has it in its heading; with several, each needs its own heading
            picks = [
                (TableHead(_inner(sweep, column), head if len(heads) > 1 else ""), column, show)
                for head, show in heads
                for column in columns
            ]
            compared = heads[0] in [kinds[kind][0] for kind in COMPARED if kind in kinds]
            rows = added if compared else sweep.rows
            grids.append(_grid(sweep, measurements, full, picks, rows, layers if not grids else {}))
    return grids


def _blocks(kinds: Kinds) -> list[tuple[str, list[tuple[str, Pick]]]]:
    """Return the grids of a table of several columns, each as (heading, kinds of numbers): costs share one."""
    blocks = [(heads[0][0], heads) for kind, heads in kinds.items() if kind not in COSTS]
    costs = [head for kind in COSTS if kind in kinds for head in kinds[kind]]
    named = " and ".join(COSTS[kind] for kind in COSTS if kind in kinds)
    named = named[:1].upper() + named[1:]
    return blocks + ([(named, costs)] if costs else [])


def _lower(head: str) -> str:
    return head if head[:1] in "Δp" else head[0].lower() + head[1:]


def _inner(sweep: SweepResults, column: Mapping[str, Any]) -> str:
    key = inner_key(sweep)
    return column_label(column, (key,)).removesuffix(" sparse") if key else ""


def _grid(
    sweep: SweepResults,
    measurements: Measurements,
    heading: str,
    picks: Sequence[tuple[TableHead, Mapping[str, Any], Pick]],
    rows: Sequence[str],
    layers: Mapping[str, str],
) -> TableGrid:
    lines, last = [], None
    for row in rows:
        cells = [TableCell((row,))]
        if layers:
            cells.append(TableCell(("", layers[row])) if layers[row] else TableCell())
        for _, column, show in picks:
            measured = measurements.get((row, column_id(column)))
            cells.append(show(measured) if measured else TableCell())
        base = sweep.base_of(row)
        lines.append(TableRow(tuple(cells), opens_group=base != last))
        last = base
    first = (TableHead("Method"), *((TableHead("Layers"),) if layers else ()))
    return TableGrid(heading, (*first, *(head for head, _, _ in picks)), align(lines))


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


def _accuracy(cell: Measured, digits: int) -> TableCell:
    if cell.accuracy is None:
        return TableCell((DASH, _seeds(cell)))
    std = DASH if cell.accuracy.std is None else f"{100 * cell.accuracy.std:.{digits}f}"
    mark = f" {DAGGER}" if cell.off_target is not None else ""
    return TableCell((f"{100 * cell.accuracy.mean:.{digits}f}", " ± ", std, _seeds(cell) + mark))


def _difference(cell: Measured, digits: int) -> TableCell:
    if cell.plain is None:
        return TableCell()
    difference = cell.difference
    if difference is None:
        return TableCell((DASH, " (0)"))
    mark = "" if cell.comparable else f" {DAGGER}"
    low, high = (DASH if bound is None else points(bound, digits) for bound in (difference.low, difference.high))
    parts = (points(difference.mean, digits), " [", low, ", ", high, f"] ({difference.n}){mark}")
    return TableCell(parts, side=difference.verdict)


def _corrected(cell: Measured, digits: int) -> TableCell:
    """Return the p-value over all of the table; a dash where nothing is judged."""
    if cell.plain is None:
        return TableCell()
    value = cell.difference and cell.difference.p_holm
    return TableCell(
        (DASH if value is None else f"{value:.3f}",), side=cell.difference.verdict if cell.difference else 0
    )


def _train(cell: Measured, digits: int) -> TableCell:
    if cell.train is None:
        return TableCell((DASH,))
    std = DASH if cell.train.std is None else f"{100 * cell.train.std:.{digits}f}"
    return TableCell((f"{100 * cell.train.mean:.{digits}f}", " ± ", std))


def _spread(sample: Summary | None) -> TableCell:
    """Return a sparsity in per cent, with its spread over seeds if that is visible at this precision."""
    if sample is None:
        return TableCell((DASH,))
    std = f"{100 * (sample.std or 0):.2f}"
    spread = (" ± ", std) if float(std) else ()
    return TableCell((f"{100 * sample.mean:.2f}", *spread))


def _fraction(sample: Summary | None) -> TableCell:
    return TableCell((DASH,)) if sample is None else TableCell((f"{sample.mean:.3f}",))


def _updates(sample: Summary | None) -> TableCell:
    """Return how often masks changed, the fewest and the most where seeds differ."""
    bounds = [] if sample is None else dict.fromkeys(f"{bound:,.0f}" for bound in (sample.low, sample.high))
    return TableCell(("–".join(bounds) or DASH,))


LAYERS = "layers"
KINDS: Mapping[str, tuple[tuple[str, Callable[..., TableCell]], ...]] = {
    "accuracy": (("Accuracy, %", _accuracy),),
    "train": (("Training accuracy, %", _train),),
    "delta": (("Δ to plain, points [95 % CI]", _difference),),
    "p": (("p (Holm)", _corrected),),
    "sparsity": (("Sparsity, %", lambda cell, digits: _spread(cell.sparsity)),),
    "updates": (("Mask updates", lambda cell, digits: _updates(cell.updates)),),
    "flops": (
        ("FLOPs, inference", lambda cell, digits: _fraction(cell.inference)),
        ("FLOPs, training", lambda cell, digits: _fraction(cell.training)),
    ),
}
"""Kinds of number that a table can show: headings of their columns, and what stands in a cell."""
COMPARED = ("delta", "p")
COSTS = {"sparsity": "realised sparsity", "updates": "mask updates", "flops": "FLOPs"}
