"""The command `ham hours`, which says what the runs of a sweep have used."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from experiments.errors import UserError

from . import menu
from .options import Dir

app = typer.Typer()


@app.command(**menu.listed(menu.RESULTS, "ham hours runs/quickstart --runs"))
def hours(
    directory: Dir,
    each: Annotated[bool, typer.Option("--runs", help="List each run, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text, with each run.")] = False,
) -> None:
    """Count the GPU- and CPU-hours that a table has really used: by row and run, all starts of requeued jobs."""
    from results.progress import hours as reader
    from results.progress.hours_text import render

    if each and as_json:
        raise UserError("--json lists each run anyway; give one of the two", "--runs")
    report = reader.hours(directory)
    print(json.dumps(reader.to_json(report), indent=1) if as_json else render(report, each=each))
