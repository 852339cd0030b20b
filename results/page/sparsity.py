"""Accuracy over sparsity, all methods of a table in one panel, with published figures beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.numbers.measure import Measured, Measurements
from results.numbers.reproduction import Beside
from results.runs.schema import (
    SPARSITY_KEY,
    SweepResults,
    column_groups,
    column_id,
    inner_key,
    is_number,
    variant_of,
)

from .curves import band
from .drawing import COLORS, DASHES, MUTED, WIDTH, VariantStyle, clean, looks, panels
from .layout import above, short, wrapped
from .material import Material

_PUBLISHED = ("o", "s", "D", "^", "v", "P", "X", "h")
"""Hollow markers of published figures, by source."""

Columns = Sequence[Mapping[str, Any]]


def over_sparsity(material: Material) -> Figure | None:
    """Draw accuracy over target sparsity, all methods in one panel, with bands of one sample standard deviation.

    A base method has a colour and its additions have line styles; rows without a target (dense) are grey lines.
    Published figures of the same network are hollow markers, joined by a thin line in the style of their row.

    Returns:
        The figure, with one panel per model or other column key; None if the table has fewer than two sparsities, or
        more methods than colours can tell.
    """
    sweep, measurements = material.sweep, material.measurements
    groups = [(name, columns) for name, columns in column_groups(sweep) if len(columns) > 1]
    sparse = [row for row in sweep.rows if any(c.target is not None for c in _cells(measurements, row, sweep.columns))]
    bases = list(dict.fromkeys(sweep.base_of(row) for row in sparse))
    numbers = all(is_number(column.get(SPARSITY_KEY)) for column in sweep.columns)
    if not numbers or inner_key(sweep) != SPARSITY_KEY or not groups or not bases or len(bases) > len(COLORS):
        return None
    across = min(2, len(groups))
    lines = math.ceil(len(groups) / across)
    figure, axes = panels(lines, across, 0.9 + 3.0 * lines, sharex=False, sharey=False)
    styles = {row: _line(sweep, row, bases) for row in sparse}
    found = sorted(published(material), key=_source_and_row)
    markers = {key: _PUBLISHED[at % len(_PUBLISHED)] for at, key in enumerate(sources(material))}
    flat = [axis for line in axes for axis in line]
    for (name, columns), axis in zip(groups, flat, strict=False):
        clean(axis, "y")
        axis.set_title(wrapped(name, 0.85 * WIDTH / across))
        _sparsity_axis(axis, columns)
        dense = [row for row in sweep.rows if row not in sparse and row not in sweep.baselines]
        _dense_lines(axis, dense, measurements, columns)
        for row, (color, dashes) in styles.items():
            cells = [cell for cell in _cells(measurements, row, columns) if cell.accuracy is not None]
            places = [_place(float(cell.column[SPARSITY_KEY]), columns) for cell in cells]
            samples = [cell.accuracy for cell in cells if cell.accuracy is not None]
            band(axis, places, samples, VariantStyle(color, looks(sweep)[variant_of(sweep, row)].marker), dashes, True)
        for (key, row), pairs in groupby([p for p in found if p.ours.column in columns], _source_and_row):
            color, dashes = styles[row]
            places, stated = zip(
                *sorted((_place(p.figure.sparsity, columns), p.figure.top1) for p in pairs), strict=True
            )
            axis.plot(places, stated, color=color, linestyle=dashes, linewidth=0.6, **_hollow(markers[key]))
    for axis in flat[len(groups) :]:
        axis.set_visible(False)
    figure.supxlabel("target sparsity", fontsize=8, color=MUTED)
    figure.supylabel("accuracy, %", fontsize=8, color=MUTED)
    handles = [
        Line2D([], [], color=color, linestyle=dashes, marker=looks(sweep)[variant_of(sweep, row)].marker, label=row)
        for row, (color, dashes) in styles.items()
    ]
    handles += [
        Line2D([], [], color=MUTED, linestyle="none", label=f"published: {key}", **_hollow(marker))
        for key, marker in markers.items()
    ]
    above(figure, handles)
    return figure


def published(material: Material) -> Iterator[Beside]:
    """Yield the published figures that are drawn: of rows with a target, in the order of the table."""
    return (pair for pair in material.beside if pair.ours.target is not None)


def sources(material: Material) -> dict[str, str]:
    """Return the keys of the sources whose figures are drawn, and their citations."""
    return {pair.figure.key: pair.figure.source for pair in published(material)}


def _source_and_row(pair: Beside) -> tuple[str, str]:
    return pair.figure.key, pair.ours.row


def _hollow(marker: str) -> dict[str, Any]:
    return {"marker": marker, "markerfacecolor": "none", "markersize": 6.5}


def _line(sweep: SweepResults, row: str, bases: Sequence[str]) -> tuple[str, Any]:
    base = sweep.base_of(row)
    variants = [other for other in sweep.rows if sweep.base_of(other) == base]
    return COLORS[bases.index(base)], DASHES[variants.index(row) % len(DASHES)]


def _cells(measurements: Measurements, row: str, columns: Columns) -> list[Measured]:
    found = (measurements.get((row, column_id(column))) for column in columns)
    return [cell for cell in found if cell is not None]


def _place(sparsity: float, columns: Columns) -> float:
    """Return the axis position: each halving of the density is one step, so 90, 95 and 97.5 % are equally spaced."""
    if all(0 <= float(column[SPARSITY_KEY]) < 1 for column in columns):
        return -math.log2(1 - sparsity)
    return sparsity


def _sparsity_axis(axis: Axes, columns: Columns) -> None:
    values = [float(column[SPARSITY_KEY]) for column in columns]
    axis.set_xticks([_place(value, columns) for value in values], [f"{100 * value:g} %" for value in values])
    axis.margins(x=0.1)


def _dense_lines(axis: Axes, rows: Sequence[str], measurements: Measurements, columns: Columns) -> None:
    for row in rows:
        cells = [cell for cell in _cells(measurements, row, columns) if cell.accuracy is not None]
        if cells and cells[0].accuracy is not None:
            y = 100 * cells[0].accuracy.mean
            axis.axhline(y, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            axis.annotate(
                short(row),
                (0, y),
                xycoords=("axes fraction", "data"),
                xytext=(2, 2),
                textcoords="offset points",
                color=MUTED,
                fontsize=7,
            )
