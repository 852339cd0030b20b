"""Figures over an axis: accuracy, signs and masks over training, and accuracy over sparsity."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.rundir.reading import Unreadable, typed
from results.numbers.measure import Measured, Measurements, measure
from results.numbers.stats import Summary, summarise
from results.runs.kinds import EpochLine
from results.runs.schema import (
    SPARSITY_KEY,
    RunEntry,
    SweepResults,
    column_groups,
    column_id,
    column_label,
    inner_key,
    variant_of,
)
from results.runs.store import read_metrics

from .drawing import COLORS, DASHES, INK, MUTED, VariantStyle, by_base, clean, legend, looks, panels

log = logging.getLogger("results")

Curve = dict[int, float]
"""A fraction by epoch, counted from 1."""

MOST = 60
"""Panels that a figure has at most."""

ACROSS = 3
"""Number of panels side by side if each base method has one panel."""


def training(sweep: SweepResults) -> Figure | None:
    """Draw validation accuracy over epochs, from where a quarter of training has gone by."""
    return _over_epochs(sweep, "validation_accuracy", "validation accuracy, %", late=True)


def flips(sweep: SweepResults) -> Figure | None:
    """Draw over epochs how many signs of active weights differ from those of the start."""
    return _over_epochs(sweep, "sign_flips_initial", "flipped signs, %")


def overlap(sweep: SweepResults) -> Figure | None:
    """Draw over epochs how much of the initial mask is left."""
    return _over_epochs(sweep, "overlap_initial", "overlap, %")


def too_many(sweep: SweepResults) -> bool:
    """Return whether a table has too many rows and columns for a panel of each."""
    return len({sweep.base_of(row) for row in sweep.rows}) * len(sweep.columns) > MOST


def _over_epochs(sweep: SweepResults, entry: str, label: str, *, late: bool = False) -> Figure | None:
    """Draw a line for the mean and a band of one sample standard deviation over seeds.

    Args:
        sweep: The results.
        entry: Name of an entry of epochs' lines, a fraction.
        label: Label of the axis.
        late: Whether the axis shows only what comes after the first quarter; early epochs may leave the frame.

    Returns:
        The figure, with one panel per base method and column, or None if no finished run has such an entry, or `MOST`
        panels would not do.
    """
    if too_many(sweep):
        return None
    curves = {run.path: curve(run, entry) for run in sweep.runs if run.status == "done"}
    if not any(curves.values()):
        return None
    bases = list(dict.fromkeys(sweep.base_of(row) for row in sweep.rows))
    figure, axes = _grid(bases, sweep.columns)
    low = math.inf
    for base, line in zip(bases, axes, strict=True):
        for column, axis in zip(sweep.columns, line, strict=True):
            for row in by_base(sweep, [row for row in sweep.rows if sweep.base_of(row) == base]):
                samples = _over_seeds([curves.get(run.path, {}) for run in sweep.cell(row, column)])
                last = [sample for epoch, sample in samples.items() if epoch >= max(samples) / 4]
                low = min([low, *(100 * (sample.mean - (sample.std or 0)) for sample in last)])
                _band(
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
                axis.set_title(column_label(column))
        line[0].set_ylabel(base, color=INK)
    return figure, axes


def _wrapped(names: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """Make one panel per name, `ACROSS` side by side; return the axes as a list of one-element lists."""
    lines = math.ceil(len(names) / ACROSS)
    figure, axes = panels(lines, min(ACROSS, len(names)), 0.6 + 1.9 * lines, sharex=True, sharey=True)
    flat = [axis for line in axes for axis in line]
    for axis, name in zip(flat, names, strict=False):
        clean(axis, "y")
        axis.set_title(name)
        axis.tick_params(labelbottom=True)
    for axis in flat[len(names) :]:
        axis.set_visible(False)
    return figure, [[axis] for axis in flat[: len(names)]]


def curve(run: RunEntry, entry: str) -> Curve:
    """Read an entry by epoch; a line that was repeated after a resume replaces the first."""
    found: Curve = {}
    for line in read_metrics(run.path, run.result):
        if line.get("kind") != "epoch":
            continue
        try:
            epoch = typed(EpochLine, line)
        except Unreadable as error:
            log.warning("%s: an epoch's line %s; left out of the curve", run.path, error)
            continue
        if (value := getattr(epoch, entry)) is not None:
            found[epoch.epoch] = value
    return found


def _over_seeds(curves: Sequence[Curve]) -> dict[int, Summary]:
    epochs = sorted({epoch for curve in curves for epoch in curve})
    samples = {epoch: summarise(curve[epoch] for curve in curves if epoch in curve) for epoch in epochs}
    return {epoch: sample for epoch, sample in samples.items() if sample is not None}


def _band(
    axis: Axes,
    places: Sequence[float],
    samples: Sequence[Summary],
    look: VariantStyle,
    dashes: Any = "-",
    marker: bool = False,
) -> None:
    means = [100 * sample.mean for sample in samples]
    spreads = [100 * (sample.std or 0.0) for sample in samples]
    lower, upper = (
        zip(*((m - s, m + s) for m, s in zip(means, spreads, strict=True)), strict=True) if means else ((), ())
    )
    axis.fill_between(places, lower, upper, color=look.color, alpha=0.16, linewidth=0)
    shape = look.marker if marker or len(places) == 1 else ""
    axis.plot(places, means, color=look.color, linewidth=1.3, linestyle=dashes, marker=shape, markersize=3.5)


def over_sparsity(sweep: SweepResults) -> Figure | None:
    """Draw accuracy over target sparsity, all methods in one panel, with bands of one sample standard deviation.

    A base method has a colour and its additions have line styles; rows without a target (dense) are grey lines.

    Returns:
        The figure, with one panel per model or other column key; None if the table has fewer than two sparsities, or
        more methods than colours can tell.
    """
    groups = [(name, columns) for name, columns in column_groups(sweep) if len(columns) > 1]
    measurements = measure(sweep)
    sparse = [row for row in sweep.rows if any(c.target is not None for c in _cells(measurements, row, sweep.columns))]
    bases = list(dict.fromkeys(sweep.base_of(row) for row in sparse))
    if inner_key(sweep) != SPARSITY_KEY or not groups or not bases or len(bases) > len(COLORS):
        return None
    across = min(2, len(groups))
    lines = math.ceil(len(groups) / across)
    figure, axes = panels(lines, across, 0.9 + 3.0 * lines, sharex=False, sharey=False)
    styles = {row: _line(sweep, row, bases) for row in sparse}
    flat = [axis for line in axes for axis in line]
    for (name, columns), axis in zip(groups, flat, strict=False):
        clean(axis, "y")
        axis.set_title(name)
        _sparsity_axis(axis, columns)
        dense = [row for row in sweep.rows if row not in sparse and row not in sweep.baselines]
        _dense_lines(axis, dense, measurements, columns)
        for row, (color, dashes) in styles.items():
            cells = [cell for cell in _cells(measurements, row, columns) if cell.accuracy is not None]
            places = [_place(float(cell.column[SPARSITY_KEY]), columns) for cell in cells]
            samples = [cell.accuracy for cell in cells if cell.accuracy is not None]
            _band(axis, places, samples, VariantStyle(color, looks(sweep)[variant_of(sweep, row)].marker), dashes, True)
    for axis in flat[len(groups) :]:
        axis.set_visible(False)
    figure.supxlabel("target sparsity", fontsize=8, color=MUTED)
    figure.supylabel("accuracy, %", fontsize=8, color=MUTED)
    handles = [
        Line2D([], [], color=color, linestyle=dashes, marker=looks(sweep)[variant_of(sweep, row)].marker, label=row)
        for row, (color, dashes) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, labelcolor=INK, markerscale=0.7)
    return figure


def _line(sweep: SweepResults, row: str, bases: Sequence[str]) -> tuple[str, Any]:
    base = sweep.base_of(row)
    variants = [other for other in sweep.rows if sweep.base_of(other) == base]
    return COLORS[bases.index(base)], DASHES[variants.index(row) % len(DASHES)]


def _cells(measurements: Measurements, row: str, columns: Sequence[Mapping[str, Any]]) -> list[Measured]:
    found = (measurements.get((row, column_id(column))) for column in columns)
    return [cell for cell in found if cell is not None]


def _place(sparsity: float, columns: Sequence[Mapping[str, Any]]) -> float:
    """Return the axis position: each halving of the density is one step, so 90, 95 and 97.5 % are equally spaced."""
    if all(0 <= float(column[SPARSITY_KEY]) < 1 for column in columns):
        return -math.log2(1 - sparsity)
    return sparsity


def _sparsity_axis(axis: Axes, columns: Sequence[Mapping[str, Any]]) -> None:
    values = [float(column[SPARSITY_KEY]) for column in columns]
    axis.set_xticks([_place(value, columns) for value in values], [f"{100 * value:g} %" for value in values])
    axis.margins(x=0.1)


def _dense_lines(
    axis: Axes, rows: Sequence[str], measurements: Measurements, columns: Sequence[Mapping[str, Any]]
) -> None:
    for row in rows:
        cells = [cell for cell in _cells(measurements, row, columns) if cell.accuracy is not None]
        if cells and cells[0].accuracy is not None:
            y = 100 * cells[0].accuracy.mean
            axis.axhline(y, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            axis.annotate(
                row,
                (0, y),
                xycoords=("axes fraction", "data"),
                xytext=(2, 2),
                textcoords="offset points",
                color=MUTED,
                fontsize=7,
            )
