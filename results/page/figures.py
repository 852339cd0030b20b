"""All figures of a sweep, each with its data; the report shows them, and `write` makes files of them."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.errors import UserError, nearest
from experiments.rundir.files import atomic, write_text
from results.numbers.measure import Measured, measure
from results.runs.schema import SweepResults
from results.runs.store import read

from . import cost, curves, maps, plots
from .drawing import style

log = logging.getLogger("results")

FORMATS = ("svg", "pdf", "png")
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A figure that a sweep may have.

    Attributes:
        name: Name of its file.
        title: Its heading.
        text: What is drawn, in words.
        draw: Makes it, or returns None where there is nothing to draw.
        data: Yields what is drawn, one mapping a point; fractions, not per cent.
    """

    name: str
    title: str
    text: str
    draw: Callable[[SweepResults], Figure | None]
    data: Callable[[SweepResults], Iterator[Row]]


def _cells(sweep: SweepResults) -> Iterator[tuple[Measured, Row]]:
    for cell in measure(sweep).values():
        yield cell, {"row": cell.row, **{key: cell.column.get(key) for key in sweep.column_keys}}


def _accuracies(sweep: SweepResults) -> Iterator[Row]:
    for cell, place in _cells(sweep):
        yield from ({**place, "seed": seed, "accuracy": value} for seed, value in cell.accuracies.items())


def _differences(sweep: SweepResults) -> Iterator[Row]:
    for cell, place in _cells(sweep):
        if (found := cell.difference) is not None:
            numbers = {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n}
            yield {**place, "plain": cell.plain, **numbers}


def _means(sweep: SweepResults) -> Iterator[Row]:
    for cell, place in _cells(sweep):
        if cell.accuracy is not None:
            yield {**place, "mean": cell.accuracy.mean, "std": cell.accuracy.std, "n": cell.accuracy.n}


def _costs(sweep: SweepResults) -> Iterator[Row]:
    measurements = measure(sweep)
    for column in sweep.columns:
        place = {key: column.get(key) for key in sweep.column_keys}
        for point in cost.points(sweep, measurements, column):
            numbers = {"training_flops_fraction": point.cost, "mean": point.accuracy, "std": point.std}
            yield {"row": point.row, **place, **numbers, "front": point.front}


def _layers(sweep: SweepResults) -> Iterator[Row]:
    for column in sweep.columns:
        place = {key: column.get(key) for key in sweep.column_keys}
        for row, values in maps.of_rows(sweep, column).items():
            yield from ({"row": row, **place, "layer": name, "density": value} for name, value in values.items())


def _curve(entry: str) -> Callable[[SweepResults], Iterator[Row]]:
    def data(sweep: SweepResults) -> Iterator[Row]:
        for run in sweep.runs:
            place = {"row": run.row, **{key: run.column.get(key) for key in sweep.column_keys}, "seed": run.seed}
            for epoch, value in curves.curve(run, entry).items():
                yield {**place, "epoch": epoch, entry: value}

    return data


KINDS = (
    Kind(
        "accuracy",
        "Accuracy by method",
        "Large markers: mean. Lines: one sample standard deviation to each side. Dots: single seeds. Hollow markers are"
        " off target (†).",
        plots.accuracy,
        _accuracies,
    ),
    Kind(
        "differences",
        "Differences to the plain rows",
        "Mean difference at equal seeds with its 95 % confidence interval; filled markers: p < .05 after Holm's"
        " correction. An arrow marks an interval that leaves the frame. “Up” counts the seeds that gained.",
        plots.differences,
        _differences,
    ),
    Kind(
        "sparsity",
        "Accuracy over sparsity",
        "Mean and one sample standard deviation over seeds. On the axis, each halving of the density is one step.",
        curves.over_sparsity,
        _means,
    ),
    Kind(
        "cost",
        "Accuracy over the cost of training",
        "Mean and one sample standard deviation over seeds. The line joins the rows that no other row beats in both, by"
        " the means; hollow markers are beaten. Multiply-adds are counted, not measured.",
        cost.pareto,
        _costs,
    ),
    Kind(
        "training",
        "Validation accuracy during training",
        "Mean and one sample standard deviation over seeds, after every epoch, from where a quarter of training has"
        " gone by; what lies below the frame is cut off.",
        curves.training,
        _curve("validation_accuracy"),
    ),
    Kind(
        "flips",
        "Signs that have flipped",
        "Of the weights that are nonzero now and were so at the start: those of the other sign, after every epoch."
        " Mean and one sample standard deviation over seeds.",
        curves.flips,
        _curve("sign_flips_initial"),
    ),
    Kind(
        "overlap",
        "What is left of the initial mask",
        "Weights that are nonzero now and were so at the start, as a fraction of those that are or were so, after every"
        " epoch. Mean and one sample standard deviation over seeds.",
        curves.overlap,
        _curve("overlap_initial"),
    ),
    Kind(
        "layers",
        "Density of layers",
        "Active weights of each layer at the end of training, in per cent, mean over seeds; of several columns the"
        " sparsest.",
        maps.layers,
        _layers,
    ),
)


def drawn(sweep: SweepResults) -> Iterator[tuple[Kind, Figure]]:
    """Yield the figures that a sweep has; call this within `drawing.style`."""
    for kind in KINDS:
        with boxes_allowed():
            figure = kind.draw(sweep)
        if figure is not None:
            yield kind, figure


@contextmanager
def boxes_allowed() -> Iterator[None]:
    """Leave out matplotlib's warnings about characters that no font here has: they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def write(directory: str | Path, out: str | Path | None = None, form: str = "pdf") -> list[Path]:
    """Write each figure of a directory to a file of its own, with its data as CSV beside it.

    Args:
        directory: A directory as for `results.load`.
        out: Folder of the files; None is ``figures`` in the directory.
        form: One of `FORMATS`.

    Returns:
        The files, pictures and data.

    Raises:
        UserError: for another format, without finished runs, and as for `results.load`.
    """
    if form not in FORMATS:
        raise UserError(f"{form!r} is not a format; allowed: {', '.join(FORMATS)}{nearest(form, FORMATS)}", "--format")
    sweep = read(directory)
    folder = Path(out) if out is not None else sweep.directory / "figures"
    stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
    paths = []
    with style():
        for kind, figure in drawn(sweep):
            folder.mkdir(parents=True, exist_ok=True)
            with atomic(folder / f"{kind.name}.{form}") as file, boxes_allowed():
                figure.savefig(file, format=form, dpi=200, metadata=stamp)
            write_text(folder / f"{kind.name}.csv", _csv(list(kind.data(sweep))))
            paths += [folder / f"{kind.name}.{form}", folder / f"{kind.name}.csv"]
    if not paths:
        raise UserError("no finished run to draw", where=str(directory))
    return paths


def _csv(rows: list[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
