"""The command `ham tune`, and the tuning stage of `ham sweep`. Imports inside the functions load torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import RunFailure, UserError

from . import complete, menu
from .loading import chooser, load
from .tuning import TuningFolder

if TYPE_CHECKING:
    from experiments.config.resolve import Loaded
    from experiments.config.stage import TunedPlace
    from experiments.config.sweep import Cell

app = typer.Typer()


@app.command(**menu.listed(menu.TRAIN, "ham tune quickstart --dry-run", "ham tune my_config.yaml --store"))
def tune(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file with sweep.tuning, or the name of one under configs/.",
            autocompletion=complete.configs,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as schedule.epochs=2.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Worker processes; default: a core each.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that run folders are written below.")] = Path("runs"),
    store: Annotated[bool, typer.Option("--store", help="Write the choice beside the configuration, too.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also try settings again that failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs; do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: JSON instead of text.")] = False,
) -> None:
    """Try the settings of each row as sweep.tuning says, and choose the best by mean validation accuracy."""
    from experiments.config.choices import choices_path, read_choices
    from experiments.config.choices import store as write

    from .terminal import next_step

    if as_json and not dry_run:
        raise UserError("belongs to --dry-run", "--json")
    loaded = load(config, overrides)
    tuning = TuningFolder.of(loaded, out)
    if tuning is None:
        example = "{grid: {optimizer.lr: [0.1, 0.2]}, seeds: [100]}"
        raise UserError(f"has no sweep.tuning, which lists what to try, such as {example}", str(loaded.path))
    places = tuning.stage.places
    if dry_run:
        tuning.say_plan(places, again, as_json=as_json)
        return
    tuning.carry_out(places, jobs, again)
    found = tuning.settle(places)
    print(tuning.words(places))
    beside = choices_path(loaded.path)
    if store:
        write(beside, found)
        print(f"stored in {beside}")
        next_step(f"`ham sweep {shlex.quote(config)}` trains the table with what was chosen")
        return
    stored = read_choices([beside]).found
    differing = [one.row for one in found if one.identity in stored and stored[one.identity].chosen != one.chosen]
    if differing:
        rows = ", ".join(dict.fromkeys(differing))
        print(f"{beside} holds another choice for {rows}, which `ham sweep` uses; --store replaces it", file=sys.stderr)


@dataclass(frozen=True)
class ClusterCall:
    """How a stage is submitted to Slurm: profile, throttle, other options, and whether this is the job after it."""

    profile: str
    limit: int | None
    options: Sequence[str]
    follows: bool


def before(
    loaded: Loaded,
    out: Path,
    jobs: int | None,
    *,
    dry_run: bool,
    cluster: ClusterCall | None = None,
    as_json: bool = False,
) -> bool:
    """Tune the rows of a sweep for which no setting is chosen.

    Returns:
        Whether all are chosen now, so that the table can be trained.
    """
    tuning = TuningFolder.of(loaded, out)
    if tuning is None:
        return True
    if tuning.stage.open and not dry_run:
        tuning.settle([place for place in tuning.stage.open if tuning.is_over(place)])
        tuning.reload()
    places = tuning.stage.open
    if not places:
        return True
    tuning.say_stale(places)
    tuning.check()
    if dry_run:
        if cluster is not None:
            print(_scripts(tuning, places, cluster))
        tuning.say_plan(places, as_json=as_json)
        if as_json:
            return False
        print(f"then {tuning.runs_of_table()} runs of the table, with the settings chosen")
        return False
    if cluster is not None:
        print(_submit(tuning, places, cluster))
        return False
    tuning.carry_out(places, jobs)
    tuning.settle(places)
    print(tuning.words(places), file=sys.stderr)
    return True


def uncalibrated(loaded: Loaded, out: Path) -> list[Cell]:
    """Return all cells that may ask for a threshold decay: those of the table, or before it those of its tuning."""
    from experiments.config.sweep import expand
    from experiments.launch.tune import unsolved

    tuning = TuningFolder.of(loaded, out)
    if tuning is not None and tuning.stage.open:
        return unsolved(tuning.stage, tuning.stage.open)
    return expand(loaded, calibrate=False, choose=chooser(loaded, out)).cells


def _scripts(tuning: TuningFolder, places: Sequence[TunedPlace], cluster: ClusterCall) -> str:
    """Return the batch scripts of a tuning, and what they would ask for."""
    from experiments.launch.tune import kept
    from slurm.submit import dry_run

    return dry_run(kept(tuning.stage, places, tuning.folder), tuning.out, cluster.profile, limit=cluster.limit)


def _submit(tuning: TuningFolder, places: Sequence[TunedPlace], cluster: ClusterCall) -> str:
    """Submit the settings of some places to Slurm, and the job that submits the table after them."""
    from experiments.launch import tune as stages
    from slurm import submit
    from slurm.follow import follow

    if cluster.follows:
        text = "the jobs of the tuning are over, and some of its runs have no result (see `ham status`); to go on:"
        raise RunFailure(f"{text} {shlex.join(['ham', *_command(tuning, cluster)[:-1]])}", str(tuning.folder))
    if missing := stages.unsolved(tuning.stage, places):
        text = f"{len(missing)} settings ask for a calibrated threshold decay"
        raise UserError(
            f"{text}; solve them first: `ham calibrate {shlex.quote(tuning.loaded.config)}`", "sweep.tuning"
        )
    tuning.say_lost(places)
    sweep = stages.kept(tuning.stage, places, tuning.folder)
    todo = stages.pending(sweep, tuning.stage.of(places), tuning.folder)
    done = submit.submit(sweep, tuning.out, cluster.profile, only=todo, limit=cluster.limit)
    if done.seen.later:
        return f"tuning: {done}\nthe table follows when all of it is done: give the same command again"
    job = follow(sweep, tuning.out, cluster.profile, _command(tuning, cluster), done.jobs)
    return f"tuning: {done}\njob {job} submits the table when they are over"


def _command(tuning: TuningFolder, cluster: ClusterCall) -> Sequence[str]:
    limit = ["--limit", str(cluster.limit)] if cluster.limit is not None else []
    where = ["--out", str(tuning.out.resolve()), "--cluster", "slurm", "--profile", cluster.profile]
    return [
        "sweep",
        str(tuning.loaded.path.resolve()),
        *tuning.loaded.overrides,
        *where,
        *limit,
        *cluster.options,
        "--after-tuning",
    ]
