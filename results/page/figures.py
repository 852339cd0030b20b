"""All figures of a sweep, each with its data; the report shows them, and `write` makes files of them."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.errors import UserError, nearest
from experiments.rundir.files import atomic, write_text
from results.numbers.measure import Measured
from results.runs.output import place_for, writing
from results.runs.store import read

from . import cost, curves, maps, plots, sparsity
from .drawing import style
from .material import Material

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
        more: Says what only some sweeps have in it.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Material], Figure | None]
    data: Callable[[Material], Iterator[Row]]
    more: Callable[[Material], str] = lambda material: ""


def _place(material: Material, column: Mapping[str, Any]) -> Row:
    return {key: column.get(key) for key in material.sweep.column_keys}


def _cells(material: Material) -> Iterator[tuple[Measured, Row]]:
    for cell in material.measurements.values():
        yield cell, {"row": cell.row, **_place(material, cell.column)}


def _accuracies(material: Material) -> Iterator[Row]:
    for cell, place in _cells(material):
        yield from ({**place, "seed": seed, "accuracy": value} for seed, value in cell.accuracies.items())


def _differences(material: Material) -> Iterator[Row]:
    for cell, place in _cells(material):
        if (found := cell.difference) is not None:
            numbers = {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n}
            yield {**place, "plain": cell.plain, **numbers}


def _means(material: Material) -> Iterator[Row]:
    for cell, place in _cells(material):
        if cell.accuracy is not None:
            yield {**place, "mean": cell.accuracy.mean, "std": cell.accuracy.std, "n": cell.accuracy.n}
    for pair in sparsity.published(material):
        figure, place = pair.figure, {"row": pair.ours.row, **_place(material, pair.ours.column)}
        spread = None if figure.spread is None else figure.spread / 100
        stated = {"published_row": figure.row, "published_sparsity": figure.sparsity, "source": figure.source}
        yield {**place, "published": figure.top1 / 100, "published_spread": spread, **stated, "known": figure.known}


def _costs(material: Material) -> Iterator[Row]:
    for column in material.sweep.columns:
        for point in cost.points(material, column):
            numbers = {"training_flops_fraction": point.cost, "mean": point.accuracy, "std": point.std}
            yield {"row": point.row, **_place(material, column), **numbers, "front": point.front}


def _layers(material: Material) -> Iterator[Row]:
    for column in material.sweep.columns:
        place = _place(material, column)
        for row, values in maps.of_rows(material.sweep, column).items():
            yield from ({"row": row, **place, "layer": name, "density": value} for name, value in values.items())


def _curve(entry: str) -> Callable[[Material], Iterator[Row]]:
    def data(material: Material) -> Iterator[Row]:
        for run in material.sweep.runs:
            place = {"row": run.row, **_place(material, run.column), "seed": run.seed}
            for epoch, value in material.curve(run, entry).items():
                yield {**place, "epoch": epoch, entry: value}

    return data


def _sources(material: Material) -> str:
    """Say what the hollow markers are."""
    cited = "; ".join(f"{key}: {source}" for key, source in sparsity.sources(material).items())
    what = (
        "Hollow markers are published figures of the same data and network, with thin lines in the style of their row"
    )
    return f" {what}; {cited}." if cited else ""


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
        sparsity.over_sparsity,
        _means,
        _sources,
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


def drawn(material: Material) -> Iterator[tuple[Kind, Figure]]:
    """Yield the figures that there are; call this within `drawing.style`."""
    for kind in KINDS:
        with boxes_allowed():
            figure = kind.draw(material)
        if figure is not None:
            yield kind, figure


@contextmanager
def boxes_allowed() -> Iterator[None]:
    """Leave out matplotlib's warnings about characters that no font here has: they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def write(
    directory: str | Path, out: str | Path | None = None, form: str = "pdf", sources: Sequence[str] = ()
) -> list[Path]:
    """Write each figure of a directory to a file of its own, with its data as CSV beside it.

    Args:
        directory: A directory as for `results.load`.
        out: Folder of the files; None is ``figures`` in the directory.
        form: One of `FORMATS`.
        sources: As of `Material`.

    Returns:
        The files, pictures and data.

    Raises:
        UserError: for another format, without finished runs, and as for `results.load`.
    """
    if form not in FORMATS:
        raise UserError(f"{form!r} is not a format; allowed: {', '.join(FORMATS)}{nearest(form, FORMATS)}", "--format")
    material = Material(read(directory), sources)
    folder = place_for(directory, "figures", ".figures") if out is None else Path(out)
    stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
    paths = []
    if not any(run.status == "done" for run in material.sweep.runs):
        raise UserError("no finished run to draw", where=str(directory))
    with writing("the folder of figures", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with style(), boxes_allowed():
        for kind, figure in drawn(material):
            picture, data = (folder / f"{kind.name}.{suffix}" for suffix in (form, "csv"))
            with writing("the figure", picture), atomic(picture) as file:
                figure.savefig(file, format=form, dpi=200, metadata=stamp)
            with writing("its data", data):
                write_text(data, _csv(list(kind.data(material))))
            paths += [picture, data]
    return paths


def _csv(rows: list[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
