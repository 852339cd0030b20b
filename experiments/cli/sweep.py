"""The command `ham sweep`: a table, or a part of it, on this machine or as jobs of a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import UserError

from . import complete, menu, planned, tune
from .loading import check_cells_here, expand_checked, load
from .options import RUNS, Cluster, Config, Jobs, Out, Overrides, Rows, Seeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from experiments.config.part import TablePart
    from experiments.config.sweep import Sweep

app = typer.Typer()


@app.command(
    **menu.listed(
        menu.TRAIN,
        "ham sweep quickstart --dry-run",
        "ham sweep quickstart",
        "ham sweep quickstart --rows RiGL --seeds 0-2",
        "ham sweep quickstart --cluster slurm --profile profiles/mine.yaml",
    )
)
def sweep(
    config: Config,
    overrides: Overrides = None,
    jobs: Jobs = None,
    out: Out = RUNS,
    rows: Rows = None,
    seeds: Seeds = None,
    reuse_from: Annotated[
        list[Path] | None,
        typer.Option(
            "--reuse",
            metavar="DIR",
            help="Take finished runs also from here, besides --out; may be repeated.",
            autocompletion=complete.folders,
        ),
    ] = None,
    no_reuse: Annotated[
        bool, typer.Option("--no-reuse", help="Train also what another sweep has trained already.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, or batch scripts; do nothing.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --dry-run: time some steps of each kind of run on this machine.")
    ] = False,
    cluster: Annotated[
        Cluster, typer.Option("--cluster", help="This machine, or jobs of a Slurm cluster.")
    ] = Cluster.local,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Slurm: a file or a name, see docs/howto/slurm.md.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Slurm: how many of its runs may wait or run at once.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: JSON instead of text.")] = False,
    after_tuning: Annotated[bool, typer.Option("--after-tuning", hidden=True, help="The job after a tuning.")] = False,
) -> None:
    """Train all networks of a table that have no result yet: rows × columns × seeds, or a part of them.

    What the table tunes is chosen first, for all its rows.
    """
    from experiments.config.part import part as part_of
    from experiments.cores import usable_cores
    from experiments.launch import elsewhere
    from experiments.launch.estimate import local
    from experiments.launch.local import run_sweep
    from experiments.launch.table import check as left_out
    from experiments.run import reuse

    from .forecast import expected
    from .terminal import next_step, shown

    if probe and not dry_run:
        raise UserError("belongs to --dry-run", "--probe")
    if as_json and (not dry_run or cluster is Cluster.slurm):
        raise UserError("belongs to --dry-run on this machine", "--json")
    if no_reuse and reuse_from:
        raise UserError("excludes --no-reuse; give one", "--reuse")
    for option, value in (("--profile", profile), ("--limit", limit)):
        if value is not None and cluster is not Cluster.slurm:
            raise UserError("belongs to --cluster slurm", option)
    loaded = load(config, overrides)
    call = None
    if cluster is Cluster.slurm:
        options = _options(rows, seeds, reuse_from, no_reuse)
        call = tune.ClusterCall(profile or "default", limit, options, after_tuning)
    if not tune.before(loaded, out, jobs, dry_run=dry_run, cluster=call, as_json=as_json):
        return
    table = expand_checked(loaded, out)
    folder = out / table.name
    table = reuse.placed(table, folder)
    part = part_of(table, rows, seeds)
    if (lost := left_out(table, folder)) is not None:
        print(lost, file=sys.stderr)
    todo = reuse.pending(part.runs, folder)
    found = {} if no_reuse else elsewhere.find(todo, folder, [out, *(reuse_from or ())])
    workers = jobs or usable_cores()
    if dry_run:
        if not as_json:
            _say_reused(found)
        todo = [cell for cell in todo if cell.path not in found]
    if cluster is Cluster.slurm:
        from slurm import submit

        chosen = profile or "default"
        if dry_run:
            times = expected(table, folder, todo, probe=probe)
            print(submit.dry_run(table, out, chosen, times, limit, {cell.path for cell in part.runs} - found.keys()))
            return
        print(submit.submit(table, out, chosen, {cell.path for cell in part.runs}, limit, found))
        next_step(f"`ham status {folder}` says how far they are")
    elif as_json:
        print(planned.as_json("table", folder, part.runs, {cell.path for cell in todo}, found))
        return
    elif dry_run:
        for cell in todo:
            print(folder / cell.path)
        print(f"{len(todo)} of {len(part.runs)} runs to do{_of_whole(part, table)}")
        if todo:
            times = expected(table, folder, todo, probe=probe)
            print(local(times, len(todo), min(len(todo), workers)), file=sys.stderr)
            next_step(f"the same command without --dry-run trains them; `ham config {config}` shows what rows change")
        return
    else:
        check_cells_here(loaded.config, todo)
        with shown(len(todo)) as listener:
            run_sweep(table, out, jobs=workers, listener=listener, cells=part.runs, found=found)
        print(f"{folder}: {len(part.runs)} runs complete; `ham table {folder}` shows the table")
    if part.words:
        left = len(reuse.pending(table.runs, folder))
        print(f"this was a part: {part.words}; {left} of all {len(table.runs)} runs of the table have no result yet")


def _options(rows: list[str] | None, seeds: str | None, reuse_from: list[Path] | None, no_reuse: bool) -> list[str]:
    """Return the options of this call that the job after a tuning needs as well."""
    found = [word for row in rows or () for word in ("--rows", row)]
    found += ["--seeds", seeds] if seeds is not None else []
    found += [word for path in reuse_from or () for word in ("--reuse", str(path.resolve()))]
    return found + (["--no-reuse"] if no_reuse else [])


def _of_whole(part: TablePart, table: Sweep) -> str:
    return f" ({part.words}; the table has {len(table.runs)})" if part.words else ""


def _say_reused(found: Mapping[str, Path]) -> None:
    for path, source in found.items():
        print(f"{path}: would be reused from {source}, where it is finished", file=sys.stderr)
