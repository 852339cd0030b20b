"""The report of a sweep as one self-contained HTML file: table, figures, details, configuration, provenance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.errors import UserError
from experiments.rundir.files import check_regular, write_text
from results.numbers.measure import Measurements
from results.numbers.stats import summarise
from results.runs.kinds import one_line
from results.runs.output import place_for, writing
from results.runs.schema import RunEntry, SweepResults, column_id, column_label, place
from results.runs.store import read
from results.table.markup import html
from results.table.origin import title
from results.table.tables import DASH, table

from . import curves
from .drawing import style, svg
from .figures import boxes_allowed, drawn
from .headline import finding, summary
from .maps import layer_densities
from .material import Material
from .provenance import configuration, environments


def write_report(directory: str | Path, output: str | Path | None = None, sources: Sequence[str] = ()) -> Path:
    """Write the report of a directory of runs; an older one is replaced only by a complete new one.

    Args:
        directory: A directory as for `results.load`.
        output: File to write; None is ``report.html`` in the directory.
        sources: Published sources, as of `Material`.

    Returns:
        The path of the file.

    Raises:
        UserError: if the file cannot be written, and as for `results.load`.
    """
    sweep = read(directory)
    path = place_for(directory, "report.html", ".html") if output is None else Path(output)
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write to", where=str(path))
    check_regular(path)
    page = render(Material(sweep, sources), path.parent)
    with writing("the report", path):
        write_text(path, page)
    return path


def render(material: Material, home: Path) -> str:
    """Return the report of a sweep as one HTML page.

    Args:
        material: The results.
        home: Folder of the page, from which its links lead to the folders of runs.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sweep, measurements = material.sweep, material.measurements
    shared, changes = configuration(sweep, material.settings)
    return environment.get_template("report.html.j2").render(
        title=title(sweep),
        summary=summary(sweep),
        finding=finding(sweep, measurements),
        table=Markup(
            html(table(sweep, known=(measurements, material.settings)), {row: "#runs" for row in sweep.rows})
        ),  # escapes its texts itself
        figures=_figures(material),
        details=[_detail(sweep, row, column) for row, column in sweep.first_cells()],
        seeds=[str(seed) for seed in sweep.seeds],
        accuracies=_accuracies(sweep, measurements, home),
        layers=_layers(sweep),
        troubles=_troubles(sweep),
        shared=shared,
        changes=changes,
        environments=environments(sweep),
        runs=len(sweep.runs),
        columns=len(sweep.columns),
        few_panels=not curves.too_many(sweep),
    )


def _figures(material: Material) -> list[dict[str, Any]]:
    shown = []
    with style():
        for kind, figure in drawn(material):
            with boxes_allowed():
                picture = Markup(svg(figure, kind.name, kind.title))
            shown.append(
                {"name": kind.name, "title": kind.title, "text": kind.text + kind.more(material), "svg": picture}
            )
    return shown


def _detail(sweep: SweepResults, row: str, column: Mapping[str, Any]) -> dict[str, str]:
    done = [entry for entry in sweep.cell(row, column) if entry.status == "done"]
    return {
        "row": row,
        "name": place(sweep, row, column),
        "seeds": f"{len(done)} of {len(sweep.cell(row, column))}",
        "validation": _percent(entry.number("best_validation_accuracy") for entry in done),
        "epoch": _range(entry.number("best_validation_epoch") for entry in done),
        "epochs": _range(entry.number("epochs") for entry in done),
        "steps": _range(entry.number("steps") for entry in done),
        "events": _events(done),
        "layers": _extremes(done),
        "time": _duration(entry.number("seconds") for entry in done),
    }


def _percent(values: Iterable[float | None]) -> str:
    sample = summarise(value for value in values if value is not None)
    if sample is None:
        return DASH
    return f"{100 * sample.mean:.2f}" + (f" ± {100 * sample.std:.2f}" if sample.std is not None else "")


def _range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    ends = dict.fromkeys((f"{min(known):,.0f}", f"{max(known):,.0f}"))
    return DASH.join(ends)


def _events(done: list[RunEntry]) -> str:
    names = dict.fromkeys(name for entry in done for name in entry.result.get("events") or {})
    counts = {name: _range((entry.result.get("events") or {}).get(name, 0) for entry in done) for name in names}
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or DASH


def _extremes(done: list[RunEntry]) -> str:
    """Return the sparsity of the densest and of the sparsest layer, averaged over seeds."""
    values = [1 - density for density in layer_densities(done).values()]
    ends = dict.fromkeys(f"{100 * value:.2f}" for value in (min(values), max(values))) if values else {DASH: None}
    return " to ".join(ends)


def _duration(values: Iterable[float | None]) -> str:
    sample = summarise(value for value in values if value is not None)
    if sample is None:
        return DASH
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if sample.mean >= 2 * size:
            return f"{sample.mean / size:.1f} {unit}"
    return f"{sample.mean:.1f} s"


def _accuracies(
    sweep: SweepResults, measurements: Measurements, home: Path
) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Return the accuracy of every seed with the folder of its run, by cell."""
    lines = []
    for row, column in sweep.first_cells():
        found = measurements[row, column_id(column)].accuracies
        paths = {entry.seed: entry.path for entry in sweep.cell(row, column)}
        shown = [
            (f"{100 * found[seed]:.2f}", _link(paths[seed], home)) if seed in found else (DASH, None)
            for seed in sweep.seeds
        ]
        lines.append((place(sweep, row, column), shown))
    return lines


def _link(path: Path, home: Path) -> str:
    return quote(os.fsencode(os.path.relpath(path, home.resolve())), safe="/") + "/"


def _layers(sweep: SweepResults) -> list[dict[str, Any]]:
    """Return the sparsity by layer and row, as one table per column."""
    tables = []
    for column in sweep.columns:
        rows = {row: layer_densities(sweep.cell(row, column)) for row in sweep.rows}
        rows = {row: values for row, values in rows.items() if values}
        names = dict.fromkeys(name for values in rows.values() for name in values)
        lines = [(name, [f"{100 * (1 - v[name]):.2f}" if name in v else DASH for v in rows.values()]) for name in names]
        if lines:
            tables.append({"name": column_label(column), "rows": list(rows), "lines": lines})
    return tables


def _troubles(sweep: SweepResults) -> list[dict[str, str]]:
    """List the unfinished runs; seeds of one cell with the same error share an item."""
    together: dict[tuple[str, str, str], list[RunEntry]] = {}
    for run in sweep.runs:
        if run.status != "done":
            key = (place(sweep, run.row, run.column), run.status, run.error or "")
            together.setdefault(key, []).append(run)
    words = {"failed": "failed", "missing": "not finished"}
    items = []
    for (name, status, error), runs in together.items():
        noun = "seed" if len(runs) == 1 else "seeds"
        items.append(
            {
                "name": f"{name}, {noun} {', '.join(str(run.seed) for run in runs)}",
                "status": words[status],
                "error": error,
                "folders": ", ".join(one_line(run.path.name) for run in runs),
            }
        )
    return items
