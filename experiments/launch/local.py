"""Execution of runs and sweeps on this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from experiments.config.resolve import from_mapping
from experiments.config.schema import Spec
from experiments.config.sweep import Sweep
from experiments.errors import Interrupted, RunFailure
from experiments.ranks import distributed
from experiments.run import reuse, runner
from experiments.run.numerics import same_arithmetic
from experiments.rundir import names

from . import table
from .pool import Listener, Task, run_all

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def default_jobs() -> int:
    """Return one worker per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(
    spec: Spec, folder: Path, identity: str, progress: runner.OnStep, threads: int
) -> tuple[dict[str, Any], bool]:
    """Execute one run in this process, or this process's part of it if torchrun or srun started several ranks.

    Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 stop the run at a checkpoint, from which it can be resumed.

    Returns:
        The result, and whether this process is the main rank.

    Raises:
        Interrupted, RunFailure, LostRank, UserError: see `runner.run`.
    """
    requested = False

    def request(*_: Any) -> None:
        nonlocal requested
        requested = True

    before = {number: signal.signal(number, request) for number in STOPPING}
    try:
        with (
            same_arithmetic(threads),
            distributed.joined(folder, spec.runtime.device, spec.runtime.rank_timeout) as world,
        ):
            result = runner.run(spec, folder, identity, progress=progress, stop=lambda: requested, world=world)
        return result, world.is_main
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sweep_task(mapping: dict[str, Any], folder: Path, identity: str, group: str, **hooks: Any) -> dict[str, Any]:
    return runner.run(from_mapping(mapping), folder, identity, group=group, **hooks)


def run_sweep(sweep: Sweep, runs_root: Path, *, jobs: int, listener: Listener) -> None:
    """Write the manifest of a sweep, and execute its runs that have no result yet.

    Args:
        sweep: The sweep.
        runs_root: Folder that holds the folders of all sweeps.
        jobs: Number of worker processes.
        listener: Receives the progress.

    Raises:
        RunFailure: if some runs failed, after all others are done.
    """
    folder = runs_root / sweep.name
    table.write(sweep, folder)
    todo = reuse.pending(sweep, folder)
    tasks = [
        Task(
            name=cell.path,
            function=_sweep_task,
            arguments=(cell.spec.model_dump(), folder / cell.path, cell.identity, cell.row),
            log=folder / cell.path / names.LOG,
        )
        for cell in todo
    ]
    tracked = any(cell.spec.tracking.wandb != "disabled" for cell in todo)
    try:
        outcomes = run_all(tasks, jobs, listener, preload=["wandb"] if tracked else [])
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on from here", where=str(folder)) from None
    failed = [name for name, outcome in outcomes.items() if outcome.error]
    if failed:
        some = ", ".join(failed[:3]) + (" …" if len(failed) > 3 else "")
        raise RunFailure(
            f"{len(failed)} of {len(sweep.runs)} runs failed ({some}); "
            "the others are complete, and the same command tries these again",
            where=str(folder),
        )
