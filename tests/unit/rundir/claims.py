"""Claims of other processes, as a run folder may hold them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from experiments.rundir import holder, process


def untouched(folder: Path, path: Path | None = None) -> None:
    """Nobody has touched a claim, by default the newest, for longer than a lease."""
    path = path or max((folder / "attempts").glob("*.json"))
    os.utime(path, (path.stat().st_mtime - holder.LEASE - 1,) * 2)


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def owned_by(folder: Path, process_id: int, number: int = 1, **changes: Any) -> Path:
    """An attempt of another process."""
    owner = {"attempt": number, "pid": process_id, "home": process.home(), "host": "h", "job": None}
    (folder / "attempts").mkdir(exist_ok=True)
    path = folder / f"attempts/{number:04}.json"
    path.write_text(json.dumps(owner | {"started": started(process_id), "job_id": None, "restarts": 0} | changes))
    return path
