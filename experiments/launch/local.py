"""Runs and sweeps on this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from experiments.config.resolve import Spec, from_mapping
from experiments.config.sweep import Sweep, manifest
from experiments.errors import Interrupted, RunFailure
from experiments.ranks import distributed
from experiments.run import runner
from experiments.run.numerics import same_arithmetic
from experiments.rundir import names
from experiments.rundir.files import write_json
from experiments.rundir.outcome import read_result

from .pool import Listener, Task, run_all

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def default_jobs() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(
    spec: Spec, folder: Path, identity: str, progress: runner.OnStep, threads: int
) -> tuple[dict[str, Any], bool]:
    """Carry one run out in this process, or as one of several ranks that torchrun or srun started.

    Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 leave a resumable run.

    Returns:
        The result, and whether this is rank 0.

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


def run_sweep(sweep: Sweep, root: Path, *, jobs: int, listener: Listener) -> None:
    """Carry out the runs of a sweep that have no result yet; write the manifest first.

    Args:
        sweep: The sweep.
        root: Folder of all sweeps; this one's is below it.
        jobs: Number of worker processes.
        listener: Told what happens.

    Raises:
        RunFailure: after all other runs are done, if some failed.
    """
    folder = root / sweep.name
    write_json(folder / names.MANIFEST, manifest(sweep))
    todo = pending(sweep, root)
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


def pending(sweep: Sweep, root: Path) -> list[Any]:
    """The runs of a sweep without a result, each once, in table order."""
    return [cell for cell in sweep.runs if read_result(root / sweep.name / cell.path) is None]
