"""The commands for a Slurm cluster: a look at it, and taking jobs out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import UserError

from . import menu
from .options import RUNS, Cluster, Dir, Out, Words

app = typer.Typer()


@app.command(**menu.listed(menu.CLUSTERS, "ham doctor slurm --profile-out profiles/mine.yaml"))
def doctor(
    what: Annotated[Cluster, typer.Argument(metavar="WHAT", help="What to look at: slurm.")],
    profile: Annotated[str | None, typer.Option("--profile", help="Try things as this profile says.")] = None,
    profile_out: Annotated[Path | None, typer.Option("--profile-out", help="Write a first profile here.")] = None,
    out: Out = RUNS,
) -> None:
    """Look at a cluster and try it out with two small jobs: requeueing, shared files, GPUs, accounting, two nodes.

    The exit code is 1 if something failed that jobs need, and 0 otherwise.
    """
    from slurm import doctor

    if what is not Cluster.slurm:
        raise UserError("there is nothing to look at; allowed: slurm", "WHAT")
    failed = False
    for finding in doctor.examine(profile, profile_out, out):
        print(finding, flush=True)
        failed = failed or finding.mark == "failed"
    raise typer.Exit(int(failed))


@app.command(**menu.listed(menu.CLUSTERS, "ham cancel runs/quickstart", "ham cancel runs/quickstart RiGL pending"))
def cancel(
    directory: Dir,
    words: Words = None,
) -> None:
    """Cancel the jobs of a sweep's runs, or of those that the words fit; runs that have begun can be resumed."""
    from results.progress.select import select
    from results.runs.store import read_plan
    from results.runs.submissions import submissions
    from slurm.cancel import cancel as take_out
    from slurm.cancel import settled

    with settled(submissions(read_plan(directory).directory).home):
        sweep = read_plan(directory)
        submitted = submissions(sweep.directory)
        print(take_out(submitted, [run.path for run in select(sweep, submitted, words or [])]))
