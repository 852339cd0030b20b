"""The numbers of each cell of a table: seeds, accuracy, sparsity, FLOPs, difference to the plain row, Holm's p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from results.runs.schema import RunEntry, SweepResults

from .stats import FEW, Difference, Summary, holm, paired, summarise
from .unpaired import Unpaired, welch

TOLERANCE = 0.005
"""Largest distance of a realised sparsity from its target at which runs are comparable (a fraction: half a point)."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one row in one column, over its seeds.

    Attributes:
        row: Label of the row.
        column: The column, from keys to values.
        plain: The row that this row adds to; None for plain rows.
        planned: Number of seeds in the sweep.
        failed: Number of seeds that failed.
        missing: Number of seeds without a result or a failure.
        accuracies: Accuracy (a fraction) of each finished seed.
        accuracy: Summary of the accuracies; None if no seed is finished.
        train: Summary of the training accuracy of the last epoch; None where no run has one.
        updates: How often masks changed after the first ones; None where no run set any.
        sparsity: Realised sparsity, a fraction.
        target: Target sparsity; None for a row without one.
        inference: FLOPs of inference as a fraction of the dense network's.
        training: FLOPs of training as a fraction of one dense training of the same length. For a run that trains
            several times, all its trainings are counted against one dense training.
        difference: Accuracy minus that of the plain row, paired by seed; None for plain rows and without a pair.
        unpaired: The same without pairs (Welch), over all seeds of both rows; None where t is undefined.
        off_target: Realised minus target sparsity of the worst seed if it exceeds `TOLERANCE`, otherwise None.
        comparable: Whether neither this cell nor that of its plain row is off target.
    """

    row: str
    column: Mapping[str, Any]
    plain: str | None
    planned: int
    failed: int
    missing: int
    accuracies: Mapping[int, float]
    accuracy: Summary | None
    train: Summary | None
    updates: Summary | None
    sparsity: Summary | None
    target: float | None
    inference: Summary | None
    training: Summary | None
    difference: Difference | None
    unpaired: Unpaired | None
    off_target: float | None
    comparable: bool

    @property
    def done(self) -> int:
        """Number of finished seeds."""
        return len(self.accuracies)

    @property
    def judged(self) -> Difference | None:
        """The difference if it is judged: comparable, from at least `FEW` seeds, with a p-value."""
        found = self.difference
        return found if found and self.comparable and found.n >= FEW and found.p is not None else None


Measurements = Mapping[tuple[str, str], Measured]


def measure(sweep: SweepResults) -> Measurements:
    """Compute the measurements of every cell.

    Returns:
        Measurements by (row, column id), in table order; cells that the sweep does not have are absent.
    """
    keys = dict.fromkeys((entry.row, entry.column_id) for entry in sweep.entries)
    columns = {entry.column_id: entry.column for entry in sweep.entries}
    return _corrected(sweep, {(row, name): _measure(sweep, row, columns[name]) for row, name in keys})


def family(sweep: SweepResults, measurements: Measurements) -> list[Difference]:
    """Return the differences of a table that are judged together; one that is repeated over columns counts once."""
    runs = ((_runs(sweep, cell), cell.judged) for cell in measurements.values())
    return list({key: found for key, found in runs if found is not None}.values())


def _corrected(sweep: SweepResults, measurements: dict[tuple[str, str], Measured]) -> Measurements:
    """Give each judged difference its p-value over all of the table."""
    judged = {_runs(sweep, cell): cell.judged.p or 0.0 for cell in measurements.values() if cell.judged}
    corrected = dict(zip(judged, holm(judged.values()), strict=True))
    for key, cell in measurements.items():
        if cell.judged:
            difference = replace(cell.judged, p_holm=corrected[_runs(sweep, cell)])
            measurements[key] = replace(cell, difference=difference)
    return measurements


def _runs(sweep: SweepResults, cell: Measured) -> tuple[frozenset[Path], frozenset[Path]]:
    """Return the folders behind a difference."""
    own, beside = (sweep.cell(row, cell.column) for row in (cell.row, cell.plain or cell.row))
    return frozenset(entry.path for entry in own), frozenset(entry.path for entry in beside)


def _measure(sweep: SweepResults, row: str, column: Mapping[str, Any]) -> Measured:
    entries = sweep.cell(row, column)
    accuracies = _accuracies(entries)
    plain = sweep.baselines.get(row)
    beside = sweep.cell(plain, column) if plain is not None else []
    off_target = _off_target(entries)
    targets = _values(entries, "target_sparsity")
    accuracy, plain_accuracies = summarise(accuracies.values()), _accuracies(beside)
    return Measured(
        row=row,
        column=column,
        plain=plain,
        planned=len(entries),
        failed=sum(entry.status == "failed" for entry in entries),
        missing=sum(entry.status == "missing" for entry in entries),
        accuracies=accuracies,
        accuracy=accuracy,
        train=summarise(_values(entries, "train_accuracy")),
        updates=summarise(_values(entries, "mask_updates")),
        sparsity=summarise(_values(entries, "sparsity")),
        target=targets[0] if targets else None,
        inference=summarise(_values(entries, "inference_flops_fraction")),
        training=summarise(_values(entries, "training_flops_fraction")),
        difference=paired(accuracies, plain_accuracies),
        unpaired=welch(accuracy, summarise(plain_accuracies.values())),
        off_target=off_target,
        comparable=off_target is None and _off_target(beside) is None,
    )


def _accuracies(entries: list[RunEntry]) -> dict[int, float]:
    pairs = ((entry.seed, entry.number("accuracy")) for entry in entries)
    return {seed: accuracy for seed, accuracy in pairs if accuracy is not None}


def _values(entries: list[RunEntry], name: str) -> list[float]:
    return [value for value in (entry.number(name) for entry in entries) if value is not None]


def _off_target(entries: list[RunEntry]) -> float | None:
    """Return the offset of the worst seed if it exceeds the tolerance, otherwise None.

    The worst seed counts and not the mean, since seeds that scatter around the target are not comparable either.
    """
    pairs = [(entry.number("sparsity"), entry.number("target_sparsity")) for entry in entries]
    offsets = [real - target for real, target in pairs if real is not None and target is not None]
    worst = max(offsets, key=abs, default=0.0)
    # the margin keeps an exact half point, such as 0.945 for 0.95, on the allowed side of rounding
    return worst if abs(worst) > TOLERANCE + 1e-9 else None
