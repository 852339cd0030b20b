"""Accuracy over the multiply-adds of training, and which rows no other row beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.runs.schema import SweepResults, column_id, column_label, variant_of

from .drawing import INK, MUTED, WIDTH, clean, looks, panels
from .layout import short, wrapped
from .material import Material

ACROSS = 2
MOST, ROWS = 12, 40
"""Columns that are drawn at most, and rows that their labels leave room for."""


@dataclass(frozen=True)
class Point:
    """A row in one column: what its training costs, and what it reaches.

    Attributes:
        row: Label of the row.
        cost: Multiply-adds of training, as a fraction of dense training of the same length.
        accuracy: Mean over seeds, a fraction.
        std: Sample standard deviation; 0 of a single seed.
        front: Whether no row of this column is as accurate for less, or more accurate for as much (by the means).
    """

    row: str
    cost: float
    accuracy: float
    std: float
    front: bool


def points(material: Material, column: Mapping[str, Any]) -> list[Point]:
    """Return the rows that have finished runs in a column, by cost."""
    cells = [material.measurements.get((row, column_id(column))) for row in material.sweep.rows]
    found = [
        (cell.row, cell.training.mean, cell.accuracy.mean, cell.accuracy.std or 0.0)
        for cell in cells
        if cell is not None and cell.training is not None and cell.accuracy is not None
    ]
    return sorted(
        (
            Point(row, cost, mean, std, not any(_beats((other[1], other[2]), (cost, mean)) for other in found))
            for row, cost, mean, std in found
        ),
        key=lambda point: (point.cost, -point.accuracy),
    )


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether a pair of cost and accuracy is at least as good in both, and better in one."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def pareto(material: Material) -> Figure | None:
    """Draw accuracy over training FLOPs, a line through the rows that no other beats.

    Returns:
        The figure, with one panel per column, or None without two rows of different cost.
    """
    sweep = material.sweep
    drawn = [(column, points(material, column)) for column in sweep.columns]
    columns = [(column, found) for column, found in drawn if len({point.cost for point in found}) > 1][:MOST]
    if not columns or max(len(found) for _, found in columns) > ROWS:
        return None
    across = min(ACROSS, len(columns))
    lines = -(-len(columns) // across)
    figure, axes = panels(lines, across, 0.5 + lines * (4.2 if across == 1 else 3.4))
    flat = [axis for line in axes for axis in line]
    for (column, found), axis in zip(columns, flat, strict=False):
        clean(axis, "y")
        axis.set_title(wrapped(column_label(column), 0.6 * WIDTH / across) if len(sweep.columns) > 1 else "")
        _draw(axis, sweep, found)
    for axis in flat[len(columns) :]:
        axis.set_visible(False)
    figure.supxlabel("multiply-adds of training, as a fraction of dense training", fontsize=8, color=MUTED)
    figure.supylabel("accuracy, %", fontsize=8, color=MUTED)
    return figure


def _draw(axis: Axes, sweep: SweepResults, found: Sequence[Point]) -> None:
    front = [point for point in found if point.front]
    axis.plot([p.cost for p in front], [100 * p.accuracy for p in front], color=MUTED, linewidth=0.8, zorder=1)
    for point in found:
        look = looks(sweep)[variant_of(sweep, point.row)]
        y, spread = 100 * point.accuracy, 100 * point.std
        axis.plot([point.cost] * 2, [y - spread, y + spread], color=look.color, linewidth=1.0)
        axis.plot(
            [point.cost],
            [y],
            look.marker,
            color=look.color,
            markersize=5,
            markerfacecolor=look.color if point.front else "white",
        )
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.margins(x=0.04, y=0.08)
    _label(axis, found)


def _label(axis: Axes, found: Sequence[Point]) -> None:
    """Write the rows' names beside the axes, in the order of their accuracy, each with a line to its point."""
    low, high = axis.get_ylim()
    step = (high - low) / max(len(found), 1)
    ordered = sorted(found, key=lambda point: point.accuracy)
    gap = min(step, (high - low) * 0.055)
    places, y = [], low - gap
    for point in ordered:
        y = max(y + gap, 100 * point.accuracy)
        places.append(y)
    over = max(0.0, places[-1] - high) if places else 0.0
    for place in range(len(places) - 1, -1, -1):  # push down what would leave at the top
        ceiling = high if place == len(places) - 1 else places[place + 1] - gap
        places[place] = min(places[place], ceiling) if over else places[place]
    for point, y in zip(ordered, places, strict=True):
        axis.annotate(
            short(point.row),
            xy=(point.cost, 100 * point.accuracy),
            xycoords="data",
            xytext=(1.03, y),
            textcoords=axis.get_yaxis_transform(),
            va="center",
            color=INK if point.front else MUTED,
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.35, "shrinkB": 3, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
