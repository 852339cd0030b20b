"""Where rows, columns and their names are in figures; names are shortened and wrapped so that they fit."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from results.runs.schema import SweepResults, column_groups, column_label, variant_of

from .drawing import INK, WIDTH, clean, looks, panels

LONGEST = 44
"""Characters of a row's name that figures show; tables have all of it."""
_LETTER = 0.075
"""Width of a letter in inches, at the size of titles and a little more than on average."""
_HANDLE = 0.55
"""Width of a line and of the gaps around it in a legend, in inches."""
_LINE = 0.17
"""Height of a legend's line in inches."""


def short(name: str, most: int = LONGEST) -> str:
    """Return a name with an ellipsis in its middle if it is too long: beginnings and ends tell rows apart."""
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"


def wrapped(name: str, inches: float, lines: int = 2) -> str:
    """Return a name in as many lines as it takes, of those that there is room for."""
    width = max(6, int(inches / _LETTER))
    return "\n".join(textwrap.wrap(short(name, width * lines), width)[:lines])


def column_panels(
    sweep: SweepResults, lines: int, *, sharex: bool
) -> tuple[Figure, list[tuple[Axes, Mapping[str, Any]]]]:
    """Make a figure with one panel per column of the table, each with space for a number of lines.

    Returns:
        The figure, and (axes, column) in table order.
    """
    chunks = []
    for _, columns in column_groups(sweep):
        across = len(columns) if len(columns) <= 4 else 3
        chunks += [columns[start : start + across] for start in range(0, len(columns), across)]
    single = len(sweep.columns) == 1
    # a panel needs height for its lines, its tick labels and, of several, its title; the figure for its axis label
    height = 0.35 + len(chunks) * (0.3 + (0 if single else 0.3) + max(2, lines) * (0.24 if single else 0.2))
    figure, axes = panels(len(chunks), max(map(len, chunks)), height, sharex=sharex, sharey=True, gap=0.06)
    used = []
    for line, chunk in zip(axes, chunks, strict=True):
        for axis in line[len(chunk) :]:
            axis.set_visible(False)
        for axis, column in zip(line, chunk, strict=False):
            clean(axis)
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5 if len(chunk) > 1 else 8, steps=[1, 2, 2.5, 5, 10]))
            if not single:
                axis.set_title(wrapped(column_label(column), WIDTH / (len(chunk) + 1)))
            used.append((axis, column))
    return figure, used


def by_base(sweep: SweepResults, rows: Iterable[str]) -> list[str]:
    """Sort rows so that every addition follows its plain row; otherwise in table order."""
    rows = list(rows)
    bases = list(dict.fromkeys(sweep.base_of(row) for row in rows))
    return sorted(rows, key=lambda row: (bases.index(sweep.base_of(row)), row in sweep.baselines))


def heights_of(sweep: SweepResults, rows: Sequence[str]) -> list[float]:
    """Return the vertical position of each row, downwards from 0, with a gap between base methods."""
    places, y, last = [], 0.0, None
    for row in rows:
        if last is not None:
            y += 1.0 if sweep.base_of(row) == last else 1.5
        last = sweep.base_of(row)
        places.append(y)
    return places


def row_labels(
    axis: Axes, sweep: SweepResults, rows: Sequence[str], places: Sequence[float], *, full: bool = False
) -> None:
    """Write the rows' names in their colours.

    Args:
        axis: The axes to label.
        sweep: The sweep, which knows the plain row of each row.
        rows: Labels in the order of ``places``.
        places: Vertical positions in data units.
        full: Whether to write full labels instead of "+ HAM" below the plain row.
    """
    variants = [variant_of(sweep, row) for row in rows]
    names = [row if full or variant == "plain" else variant for row, variant in zip(rows, variants, strict=True)]
    place = axis.get_subplotspec()
    if place is None or not place.is_first_col():
        return  # panels side by side share their labels
    axis.set_ylim(max(places) + 0.7, -0.7)
    axis.set_yticks(list(places), list(map(short, names)))
    palette = looks(sweep)
    for label, variant in zip(axis.get_yticklabels(), variants, strict=True):
        label.set_color(INK if variant == "plain" else palette[variant].color)


def legend(figure: Figure, sweep: SweepResults, variants: list[str]) -> None:
    """Add a legend of the variants above the panels."""
    shown = {name: look for name, look in looks(sweep).items() if name in variants}
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4, linewidth=1.6, label=name)
        for name, look in shown.items()
    ]
    above(figure, handles)


def above(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Add a legend above the panels, in as many columns as there is room for."""
    for handle in handles:
        handle.set_label(short(str(handle.get_label())))
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = max(1, min(8, int(WIDTH / (longest * _LETTER + _HANDLE))))
    lines = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + _LINE * max(0, lines - 1))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, labelcolor=INK, markerscale=0.8)
