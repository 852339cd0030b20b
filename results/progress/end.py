"""How a run ended, for those who follow its log."""

from __future__ import annotations

from pathlib import Path

from experiments.rundir import names

from .states import UNDER_WAY
from .status import status


def end_of(path: Path) -> str | None:
    """Say how a run has ended, also one that was lost; None as long as it may resume, or has not begun.

    Args:
        path: The run's folder.
    """
    if not (path / names.SPEC).is_file():
        return None
    (run,) = status(path).runs
    if run.state in UNDER_WAY or run.state in ("not started", "never submitted"):
        return None
    return f"{path.name} is {run.state}" + (f": {run.note}" if run.note else "")
