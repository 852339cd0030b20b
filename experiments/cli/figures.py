"""The command `ham figures`, which makes files of a report's figures, for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import complete, menu
from .tables import Against, several

app = typer.Typer()


@app.command(**menu.listed(menu.RESULTS, "ham figures runs/quickstart -f svg"))
def figures(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of a sweep, of runs, or of a run.", autocompletion=complete.folders),
    ],
    format: Annotated[str, typer.Option("--format", "-f", help="pdf, svg or png.")] = "pdf",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the files; default: DIR/figures.")
    ] = None,
    against: Against = None,
) -> None:
    """Write each figure of a sweep to a file, with its data as CSV beside it."""
    from results.page.figures import write

    for path in write(directory, output, format, several(against, "--against")):
        print(path)
