"""Execution of runs and sweeps on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.resolve import from_mapping
from experiments.config.schema import Spec
from experiments.config.sweep import Cell, Sweep
from experiments.errors import Interrupted, RunFailure
from experiments.ranks import distributed
from experiments.run import reuse, runner
from experiments.run.numerics import same_arithmetic
from experiments.rundir import attempts, holder, names

from . import elsewhere, table
from .pool import Listener, Task, run_all


def run_here(
    spec: Spec,
    folder: Path,
    identity: str,
    *,
    threads: int,
    stop: runner.Stop,
    progress: runner.OnStep = lambda done, total: None,
) -> tuple[dict[str, Any], bool]:
    """Execute one run in this process, or this process's part of it if torchrun or srun started several ranks.

    Args:
        spec: The resolved specification.
        folder: The run directory.
        identity: Identity hash of the run.
        threads: Compute threads.
        stop: Asked after every step; true stops the run at a checkpoint, from which it can be resumed.
        progress: Called after every step.

    Returns:
        The result, and whether this process is the main rank.

    Raises:
        Interrupted, RunFailure, LostRank, UserError: see `runner.run`.
    """
    with (
        same_arithmetic(threads),
        distributed.joined(folder, spec.runtime.device, spec.runtime.rank_timeout) as world,
    ):
        result = runner.run(spec, folder, identity, progress=progress, stop=stop, world=world)
    return result, world.is_main


def _sweep_task(mapping: dict[str, Any], folder: Path, identity: str, **hooks: Any) -> dict[str, Any]:
    return runner.run(from_mapping(mapping), folder, identity, patience=None, **hooks)


def run_sweep(
    sweep: Sweep,
    runs_root: Path,
    *,
    jobs: int,
    listener: Listener,
    cells: Sequence[Cell] | None = None,
    found: Mapping[str, Path] | None = None,
) -> None:
    """Write the manifest of a sweep, and execute its runs that have no result yet.

    Args:
        sweep: The sweep.
        runs_root: Folder that holds the folders of all sweeps.
        jobs: Number of worker processes.
        listener: Receives the progress.
        cells: The runs to execute; None takes all.
        found: Folders of finished runs that are taken over, see `elsewhere.find`.

    Raises:
        RunFailure: if some runs failed, after all others are done, also those that other processes work on.
    """
    folder = runs_root / sweep.name
    cells = sweep.runs if cells is None else cells
    table.write(sweep, folder)
    elsewhere.take(cells, folder, found or {})
    todo, busy, failed = reuse.pending(cells, folder), [], []
    listener.planned(len(todo))
    try:
        while todo or busy:
            tasks = [_task(cell, folder) for cell in todo]
            outcomes = run_all(tasks, jobs, listener)
            held = {name for name, outcome in outcomes.items() if outcome.busy}
            busy += [cell for cell in todo if cell.path in held]
            failed += [name for name, outcome in outcomes.items() if outcome.error and not outcome.busy]
            todo, busy = _when_free(busy, folder, listener)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on from here", where=str(folder)) from None
    if failed:
        some = ", ".join(failed[:3]) + (" …" if len(failed) > 3 else "")
        raise RunFailure(
            f"{len(failed)} of {len(cells)} runs failed ({some}); "
            "the others are complete, and the same command tries these again",
            where=str(folder),
        )


def _task(cell: Cell, folder: Path) -> Task:
    return Task(
        name=cell.path,
        function=_sweep_task,
        arguments=(cell.spec.model_dump(), folder / cell.path, cell.identity),
        log=folder / cell.path / names.LOG,
    )


def _when_free(busy: list[Cell], folder: Path, listener: Listener) -> tuple[list[Cell], list[Cell]]:
    """Wait until a run that another process has held is finished or free, as long as that process lives.

    Returns:
        The runs that are free and have no result, and those that are still held.
    """
    told = False
    while busy:
        busy = [cell for cell in busy if reuse.finished(cell.spec, cell.identity, folder / cell.path) is None]
        holders = {cell.path: attempts.newest(folder / cell.path) for cell in busy}
        held = [cell for cell in busy if (one := holders[cell.path]) and attempts.alive(folder / cell.path, one)]
        free = [cell for cell in busy if cell not in held]
        if free or not held:
            return free, held
        if not told:
            first = folder / held[0].path
            more = f", and {len(held) - 1} more" if len(held) > 1 else ""
            listener.waits(f"waiting for {first}{more}: {holder.words(first, holders[held[0].path] or {})}")
            told = True
        time.sleep(1)
    return [], []
