"""Our results beside published figures: which figure a cell is compared with, and what can be said of the two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.runs.facts import Settings, distribution
from results.runs.schema import SPARSITY_KEY, RunEntry, SweepResults, column_id, column_label, is_number, place

from .measure import TOLERANCE, Measured, Measurements
from .paper import Figure
from .stats import FEW, Summary
from .student import LEVEL, upper

MARGIN = 0.3
"""Percentage points within which two accuracies count as the same, unless another margin is asked for."""
VERDICTS = ("reproduced", "above", "below", "undecided", "too few seeds", "not run")
_EXACT = 1e-9  # points; differences of decimal fractions are this far from what is printed


_VISIBLE = 0.0005  # a fraction; less does not show in a sparsity of one decimal place


@dataclass(frozen=True)
class Apart:
    """Our mean minus a published one, in percentage points, with the 90 % confidence interval."""

    mean: float
    low: float
    high: float


def matching(spec: Mapping[str, Any], figures: Sequence[Figure], layers: str | None) -> list[Figure]:
    """Return the published figures of the network that a configuration trains.

    Method, representation, additions, data and network must be equal, and the sparsity within half a point. Of several
    figures of one source those remain that are nearest in how density is distributed, then in the length of training,
    then in sparsity; several that are equally near are all returned.

    Args:
        spec: A flattened configuration.
        figures: The figures of one source.
        layers: How the configuration distributes its density, in a table's word.
    """
    sparsity = sparsity_of(spec)
    found = [figure for figure in figures if _same(spec, figure) and abs(figure.sparsity - sparsity) <= TOLERANCE]
    epochs = spec.get("schedule.epochs")

    def distance(figure: Figure) -> tuple[bool, float, float]:
        other = figure.layers is not None and figure.layers != str(layers).lower()
        length = abs(math.log(figure.epochs / epochs)) if figure.epochs and is_number(epochs) and epochs > 0 else 0.0
        return other, length, abs(figure.sparsity - sparsity)

    nearest = min(map(distance, found), default=None)
    return [figure for figure in found if distance(figure) == nearest]


def sparsity_of(spec: Mapping[str, Any]) -> float:
    """Return the sparsity that a configuration asks for; 0 of a dense network, whatever its column says."""
    dense = spec.get("topology.name") == "dense" and spec.get("representation.name") == "plain"
    value = spec.get(SPARSITY_KEY)
    return 0.0 if dense or not is_number(value) else value


def _same(spec: Mapping[str, Any], figure: Figure) -> bool:
    model = str(spec.get("model.name")).rpartition(":")[2]
    own = (spec.get("topology.name"), spec.get("representation.name"), spec.get("data.name"), model, _addition(spec))
    known = None not in (figure.topology, figure.representation)  # a method that the suite has
    return known and own == (figure.topology, figure.representation, figure.dataset, figure.model, figure.addition)


def _addition(spec: Mapping[str, Any]) -> str:
    """Return what a configuration adds to its method, as sources name it."""
    keys = {"HAM": "ham", "SAM": "sam", "SparseOpt": "sparse_opt"}
    set_ = {key.split(".")[1] for key, value in spec.items() if key.startswith("optimizer.") and value is not None}
    added = [name for name, key in keys.items() if key in set_]
    return " + ".join(["Sign-In"] * (spec.get("representation.name") == "sign_in") + added)


def apart(ours: Summary, figure: Figure) -> Apart | None:
    """Compare a sample of accuracies (fractions) with a figure; None for a single seed.

    The figure counts as exact unless its ± is known to be a standard deviation over a known number of seeds; the
    interval is then that of Welch.
    """
    if ours.std is None:
        return None
    known = figure.spread_of == "std" and figure.spread is not None and (figure.seeds or 0) > 1
    own = (100 * ours.std) ** 2 / ours.n
    other = figure.spread**2 / figure.seeds if known and figure.spread and figure.seeds else 0.0
    mean, half = 100 * ours.mean - figure.top1, 0.0
    if own + other:
        rest = other**2 / (figure.seeds - 1) if other and figure.seeds else 0.0
        freedom = (own + other) ** 2 / (own**2 / (ours.n - 1) + rest)
        half = upper(freedom, 2 * LEVEL) * math.sqrt(own + other)
    return Apart(mean, mean - half, mean + half)


def most_spread(seeds: int, margin: float) -> float:
    """Return the largest standard deviation over seeds, in points, at which equal means are "reproduced"."""
    return margin * math.sqrt(seeds) / upper(seeds - 1, 2 * LEVEL)


def verdict(ours: Summary | None, figure: Figure, margin: float) -> str:
    """Judge a cell, see `VERDICTS`: each verdict on the difference is wrong in at most 5 % of cases.

    "reproduced": the interval lies within the margin, its ends included. "above", "below": it lies beyond. "undecided":
    it contains an end of the margin in its inside.
    """
    if ours is None:
        return "not run"
    found = apart(ours, figure)
    if found is None or ours.n < FEW:
        return "too few seeds"
    if found.low > margin + _EXACT:
        return "above"
    if found.high < -margin - _EXACT:
        return "below"
    inside = found.low >= -margin - _EXACT and found.high <= margin + _EXACT
    return "reproduced" if inside else "undecided"


@dataclass(frozen=True)
class Beside:
    """One of our cells beside the figure that it is compared with.

    Attributes:
        sweep: The sweep.
        ours: The cell's measurements.
        run: A run of the cell, finished if one is.
        spec: Its flattened configuration.
        layers: How it distributes its density, in a table's word; None for a dense network.
        figure: The published figure.
    """

    sweep: SweepResults
    ours: Measured
    run: RunEntry
    spec: Mapping[str, Any]
    layers: str | None
    figure: Figure

    def verdict(self, margin: float) -> str:
        """Judge the cell, see `verdict`."""
        return verdict(self.ours.accuracy, self.figure, margin)

    @property
    def name(self) -> str:
        """The row, and the values of columns that it depends on; sparsity has a column of its own."""
        keys = (key for key in self.sweep.home(self.ours.row, self.ours.column) if key != SPARSITY_KEY)
        label = column_label(self.ours.column, tuple(keys))
        return f"{self.ours.row} ({label})" if label else self.ours.row

    @property
    def apart(self) -> Apart | None:
        """The difference with its interval; None for less than two seeds."""
        return apart(self.ours.accuracy, self.figure) if self.ours.accuracy else None

    def differing(self) -> Iterator[str]:
        """Name what is not the same behind the two numbers, or not known to be; "?" stands for what is not stated."""
        spec, figure, result = self.spec, self.figure, self.run.result
        epochs = spec.get("schedule.epochs")
        if is_number(epochs) and epochs != figure.epochs:
            yield f"epochs {epochs} / {figure.epochs or '?'}"
        if self.layers and self.layers.lower() != figure.layers:
            yield f"layers {self.layers} / {figure.layers or '?'}"
        sparsity = self.ours.sparsity.mean if self.ours.sparsity else sparsity_of(spec)
        if abs(sparsity - figure.sparsity) > _VISIBLE:
            yield f"sparsity {100 * sparsity:.2f} / {100 * figure.sparsity:g} %"
        if self.layers and (dense := result.get("dense_layers", spec.get("topology.dense"))) not in (None, "none", []):
            yield f"ours leaves {dense if isinstance(dense, str) else 'some layers'} dense"
        part = result.get("accuracy_on", spec.get("data.evaluate_on"))
        if part not in (None, "test"):
            yield f"ours on the {part} part"
        for key, what in (("data.train_limit", "training images"), ("data.image_size", "pixels")):
            if is_number(spec.get(key)):
                yield f"ours with {spec[key]:,} {what}"


@dataclass(frozen=True)
class Compared:
    """What became of our cells and of published figures.

    Attributes:
        pairs: The pairs, in table order.
        alone: Our cells that no figure stands for, by name.
        unknown: Our cells whose configuration is not known, by name.
    """

    pairs: Sequence[Beside]
    alone: Sequence[str]
    unknown: Sequence[str]


def pairs_of(known: Sequence[tuple[SweepResults, Measurements, Settings]], figures: Sequence[Figure]) -> Compared:
    """Compare the cells of sweeps with the figures of one or several sources, each source by itself.

    Args:
        known: Sweeps with their measurements and the configurations of their runs.
        figures: The figures; those of one source are compared with each other, see `matching`.
    """
    sources: dict[str, list[Figure]] = {}
    for figure in figures:
        sources.setdefault(figure.key, []).append(figure)
    pairs: list[Beside] = []
    alone: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for sweep, measurements, settings in known:
        for row, column in sweep.first_cells():
            run = next((run for run in sweep.cell(row, column) if run.result), sweep.cell(row, column)[0])
            spec = settings[run.path] or sweep.specs.get(run.identity, {})
            layers = distribution(spec, run.result) if sparsity_of(spec) else None
            found = [figure for stated in sources.values() for figure in matching(spec, stated, layers)]
            pairs += [Beside(sweep, measurements[row, column_id(column)], run, spec, layers, each) for each in found]
            if not found:
                (alone if spec else unknown)[place(sweep, row, column)] = None
    return Compared(pairs, list(alone), list(unknown))
