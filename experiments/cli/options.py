"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import complete

Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of one under configs/, such as quickstart.",
        autocompletion=complete.configs,
    ),
]
Dir = Annotated[
    Path, typer.Argument(metavar="DIR", help="A sweep's folder, or one run's.", autocompletion=complete.folders)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as optimizer.lr=0.2.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder that run folders are written below.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Worker processes; default: one per core.")]
Rows = Annotated[
    list[str] | None, typer.Option("--rows", metavar="ROW", help="Only this row of the table; may be repeated.")
]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="LIST", help="Only these of its seeds, as in 0,2-4.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[WORD]...", help="Which runs: a row, a seed (s0), a state, a job, part of a folder's name."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
RUNS = Path("runs")


class Cluster(StrEnum):
    """Where a sweep runs."""

    local = "local"
    slurm = "slurm"
