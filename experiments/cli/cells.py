"""The command `ham run-cell`: the N-th run of a table, for the job arrays of any scheduler."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import Busy, ClaimLost, Interrupted, Unfinished, UserError

from . import complete, menu
from .loading import load, said, unchecked
from .options import RUNS, Out, Rows, Seeds

if TYPE_CHECKING:
    from experiments.config.resolve import Loaded
    from experiments.config.sweep import Cell, Sweep
    from experiments.launch import signals
    from experiments.launch.array_index import ArrayIndex

app = typer.Typer()


@app.command("run-cell", **menu.listed(menu.TRAIN, "ham run-cell quickstart --count", "ham run-cell quickstart 0"))
def run_cell(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|DIR",
            help="A configuration with a sweep, or a sweep's folder.",
            autocompletion=complete.folders_and_configs,
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[N] [KEY=VALUE]...",
            help="Number of the cell, from 0; default: that of the array's task. Settings.",
        ),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print how many cells there are; do nothing.")] = False,
    first: Annotated[
        int | None,
        typer.Option("--first", min=0, help="What the array counts from; default: 1 on LSF and SGE, else 0."),
    ] = None,
    out: Out = RUNS,
    rows: Rows = None,
    seeds: Seeds = None,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Compute threads; results are equal only at equal threads.")
    ] = 1,
) -> None:
    """Train the N-th network of a table, or resume it, as a task of any scheduler's job array.

    Exit codes: 0 it has a result; 1 it failed; 2 the command is wrong; 75 it is not finished, call again.
    """
    from experiments.config.part import part
    from experiments.launch import signals

    with signals.noted() as stop:  # first of all: what follows loads for seconds
        number, overrides = _parse(words or [])
        table, folder = _table(sweep, overrides, out)
        runs = part(table, rows, seeds).runs
        if count:
            print(len(runs))
            return
        cell = runs[_index(number, first).of(len(runs))]
        try:
            line = _carry_out(table, cell, folder, threads, stop)
        except (Busy, ClaimLost) as error:
            raise Unfinished(f"{error.message}; exit code 75: call again", error.where) from None
        except Interrupted as error:
            if stop.first == signal.SIGINT:
                raise
            raise Unfinished(error.message, error.where) from None
    if line is not None:
        print(line)


def _parse(words: list[str]) -> tuple[int | None, list[str]]:
    """Tell the number, which stands first, from the settings."""
    from experiments.launch import array_index

    if not words or "=" in words[0]:
        return None, words
    if not array_index.is_number(words[0]):
        raise UserError(f"{words[0]!r} is neither the number of a cell nor KEY=VALUE", "N")
    return int(words[0]), words[1:]


def _index(number: int | None, first: int | None) -> ArrayIndex:
    from experiments.launch import array_index

    if number is not None:
        return array_index.given(number, first)
    found = array_index.from_environment(os.environ, first)
    print(f"cell {found.number - found.first} ({found.source}, counted from {found.first})", file=sys.stderr)
    return found


def _table(name: str, overrides: list[str], out: Path) -> tuple[Sweep, Path]:
    """Return the sweep of a configuration or of a folder, and its folder."""
    from experiments.launch import table
    from experiments.run import reuse

    folder = Path(name)
    if not folder.is_dir():
        sweep = unchecked(load(name, overrides), out)
        return reuse.placed(sweep, out / sweep.name), out / sweep.name
    if overrides:
        raise UserError(f"{overrides[0]}: a folder has its settings; give the configuration to change one", name)
    sweep = _shown(load(str(table.config_of(folder)), []), folder)
    table.check_same(sweep, folder)
    return reuse.placed(replace(sweep, name=folder.resolve().name), folder), folder


def _shown(loaded: Loaded, folder: Path) -> Sweep:
    """Return the sweep of a folder: the table of its configuration, or the tuning of it."""
    from .tuning import TuningFolder

    out = folder.resolve().parent
    tuning = TuningFolder.of(loaded, out)
    if tuning is None or tuning.folder != folder.resolve():
        return unchecked(loaded, out)
    return tuning.shown()


def _carry_out(table: Sweep, cell: Cell, folder: Path, threads: int, stop: signals.Noted) -> str | None:
    """Do what `ham sweep` would do with one of its runs, in this process; return its result in words."""
    from experiments.config.grid import at
    from experiments.launch import table as manifest
    from experiments.launch.local import run_here
    from experiments.run import reuse
    from experiments.run.check import check_all, check_here

    from .terminal import damage_said

    path = folder / cell.path
    done = reuse.finished(cell.spec, cell.identity, path)
    if done is None:
        check_all([(f"row {cell.row!r}{at(cell.column)}", cell.spec)])
        check_here([(f"row {cell.row!r}{at(cell.column)}", cell.spec)])
        if (lost := manifest.check(table, folder)) is not None:
            print(lost, file=sys.stderr)
        manifest.write(table, folder)
        with damage_said():
            done, is_main = run_here(cell.spec, path, cell.identity, threads=threads, stop=stop)
        if not is_main:
            return None
    return said(path, done, cell.spec)
