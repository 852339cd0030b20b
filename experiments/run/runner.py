"""One run by its directory: finished, resumable or new; its claim, its log and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from experiments.config.schema import Spec
from experiments.config.yaml_text import dump
from experiments.errors import ClaimLost, Interrupted, LostRank, RunFailure, SuiteError, UserError, way_out, words_of
from experiments.ranks.distributed import ALONE, World, lost_ranks_named
from experiments.rundir import attempts, names, outcome, waiting
from experiments.rundir.attempts import Attempt
from experiments.rundir.checkpoint import found
from experiments.rundir.environment import code, environment
from experiments.rundir.files import check_regular, remove_leftovers, write_json, write_text
from experiments.rundir.log_file import logging_to
from slurm.scheduler.environment import this_start

from . import reuse
from .final import carry_out
from .numerics import switches
from .training import OnStep, Stop, Training

log = logging.getLogger(__name__)


def run(
    spec: Spec,
    folder: Path,
    identity: str,
    *,
    progress: OnStep = lambda done, total: None,
    stop: Stop = lambda: False,
    world: World = ALONE,
    patience: float | None = 0.0,
) -> dict[str, Any]:
    """Carry one run out, or resume it, or return its result if it has one.

    Args:
        spec: The resolved specification.
        folder: The run directory; made if missing.
        identity: Identity hash of the run.
        progress: Called after every step.
        stop: Asked after every step; True saves a checkpoint and ends the run resumable.
        world: The ranks, all of which call this.
        patience: Seconds to wait for a living process that holds the directory; None does not even wait to see whether
            it lives, see `waiting.for_holder`.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: if the specification cannot be built.
        Busy: if another process holds the directory.
        RunFailure: if the run fails; `failure.json` then says why.
        LostRank: if another rank died.
        ClaimLost: if the directory was removed, or another process has taken it over.
        Interrupted: if `stop` said so.
    """
    with _claimed(spec, identity, folder, world, stop, patience) as held:
        if isinstance(held, Finished):
            return held.result
        log_path = folder / names.log_of(world.rank)
        with logging_to(log_path), switches(spec.runtime):
            try:
                with lost_ranks_named(world):
                    if world.is_main:
                        write_text(folder / names.SPEC, dump(spec.model_dump()), held.check)
                        write_json(folder / names.ENVIRONMENT, environment(), held.check)
                    return carry_out(Training(spec, held, identity, progress, stop, world))
            except (Interrupted, ClaimLost):
                raise
            except SuiteError as error:
                held.check()
                log.error("%s", error)
                if not isinstance(error, LostRank):  # that is nobody's fault: it goes on when it is started again
                    outcome.write_failure(folder, error)
                raise
            except (Exception, SystemExit) as error:  # the disk's, a defect's, or that of a method of the user's own
                held.check()
                failure = _failure(error, log_path)
                log.error("%s", failure, exc_info=not isinstance(error, OSError))
                outcome.write_failure(folder, failure, unexpected=True)
                raise failure from error


@dataclass(frozen=True)
class Finished:
    """A run that has its result already."""

    result: dict[str, Any]


@contextmanager
def _claimed(
    spec: Spec, identity: str, folder: Path, world: World, stop: Stop, patience: float | None
) -> Iterator[Attempt | Finished]:
    """Claim the directory on rank 0 and tell all ranks the outcome, also an error; a finished run needs no claim."""
    with ExitStack() as until_the_end:
        own = _take(spec, identity, folder, world, stop, patience, until_the_end) if world.is_main else repeat(None)
        # while rank 0 waits it says so every second, since ranks give up on one that says nothing
        held = next(held for one in own if (held := world.broadcast(one)) is not None)
        if isinstance(held, SuiteError):
            raise held
        yield held


Outcome = Attempt | Finished | SuiteError


def _take(
    spec: Spec,
    identity: str,
    folder: Path,
    world: World,
    stop: Stop,
    patience: float | None,
    until_the_end: ExitStack,
) -> Iterator[Outcome | None]:
    """Claim the directory, or find the run finished; None as long as others may still write it."""
    try:
        held = _finished(spec, identity, folder)
        if held is None:
            _check_place(folder)
            if patience is not None:
                yield from waiting.for_holder(folder, stop, patience)
            before = attempts.codes(folder)
            about = {"identity": identity, "seed": spec.seed, "code": code(), **_resources(spec, world)}
            claim = attempts.claim(folder, world.size, **about)
            until_the_end.enter_context(attempts.held(claim))
            with logging_to(folder / names.LOG):
                yield from waiting.for_earlier(claim, stop)
            remove_leftovers(folder)  # first: what an earlier process has not yet given a name never gets one
            held = _finished(spec, identity, folder)  # another process may have finished it a moment ago
            if held is None:
                _begin(folder, before)
                held = claim
        yield held
    except SuiteError as error:
        yield error
    except OSError as error:
        yield _failure(error, folder / names.LOG)


def _finished(spec: Spec, identity: str, folder: Path) -> Finished | None:
    result = reuse.finished(spec, identity, folder)
    return Finished(result) if result is not None else None


def _check_place(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.FILES:
        check_regular(folder / name)
    for name in (names.ATTEMPTS, names.CHECKPOINTS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise UserError("is a file where a run keeps a folder; remove it", str(folder / name))


def _begin(folder: Path, before: list[str]) -> None:
    """Remove the failure of an earlier attempt, and say if the code is another than its."""
    (folder / names.FAILURE).unlink(missing_ok=True)
    if found(folder) and before and before[-1] != code():
        log.warning(
            "%s: this run goes on under another version of the suite (%s after %s); its table says so",
            *(folder, code(), before[-1]),
        )


def _resources(spec: Spec, world: World) -> dict[str, int]:
    """Return CPUs and GPUs of all ranks, for `ham hours`: what a job gave them, or else what they compute with."""
    on_gpu = spec.runtime.device != "cpu" and torch.cuda.is_available()
    return {
        "cpus": world.size * max(this_start().cpus, torch.get_num_threads()),
        "gpus": world.size if on_gpu else 0,
    }


def _failure(error: BaseException, log_path: Path) -> RunFailure:
    folder = log_path.parent
    if isinstance(error, OSError):
        text = f"{error.strerror or words_of(error)}{way_out(error)}; what was finished is kept"
        return RunFailure(text, where=error.filename or str(folder))
    return RunFailure(f"{type(error).__name__}: {words_of(error)} (traceback in {log_path})", where=str(folder))
