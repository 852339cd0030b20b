"""How a run ended: its result, or why it failed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import SuiteError

from . import names
from .files import write_json


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run, or None; a damaged file counts as none, so the run is done again."""
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        result = json.loads((folder / names.RESULT).read_bytes())
        if isinstance(result, dict) and result.get("status") == "done":
            return result
    return None


def write_failure(folder: Path, error: SuiteError) -> None:
    """Say in the run directory why the run failed, unless it has its result already.

    A disk too full even for that is not an error of its own.
    """
    if read_result(folder) is not None:
        return
    with suppress(OSError):
        write_json(folder / names.FAILURE, {"status": "failed", "error": error.message})
