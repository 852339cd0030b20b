"""The density of each layer of each row, as a map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from results.runs.schema import RunEntry, SweepResults, column_label

from .drawing import INK, MUTED, panels
from .layout import short
from .material import Material

LINES = 40
"""Rows that a map has at most."""
WRITTEN = 16
"""Layers up to which the numbers are written into the map."""

Densities = Mapping[str, Mapping[str, float]]


def layer_densities(done: list[RunEntry]) -> dict[str, float]:
    """Return the density of each layer, averaged over finished runs."""
    found: dict[str, list[float]] = {}
    for entry in done:
        for name, layer in (entry.result.get("layers") or {}).items():
            if layer.get("size"):
                found.setdefault(name, []).append(layer["nonzero"] / layer["size"])
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def of_rows(sweep: SweepResults, column: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the densities by row and layer of one column, without rows that are dense throughout."""
    found = {row: layer_densities(sweep.cell(row, column)) for row in sweep.rows}
    return {row: values for row, values in found.items() if any(value < 1 for value in values.values())}


def layers(material: Material) -> Figure | None:
    """Draw the density of layers at the end of training, for one column: the sparsest that has results.

    Returns:
        The figure, or None if no row has a pruned layer, or there are more than `LINES`.
    """
    sweep = material.sweep
    found = [(column, of_rows(sweep, column)) for column in sweep.columns]
    found = [(column, rows) for column, rows in found if rows]
    if not found:
        return None
    column, rows = min(found, key=lambda pair: sum(sum(v.values()) / len(v) for v in pair[1].values()) / len(pair[1]))
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    if len(rows) > LINES:
        return None
    figure, ((axis,),) = panels(1, 1, 1.35 + 0.2 * len(rows))
    _draw(figure, axis, rows, names)
    if len(sweep.columns) > 1:
        axis.set_title(column_label(column))
    return figure


def _draw(figure: Figure, axis: Axes, rows: Densities, names: list[str]) -> None:
    values = [[rows[row].get(name, math.nan) for name in names] for row in rows]
    positive = [value for line in values for value in line if value > 0]
    scale = LogNorm(min([0.5, *positive]), 1.0)
    shown = [[max(value, scale.vmin or 0.5) if value == value else value for value in line] for line in values]
    drawn = axis.pcolormesh(shown, norm=scale, cmap="viridis", edgecolors="white", linewidth=0.4)
    axis.invert_yaxis()
    axis.set_yticks([place + 0.5 for place in range(len(rows))], list(map(short, rows)))
    layers = [short(name.removesuffix(".weight"), 24) for name in names]
    every = max(1, math.ceil(len(names) / 28))
    axis.set_xticks(
        [place + 0.5 for place in range(0, len(names), every)],
        layers[::every],
        rotation=45 if len(names) > 6 else 0,
        ha="right" if len(names) > 6 else "center",
        fontsize=7,
    )
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if len(names) <= WRITTEN:
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value == value:
                    dark = scale(max(value, scale.vmin or 0.5)) < 0.6
                    color = "#fefefe" if dark else "#101010"  # on the map's own colours, on a dark page too
                    axis.text(
                        x + 0.5, y + 0.5, f"{100 * value:.3g}", ha="center", va="center", color=color, fontsize=6.5
                    )
    bar = figure.colorbar(drawn, ax=axis, shrink=0.9, pad=0.01, aspect=18)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)  # a page loads no picture, not even one of its own
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=MUTED)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axis.set_xlabel("layer, in the order of the network", color=INK if len(names) > 28 else MUTED)
