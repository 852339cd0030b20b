"""`ham track`: what W&B gets besides the mirror of a run under way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import SuiteError

from . import complete, menu

app = typer.Typer(no_args_is_help=True, help="Weights & Biases, see docs/howto/wandb.md.")


@app.callback()
def track() -> None:
    """Make `push` a command of its own also where it is the only one."""


@app.command(**menu.listed(menu.CLUSTERS, "ham track push runs/quickstart --project my-project"))
def push(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of sweeps or of single runs.", autocompletion=complete.folders),
    ],
    project: Annotated[str | None, typer.Option("--project", help="Instead of the configuration's.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="User or team instead of the configuration's.")] = None,
) -> None:
    """Send to W&B what it has not: after kills, dead servers, and nodes without internet. Twice is not too often."""
    from experiments.rundir import names
    from experiments.tracking.push import push as send
    from results.runs.store import read_plan

    plans = [read_plan(directory) for directory in directories]
    folders = dict.fromkeys(run.path for plan in plans for run in plan.runs if (run.path / names.METRICS).exists())
    failed = 0
    for pushed in send(folders, project, entity):
        print(f"{pushed.folder}: {pushed.words}", flush=True)
        failed += pushed.failed
    if failed:
        raise SuiteError(f"{failed} of {len(folders)} runs are not complete at W&B")
    print(f"{len(folders)} runs")
