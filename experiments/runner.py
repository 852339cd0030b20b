"""One run by its directory: finished, resumable or new; its lock, its log and how it fails."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from . import outcome
from .errors import Interrupted, RunFailure, SuiteError
from .files import remove_leftovers
from .lock import RunLock
from .log_file import logging_to
from .spec import Spec
from .training import Progress, Stop, Training

__all__ = ["Progress", "run"]

log = logging.getLogger(__name__)


def run(
    spec: Spec,
    folder: Path,
    identity: str,
    *,
    group: str | None = None,
    progress: Progress = lambda done, total: None,
    stop: Stop = lambda: False,
) -> dict[str, Any]:
    """Carry one run out, or go on with it, or return its result if it has one.

    Args:
        spec: The resolved specification.
        folder: The run directory; made if missing.
        identity: Identity hash of the run.
        group: W&B group; by default the identity.
        progress: Called after every step.
        stop: Asked after every step; True saves a checkpoint and ends the run resumable.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: if the specification cannot be built or another process holds the directory.
        RunFailure: if the run fails; `failure.json` then says why.
        Interrupted: if `stop` said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        (folder / "failure.json").unlink(missing_ok=True)
        done = outcome.read_result(folder)
        if done is not None:
            return done
        remove_leftovers(folder)
        with logging_to(folder / "log.txt"):
            try:
                return Training(spec, folder, identity, group or identity, progress, stop).carry_out()
            except Interrupted:
                raise
            except SuiteError as error:
                log.error("%s", error)
                outcome.write_failure(folder, error)
                raise
            except Exception as error:  # the disk's, a defect's, or that of a method of the user's own
                failure = _failure(error, folder)
                log.error("%s", failure, exc_info=not isinstance(error, OSError))
                outcome.write_failure(folder, failure)
                raise failure from error


def _failure(error: Exception, folder: Path) -> RunFailure:
    if isinstance(error, OSError):
        text = f"{error.strerror or error}; what was finished is kept"
        return RunFailure(text, where=error.filename or str(folder))
    return RunFailure(f"{type(error).__name__}: {error} (traceback in {folder / 'log.txt'})", where=str(folder))
