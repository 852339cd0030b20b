"""The files that say how a run ended: its result, or why it failed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import SuiteError

from . import names
from .files import write_json


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None.

    A damaged file counts as no result, so that the run is repeated.
    """
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        result = json.loads((folder / names.RESULT).read_bytes())
        if isinstance(result, dict) and result.get("status") == "done":
            return result
    return None


def write_failure(folder: Path, error: SuiteError) -> None:
    """Record in the run directory why the run failed, unless it already has its result.

    If the disk is too full even for this record, no further error is raised.
    """
    if read_result(folder) is not None:
        return
    with suppress(OSError):
        write_json(folder / names.FAILURE, {"status": "failed", "error": error.message})
