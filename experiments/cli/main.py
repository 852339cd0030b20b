"""The `ham` command.

Slow imports are inside the commands, so that `ham --help` and commands that only read results do not load torch.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.errors import SuiteError, UserError, way_out

from . import analyse, bench, cells, dashboard, figures, hours, read, tables, theory, tidy, track, watch
from .loading import expand_checked, load, said, single

app = typer.Typer(
    help="Sparse-training benchmark suite around HAM (Hyperbolic Aware Minimization).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench.app)
app.add_typer(cells.app)
app.add_typer(hours.app)
app.add_typer(watch.app)
app.add_typer(read.app)
app.add_typer(tables.app)
app.add_typer(analyse.app)
app.add_typer(figures.app)
app.add_typer(theory.app)
app.add_typer(tidy.app)
app.add_typer(dashboard.app)
app.add_typer(track.app, name="track")

Config = Annotated[str, typer.Argument(help="A YAML file, or the name of one under configs/, such as quickstart.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as optimizer.lr=0.2.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder that run folders are written below.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Worker processes; default: one per core.")]
RUNS = Path("runs")


class Cluster(StrEnum):
    """Where a sweep runs."""

    local = "local"
    slurm = "slurm"


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    out: Out = RUNS,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Compute threads; results are equal only at equal threads.")
    ] = 1,
) -> None:
    """Train one network, or resume where an earlier call stopped."""
    from rich.progress import Progress

    from experiments.launch import signals
    from experiments.launch.local import run_here

    from .terminal import console, damage_said

    loaded = load(config, overrides)
    if loaded.sweep is not None:
        raise UserError(
            f"{config} describes a sweep; use `ham sweep {config}`, or add sweep=null for its base alone", "sweep"
        )
    spec, identity, folder = single(loaded, out)
    with (
        damage_said(),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bars,
        signals.noted() as stop,
    ):
        bar = bars.add_task(folder.name, total=None)

        def progress(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        result, is_main = run_here(spec, folder, identity, threads=threads, stop=stop, progress=progress)
    if is_main:
        print(said(folder, result))


@app.command()
def sweep(
    config: Config,
    overrides: Overrides = None,
    jobs: Jobs = None,
    out: Out = RUNS,
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
) -> None:
    """Train all networks of a table that have no result yet: rows × columns × seeds."""
    from experiments.cores import usable_cores
    from experiments.launch.estimate import local
    from experiments.launch.local import run_sweep
    from experiments.launch.table import check as left_out
    from experiments.run import reuse

    from .forecast import expected
    from .terminal import SweepBars

    if probe and not dry_run:
        raise UserError("belongs to --dry-run", "--probe")
    table = expand_checked(load(config, overrides))
    table = reuse.placed(table, out / table.name)
    if (lost := left_out(table, out / table.name)) is not None:
        print(lost, file=sys.stderr)
    if cluster is Cluster.slurm:
        from slurm import submit

        chosen = profile or "default"
        if dry_run:
            print(submit.dry_run(table, out, chosen, expected(table, out / table.name, probe=probe), limit))
        else:
            print(submit.submit(table, out, chosen, limit=limit))
        return
    for option, value in (("--profile", profile), ("--limit", limit)):
        if value is not None:
            raise UserError("belongs to --cluster slurm", option)
    todo = reuse.pending(table, out / table.name)
    if dry_run:
        for cell in todo:
            print(out / table.name / cell.path)
        print(f"{len(todo)} of {len(table.runs)} runs to do")
        if todo:
            found = expected(table, out / table.name, probe=probe)
            print(local(found, len(todo), min(len(todo), jobs or usable_cores())), file=sys.stderr)
        return
    with SweepBars(len(todo)) as bars:
        run_sweep(table, out, jobs=jobs or usable_cores(), listener=bars)
    print(f"{out / table.name}: {len(table.runs)} runs complete; `ham table {out / table.name}` shows the table")


@app.command()
def calibrate(config: Config, overrides: Overrides = None, jobs: Jobs = None) -> None:
    """Solve for STR's threshold decay in each setting that asks for it, and store it beside the configuration."""
    from experiments.config.resolve import calibration_path, read_calibration, with_threshold_decay
    from experiments.config.sweep import expand
    from experiments.config.yaml_text import read_yaml
    from experiments.cores import usable_cores
    from experiments.launch import calibrate as calibration
    from experiments.run.check import check_all

    from .terminal import SweepBars

    loaded = load(config, overrides)
    path = calibration_path(loaded.path)
    known = {key: value for file in loaded.files for key, value in read_calibration(calibration_path(file)).items()}
    cells = calibration.needed(expand(loaded, calibrate=False).cells, known)
    # any decay will do: it changes no shape
    check_all((f"{loaded.config}: row {cell.row!r}", with_threshold_decay(cell.spec, 0.0)) for cell in cells)
    with SweepBars(len(cells), unit="settings") as bars:
        entries, failures = calibration.calibrate(cells, jobs or usable_cores(), bars)
    old: Any = read_yaml(path) if path.exists() else []
    if entries:
        calibration.store(path, [dict(entry) for entry in old], entries)
    print(f"{path}: {len(entries)} settings solved, {len(failures)} failed, {len(old)} there before")
    if failures:
        raise SuiteError("\n".join(failures))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A topology or representation; default: list all.")] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Module with methods of your own; may be repeated."),
    ] = None,
) -> None:
    """List the methods, or describe one: paper, rule, deviations, options, published figures."""
    from experiments.config.methods import import_modules
    from results.numbers import paper

    from . import listing

    import_modules(imports or [], [Path()], "--import")
    print(listing.describe(name, paper.of_method(name)) if name else listing.overview())


@app.command()
def doctor(
    what: Annotated[Cluster, typer.Argument(help="What to look at: slurm.")],
    profile: Annotated[str | None, typer.Option("--profile", help="Try things as this profile says.")] = None,
    profile_out: Annotated[Path | None, typer.Option("--profile-out", help="Write a first profile here.")] = None,
    out: Out = RUNS,
) -> None:
    """Look at a cluster and try it out with one small job: requeueing, shared files, GPUs, accounting."""
    from slurm import doctor

    if what is not Cluster.slurm:
        raise UserError("there is nothing to look at; allowed: slurm", "WHAT")
    for line in doctor.examine(profile, profile_out, out):
        print(line, flush=True)


class _Once(logging.Filter):
    """Lets each message through once: several parts of a command may meet the same damaged file."""

    def __init__(self):
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


def main() -> None:
    """Run the command line.

    Every expected error becomes one message and an exit code: 2 for a mistake of the user's, 1 for a failure.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets its number
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.addFilter(_Once())
    try:
        app()
    except SuiteError as error:
        _leave(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _leave("interrupted; the same command goes on from here", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _leave(f"error: {error.filename or 'input/output'}: {error.strerror or error}{way_out(error)}", 1)


def _leave(message: str, code: int) -> None:
    # a name of a file may hold what steers a terminal
    text = "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in message)
    with suppress(OSError):  # of a terminal that was closed
        print(text, file=sys.stderr)
    sys.exit(code)
