"""Figures that compare methods: accuracy, and paired differences; `curves` has the figures over an axis."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.numbers.measure import Measured, Measurements
from results.numbers.stats import Difference
from results.runs.schema import column_id, variant_of
from results.table.notes import DAGGER, points

from .drawing import INK, MUTED, VariantStyle, looks
from .layout import by_base, column_panels, heights_of, row_labels
from .material import Material


def accuracy(material: Material) -> Figure | None:
    """Draw accuracy by method: one point per seed, the mean, and a whisker of one sample standard deviation.

    Call this within `drawing.style`.

    Returns:
        The figure, with one panel per column of the table, or None if no run is finished.
    """
    sweep, measurements = material.sweep, material.measurements
    if not any(cell.done for cell in measurements.values()):
        return None
    rows = by_base(sweep, sweep.rows)
    figure, axes = column_panels(sweep, len(rows), sharex=False)
    palette = looks(sweep)
    heights = heights_of(sweep, rows)
    for axis, column in axes:
        for row, y in zip(rows, heights, strict=True):
            cell = measurements.get((row, column_id(column)))
            if cell is not None and cell.accuracy is not None:
                _mean_and_seeds(axis, cell, y, palette[variant_of(sweep, row)])
        row_labels(axis, sweep, rows, heights)
    figure.supxlabel("accuracy, %", fontsize=8, color=MUTED)
    return figure


def _mean_and_seeds(axis: Axes, cell: Measured, y: float, look: VariantStyle) -> None:
    assert cell.accuracy is not None
    seeds = [100 * value for value in cell.accuracies.values()]
    # below the whisker, which would cover them
    axis.plot(seeds, [y + 0.33] * len(seeds), ".", color=look.color, alpha=0.5, markersize=4.5, markeredgewidth=0)
    mean, std = 100 * cell.accuracy.mean, 100 * (cell.accuracy.std or 0)
    axis.plot([mean - std, mean + std], [y, y], color=look.color, linewidth=1.4, solid_capstyle="butt")
    filled = look.color if cell.off_target is None else "white"
    axis.plot([mean], [y], look.marker, color=look.color, markerfacecolor=filled, markersize=5)


def differences(material: Material) -> Figure | None:
    """Draw the seed-paired differences to the plain rows with 95 % confidence intervals.

    Returns:
        The figure, or None without a pair of finished runs. Intervals from only two seeds may exceed the frame, which
        an arrow marks.
    """
    sweep, measurements = material.sweep, material.measurements
    rows = by_base(sweep, [row for row in sweep.rows if row in sweep.baselines])
    if not any(cell.difference for cell in measurements.values()):
        return None
    figure, axes = column_panels(sweep, len(rows), sharex=True)
    palette = looks(sweep)
    heights = heights_of(sweep, rows)
    frame = _frame(measurements)
    for axis, column in axes:
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_xlim(frame)
        for row, y in zip(rows, heights, strict=True):
            cell = measurements.get((row, column_id(column)))
            if cell is not None and cell.difference is not None:
                _interval(axis, cell, cell.difference, y, frame, palette[variant_of(sweep, row)])
                if len(axes) == 1:
                    text = _interval_text(cell, cell.difference)
                    axis.text(1.02, y, text, transform=axis.get_yaxis_transform(), va="center", color=MUTED)
        row_labels(axis, sweep, rows, heights, full=True)
    figure.supxlabel("difference to the plain row, percentage points", fontsize=8, color=MUTED)
    return figure


def _frame(measurements: Measurements) -> tuple[float, float]:
    """Return the limits of the axis in points.

    They include zero, all means, and all intervals from at least three seeds (all intervals if there are none).
    """
    found = [cell.difference for cell in measurements.values() if cell.difference is not None]
    wide = [d for d in found if d.n > 2] or found
    solid = [bound for d in wide for bound in (d.low, d.high) if bound is not None]
    values = [100 * value for value in (0.0, *solid, *(d.mean for d in found))]
    margin = 0.05 * max(max(values) - min(values), 0.1)
    return min(values) - margin, max(values) + margin


def _interval(
    axis: Axes, cell: Measured, difference: Difference, y: float, frame: tuple[float, float], look: VariantStyle
) -> None:
    if difference.low is not None and difference.high is not None:
        low, high = 100 * difference.low, 100 * difference.high
        axis.plot(
            [max(low, frame[0]), min(high, frame[1])], [y, y], color=look.color, linewidth=1.5, solid_capstyle="butt"
        )
        for outside, x, arrow in ((low < frame[0], frame[0], "<"), (high > frame[1], frame[1], ">")):
            if outside:
                axis.plot([x], [y], arrow, color=look.color, markersize=4, clip_on=False)
    filled = look.color if difference.verdict else "white"
    axis.plot([100 * difference.mean], [y], look.marker, color=look.color, markerfacecolor=filled, markersize=5)


def _interval_text(cell: Measured, difference: Difference) -> str:
    low, high = ("–" if bound is None else points(bound) for bound in (difference.low, difference.high))
    mark = "" if cell.comparable else f" {DAGGER}"
    return f"{points(difference.mean)} [{low}, {high}]   {difference.wins} of {difference.n} up{mark}"
