"""Several ranks of one run, each a process of this machine that finds the others as srun's tasks do."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from arithmetic import float64

from experiments.config.identity import identity_with_data
from experiments.config.resolve import from_mapping
from experiments.config.schema import Spec
from experiments.errors import SuiteError
from experiments.ranks import distributed
from experiments.run import runner

PATIENCE = 90.0  # seconds: a bound on every wait
_steps = itertools.count(1)


@dataclass(frozen=True)
class Ended:
    """How a rank ended: with a result, with an error of the suite, or killed."""

    result: Any = None
    error: SuiteError | None = None
    killed: bool = False


Act = Callable[[int, int], Any]  # rank, steps done -> "stop" to ask for a stop
"""What a rank does after each of its steps, beside training; a module-level function or a partial of one."""


def nothing(rank: int, step: int) -> None:
    """Train in peace."""


def stop_at(which: int, at: int, rank: int, step: int) -> str | None:
    """One rank asks for a stop."""
    return "stop" if rank == which and step >= at else None


def die_at(which: int, at: int, rank: int, step: int) -> None:
    """One rank is killed."""
    if rank == which and step == at:
        os.kill(os.getpid(), signal.SIGKILL)


def freeze_at(which: int, at: int, rank: int, step: int) -> None:
    """One rank is still there and answers no more."""
    if rank == which and step == at:
        signal.pause()


def train_on(spec: Spec, folder: Path, size: int, act: Act = nothing, frozen: int = 0) -> list[Ended]:
    """Carry a run out on several ranks of this machine, of which some will be frozen; in float64 within `float64`."""
    double = torch.get_default_dtype() == torch.float64
    return on_ranks(
        size, folder, _train, spec.model_dump(), folder, identity_with_data(spec), act, double, frozen=frozen
    )


def on_ranks(size: int, folder: Path, function: Callable[..., Any], *arguments: Any, frozen: int = 0) -> list[Ended]:
    """Call ``function(world, *arguments)`` on several ranks that meet in a folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "experiments.run.runner"])
    answers = context.Queue()
    step = next(_steps)
    processes = [
        context.Process(target=_rank, args=(rank, size, step, folder, answers, function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    ended: dict[int, Ended] = {}
    silent = 0
    try:
        while len(ended) < size - frozen:
            try:
                rank, result, error = answers.get(timeout=0.2)
                ended[rank] = Ended(result, error)
            except Empty:
                codes = {rank: process.exitcode for rank, process in enumerate(processes) if rank not in ended}
                for rank, code in codes.items():
                    if code is not None and code < 0:
                        ended[rank] = Ended(killed=True)
                # what one has put into the queue last may still be on its way
                silent = silent + 1 if any(code is not None and code >= 0 for code in codes.values()) else 0
                assert silent < 50, f"a rank has ended without an answer: {codes}"
    finally:
        for process in processes:
            process.join(0.5 if frozen else PATIENCE)
            process.kill()
            process.join()
    return [ended.get(rank, Ended(killed=True)) for rank in range(size)]


def _rank(rank: int, size: int, step: int, folder: Path, answers: Any, function: Any, arguments: Any) -> None:
    torch.set_num_threads(1)
    variables = {"PROCID": rank, "STEP_NUM_TASKS": size, "LOCALID": rank, "JOB_ID": 1, "STEP_ID": step}
    os.environ.update({f"SLURM_{name}": str(value) for name, value in variables.items()})
    os.environ["SLURMD_NODENAME"] = "localhost"
    minutes = arguments[0]["runtime"]["rank_timeout"] if arguments and isinstance(arguments[0], dict) else 1.0
    try:
        with distributed.joined(folder, "cpu", minutes) as world:
            answer = (rank, function(world, *arguments), None)
    except SuiteError as error:
        answer = (rank, None, error)
    answers.put(answer)
    answers.close()
    answers.join_thread()
    if answer[2] is not None:
        os._exit(1)  # as a job does: collectives that wait for a dead rank must not keep the process


def _train(
    world: distributed.World, mapping: dict[str, Any], folder: Path, identity: str, act: Act, double: bool
) -> dict[str, Any]:
    asked = False

    def progress(done: int, total: int) -> None:
        nonlocal asked
        asked = act(world.rank, done) == "stop" or asked

    with float64() if double else nullcontext():
        return runner.run(from_mapping(mapping), folder, identity, progress=progress, stop=lambda: asked, world=world)
