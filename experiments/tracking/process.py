"""How the process that talks to W&B is started, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from experiments.errors import words_of

from . import environment

LOOK = 1.0  # seconds between two looks at the metrics


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the process; it imports the suite from where this one did, whatever lies in the current folder."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.tracking", *map(str, arguments)],
        env={**environment.for_child(), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is the training's
    )


def read(line: str) -> dict[str, Any]:
    """Return what the process said in one line."""
    return json.loads(line)


def reason(error: BaseException) -> str:
    """Return the first line of what went wrong."""
    lines = words_of(error).strip().splitlines() if str(error) else []
    return lines[0] if lines else type(error).__name__
