"""The `ham` command.

Slow imports are inside the commands, so that `ham --help` and commands that only read results do not load torch.
"""

from __future__ import annotations

import io
import logging
import shlex
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from experiments.errors import SuiteError, UserError, printable, way_out

from . import (
    analyse,
    bench,
    cells,
    cluster,
    dashboard,
    figures,
    hours,
    known,
    menu,
    read,
    sweep,
    tables,
    theory,
    tidy,
    track,
    tune,
    usage,
    watch,
)
from .loading import load, said, single
from .options import RUNS, Config, Jobs, Out, Overrides

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for part in (
    *(sweep, tune, cells),  # train
    *(watch, read, tidy),  # look at runs
    *(tables, analyse, figures, hours),  # use results
    *(known, bench, theory),
    *(cluster, dashboard),
):
    app.add_typer(part.app)
app.add_typer(track.app, name="track", rich_help_panel=menu.CLUSTERS)


def _show_versions(asked: bool) -> None:
    if asked:
        from .versions import versions

        print(versions())
        raise typer.Exit


@app.callback(epilog=menu.FIRST)
def suite(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_show_versions, is_eager=True, help="Print versions and the device; end."
        ),
    ] = False,
) -> None:
    """Compare sparse-training methods, with and around HAM (Hyperbolic Aware Minimization)."""


@app.command(
    **menu.listed(
        menu.TRAIN,
        "ham run base topology.name=rigl topology.sparsity=0.9",
        "ham run my_config.yaml seed=1 optimizer.ham.alpha=20",
    )
)
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

    from .terminal import console, damage_said, interactive, next_step

    loaded = load(config, overrides)
    if loaded.sweep is not None:
        raise UserError(
            f"{config} describes a sweep; use `ham sweep {config}`, or add sweep=null for its base alone", "sweep"
        )
    spec, identity, folder = single(loaded, out)
    with (
        damage_said(),
        Progress(console=console, transient=True, disable=not interactive()) as bars,
        signals.noted() as stop,
    ):
        bar = bars.add_task(folder.name, total=None)

        def progress(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        result, is_main = run_here(spec, folder, identity, threads=threads, stop=stop, progress=progress)
    if is_main:
        print(said(folder, result, spec))
        next_step(f"`ham report {shlex.quote(str(folder))}` shows its curves; weights in weights.pt there")


@app.command(**menu.listed(menu.TRAIN, "ham calibrate quickstart"))
def calibrate(config: Config, overrides: Overrides = None, jobs: Jobs = None, out: Out = RUNS) -> None:
    """Solve for STR's threshold decay in each setting that asks for it, and store it beside the configuration."""
    from experiments.config.resolve import calibration_path, read_calibration, with_threshold_decay
    from experiments.config.stage import known_decays
    from experiments.cores import usable_cores
    from experiments.launch import calibrate as calibration
    from experiments.run.check import check_all, check_here

    from .terminal import next_step, shown

    loaded = load(config, overrides)
    path = calibration_path(loaded.path)
    cells = calibration.needed(tune.uncalibrated(loaded, out), known_decays(loaded.files))
    # any decay will do: it changes no shape
    check_all((f"{loaded.config}: row {cell.row!r}", with_threshold_decay(cell.spec, 0.0)) for cell in cells)
    check_here((f"{loaded.config}: row {cell.row!r}", cell.spec) for cell in cells)
    before = len(read_calibration(path))
    with shown(len(cells), unit="settings") as listener:
        failures = calibration.calibrate(cells, path, jobs or usable_cores(), listener)
    print(f"{path}: {len(cells) - len(failures)} settings solved, {len(failures)} failed, {before} there before")
    if failures:
        raise SuiteError("\n".join(failures))
    next_step(f"`ham sweep {shlex.quote(config)}` trains with them")


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
        code = app(prog_name="ham", standalone_mode=False)
    except usage.UsageError as error:
        if usage.helped(error):
            sys.exit(2)
        _leave(f"error: {usage.said(error)}", 2)
    except typer.Abort:
        _leave("there is nobody to answer; nothing was done", 1)
    except SuiteError as error:
        _leave(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _leave(f"error: {error.filename or 'input/output'}: {error.strerror or error}{way_out(error)}", 1)
    if code == 130:  # typer's, for Ctrl-C
        _leave("interrupted; the same command goes on from here", code)
    sys.exit(code)


def _leave(message: str, code: int) -> NoReturn:
    with suppress(OSError):  # of a terminal that was closed
        print(printable(message), file=sys.stderr)
    sys.exit(code)
