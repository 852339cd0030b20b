"""The files that say how a run ended: its result, or why it failed."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import SuiteError, UserError

from . import names, result
from .files import write_json
from .reading import Unreadable, read_object

log = logging.getLogger(__name__)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None.

    A file that is damaged, was changed, or belongs to another identity or seed than the folder's name says counts as no
    result, and is named: the run is done again.
    """
    named = names.RUN.fullmatch(folder.name)
    identity, seed = (named["identity"], int(named["seed"])) if named else (None, None)
    try:
        found = read_object(folder / names.RESULT)
        result.check(found, identity=identity, seed=seed)
        return found
    except FileNotFoundError:
        return None
    except Unreadable as error:
        log.warning("%s: %s; it counts as no result", folder / names.RESULT, error)
        return None


def write_failure(folder: Path, error: SuiteError, *, unexpected: bool = False) -> None:
    """Record in the run directory why the run failed, unless it already has its result.

    An unexpected failure is the machine's or a defect's; any other one is what the training of this specification came
    to. If the disk is too full even for this record, or something else is in its place, no further error is raised.
    """
    if read_result(folder) is not None:
        return
    with suppress(OSError, UserError):
        kind = {"unexpected": True} if unexpected else {}
        write_json(folder / names.FAILURE, {"status": "failed", "error": error.message, **kind})
