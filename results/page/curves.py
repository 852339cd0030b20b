"""Figures over epochs: accuracy, signs and masks; `sparsity` has accuracy over sparsity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.numbers.stats import Summary, summarise
from results.runs.schema import SweepResults, column_label, variant_of

from .drawing import INK, MUTED, WIDTH, VariantStyle, clean, looks, panels
from .layout import by_base, legend, wrapped
from .material import Curve, Material

MOST = 60
"""Panels that a figure has at most."""

ACROSS = 3
"""Number of panels side by side if each base method has one panel."""


def training(material: Material) -> Figure | None:
    """Draw validation accuracy over epochs, from where a quarter of training has gone by."""
    return _over_epochs(material, "validation_accuracy", "validation accuracy, %", late=True)


def flips(material: Material) -> Figure | None:
    """Draw over epochs how many signs of active weights differ from those of the start."""
    return _over_epochs(material, "sign_flips_initial", "flipped signs, %")


def overlap(material: Material) -> Figure | None:
    """Draw over epochs how much of the initial mask is left."""
    return _over_epochs(material, "overlap_initial", "overlap, %")


def too_many(sweep: SweepResults) -> bool:
    """Return whether a table has too many rows and columns for a panel of each."""
    return len({sweep.base_of(row) for row in sweep.rows}) * len(sweep.columns) > MOST


def _over_epochs(material: Material, entry: str, label: str, *, late: bool = False) -> Figure | None:
    """Draw a line for the mean and a band of one sample standard deviation over seeds.

    Args:
        material: The results.
        entry: One of `material.DRAWN`.
        label: Label of the axis.
        late: Whether the axis shows only what comes after the first quarter; early epochs may leave the frame.

    Returns:
        The figure, with one panel per base method and column, or None if no finished run has such an entry, or `MOST`
        panels would not do.
    """
    sweep = material.sweep
    if too_many(sweep) or not any(material.curve(run, entry) for run in sweep.runs):
        return None
    bases = list(dict.fromkeys(sweep.base_of(row) for row in sweep.rows))
    figure, axes = _grid(bases, sweep.columns)
    low = math.inf
    for base, line in zip(bases, axes, strict=True):
        for column, axis in zip(sweep.columns, line, strict=True):
            for row in by_base(sweep, [row for row in sweep.rows if sweep.base_of(row) == base]):
                samples = _over_seeds([material.curve(run, entry) for run in sweep.cell(row, column)])
                end = max(samples, default=0)
                last = [sample for epoch, sample in samples.items() if epoch >= end / 4]
                low = min([low, *(100 * (sample.mean - (sample.std or 0)) for sample in last)])
                band(
                    axis,
                    sorted(samples),
                    [samples[epoch] for epoch in sorted(samples)],
                    looks(sweep)[variant_of(sweep, row)],
                )
            axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    if late and math.isfinite(low):
        for axis in (axis for line in axes for axis in line):
            axis.set_ylim(bottom=max(axis.get_ylim()[0], low - 1))
    figure.supxlabel("epoch", fontsize=8, color=MUTED)
    figure.supylabel(label, fontsize=8, color=MUTED)
    legend(figure, sweep, [variant_of(sweep, row) for row in sweep.rows])
    return figure


def _grid(bases: Sequence[str], columns: Sequence[Mapping[str, Any]]) -> tuple[Figure, list[list[Axes]]]:
    """Make one panel per base method and column; those of a single column are wrapped."""
    if len(columns) == 1:
        return _wrapped(bases)
    figure, axes = panels(len(bases), len(columns), 0.6 + 1.35 * len(bases), sharex=True, sharey="row")
    for base, line in zip(bases, axes, strict=True):
        for axis, column in zip(line, columns, strict=True):
            clean(axis, "y")
            if line is axes[0]:
                axis.set_title(wrapped(column_label(column), 0.9 * WIDTH / (len(columns) + 0.5)))
        line[0].set_ylabel(wrapped(base, 1.1), color=INK)
    return figure, axes


def _wrapped(names: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """Make one panel per name, `ACROSS` side by side; return the axes as a list of one-element lists."""
    lines = math.ceil(len(names) / ACROSS)
    figure, axes = panels(lines, min(ACROSS, len(names)), 0.6 + 1.9 * lines, sharex=True, sharey=True)
    flat = [axis for line in axes for axis in line]
    for axis, name in zip(flat, names, strict=False):
        clean(axis, "y")
        axis.set_title(wrapped(name, 0.9 * WIDTH / ACROSS))
        axis.tick_params(labelbottom=True)
    for axis in flat[len(names) :]:
        axis.set_visible(False)
    return figure, [[axis] for axis in flat[: len(names)]]


def _over_seeds(curves: Sequence[Curve]) -> dict[int, Summary]:
    epochs = sorted({epoch for curve in curves for epoch in curve})
    samples = {epoch: summarise(curve[epoch] for curve in curves if epoch in curve) for epoch in epochs}
    return {epoch: sample for epoch, sample in samples.items() if sample is not None}


def band(
    axis: Axes,
    places: Sequence[float],
    samples: Sequence[Summary],
    look: VariantStyle,
    dashes: Any = "-",
    marker: bool = False,
) -> None:
    """Draw a line through means, and a band of one sample standard deviation to each side.

    Args:
        axis: Where to.
        places: Positions on the axis.
        samples: What was measured at each, fractions.
        look: Colour and marker.
        dashes: Line style, as matplotlib takes it.
        marker: Whether each place has a marker; a single one always has.
    """
    means = [100 * sample.mean for sample in samples]
    spreads = [100 * (sample.std or 0.0) for sample in samples]
    lower, upper = (
        zip(*((m - s, m + s) for m, s in zip(means, spreads, strict=True)), strict=True) if means else ((), ())
    )
    axis.fill_between(places, lower, upper, color=look.color, alpha=0.16, linewidth=0)
    shape = look.marker if marker or len(places) == 1 else ""
    axis.plot(places, means, color=look.color, linewidth=1.3, linestyle=dashes, marker=shape, markersize=3.5)
