"""The commands that make something of results: tables, choices, reports. They load torch only where they say so."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder, or one run's.")]


class Format(StrEnum):
    """Output format of a table."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"
    html = "html"


@app.command()
def table(
    directory: Dir,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = Format.text,
    show: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="What it shows: accuracy, train, delta, p, sparsity, flops, layers."),
    ] = None,
) -> None:
    """Print the table of a sweep: mean ± sample standard deviation, paired differences, sparsity, FLOPs."""
    from results.table.formats import render
    from results.table.tables import SHOWN

    shown = SHOWN if show is None else tuple(kind.strip() for kind in show.split(","))
    print(render(directory, format.value, shown), end="")


@app.command()
def best(directory: Dir) -> None:
    """Name the best setting of each row of a tuning sweep, by mean accuracy on the validation part."""
    from results.numbers import best as chooser

    print(chooser.render(directory))


@app.command()
def report(
    directory: Dir,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; default: DIR/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page: table, curves, configuration, versions."""
    from results.page import report as writer

    print(writer.write_report(directory, output))
