"""One run by its directory: finished, resumable or new; its claim, its log and how it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.schema import Spec
from experiments.config.yaml_text import dump
from experiments.errors import ClaimLost, Interrupted, LostRank, RunFailure, SuiteError, UserError, way_out, words_of
from experiments.ranks.distributed import ALONE, World, lost_ranks_named
from experiments.rundir import attempts, names, outcome
from experiments.rundir.attempts import Attempt
from experiments.rundir.checkpoint import found
from experiments.rundir.environment import code, environment
from experiments.rundir.files import check_regular, remove_leftovers, write_json, write_text
from experiments.rundir.log_file import logging_to

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
    patient: bool = True,
) -> dict[str, Any]:
    """Carry one run out, or resume it, or return its result if it has one.

    Args:
        spec: The resolved specification.
        folder: The run directory; made if missing.
        identity: Identity hash of the run.
        progress: Called after every step.
        stop: Asked after every step; True saves a checkpoint and ends the run resumable.
        world: The ranks, all of which call this.
        patient: Whether to wait for a claim that may be that of a dead process, see `attempts.wait_for_sign`.

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
    with _claimed(spec, identity, folder, world, stop if patient else None) as held:
        if isinstance(held, Finished):
            return held.result
        log_path = folder / names.log_of(world.rank)
        with logging_to(log_path), switches(spec.runtime):
            try:
                with lost_ranks_named(world):
                    if world.is_main:
                        write_text(folder / names.SPEC, dump(spec.model_dump()))
                        write_json(folder / names.ENVIRONMENT, environment())
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
                outcome.write_failure(folder, failure)
                raise failure from error


@dataclass(frozen=True)
class Finished:
    """A run that has its result already."""

    result: dict[str, Any]


@contextmanager
def _claimed(spec: Spec, identity: str, folder: Path, world: World, stop: Stop | None) -> Iterator[Attempt | Finished]:
    """Claim the directory on rank 0 and tell all ranks the outcome, also an error; a finished run needs no claim."""
    held: Attempt | Finished | SuiteError | None = None
    if world.is_main:
        try:
            held = _finished(spec, identity, folder) or _claim(spec, identity, folder, world, stop)
        except SuiteError as error:
            held = error
        except OSError as error:
            held = _failure(error, folder / names.LOG)
    held = world.broadcast(held)
    if isinstance(held, SuiteError):
        raise held
    assert held is not None
    with attempts.held(held) if world.is_main and isinstance(held, Attempt) else nullcontext():
        yield held


def _finished(spec: Spec, identity: str, folder: Path) -> Finished | None:
    result = reuse.finished(spec, identity, folder)
    return Finished(result) if result is not None else None


def _claim(spec: Spec, identity: str, folder: Path, world: World, stop: Stop | None) -> Attempt | Finished:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.FILES:
        check_regular(folder / name)
    for name in (names.ATTEMPTS, names.CHECKPOINTS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise UserError("is a file where a run keeps a folder; remove it", str(folder / name))
    if stop is not None:
        waited = False
        for words in attempts.wait_for_sign(folder, stop):
            log.warning("%s: waiting, since %s", folder, words)
            waited = True
        if waited and stop():
            raise Interrupted("stopped while it waited; the same command goes on", where=str(folder))
    before = attempts.codes(folder)
    attempt = attempts.claim(folder, world.size, identity=identity, seed=spec.seed, code=code())
    done = _finished(spec, identity, folder)  # another process may have finished it a moment ago
    if done is not None:
        attempt.end("done")
        return done
    (folder / names.FAILURE).unlink(missing_ok=True)
    remove_leftovers(folder)
    if found(folder) and before and before[-1] != code():
        log.warning(
            "%s: this run goes on under another version of the suite (%s after %s); its table says so",
            *(folder, code(), before[-1]),
        )
    return attempt


def _failure(error: BaseException, log_path: Path) -> RunFailure:
    folder = log_path.parent
    if isinstance(error, OSError):
        text = f"{error.strerror or words_of(error)}{way_out(error)}; what was finished is kept"
        return RunFailure(text, where=error.filename or str(folder))
    return RunFailure(f"{type(error).__name__}: {words_of(error)} (traceback in {log_path})", where=str(folder))
