"""What the doctor finds, and the jobs by which it does."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slurm.profile import Profile
from slurm.scheduler import cluster

PATIENCE = 180.0
"""Seconds that a probe may wait in the queue: by Slurm's default, a requeued job waits two minutes."""

Mark = Literal["ok", "warning", "failed", "unknown"]
FOLDER = ".doctor"


@dataclass(frozen=True)
class Finding:
    """One examined aspect of the cluster, with its result."""

    mark: Mark
    what: str
    text: str

    def __str__(self) -> str:
        """Return the finding in one line."""
        return f"{self.mark:>7}  {self.what}: {self.text}"


@contextmanager
def trial(runs_root: Path) -> Iterator[Path]:
    """Make a folder for the probes where the runs will be, and remove it in the end."""
    folder = runs_root / FOLDER / secrets.token_hex(4)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def options(folder: Path, chosen: Profile | None, suggested: Mapping[str, Any]) -> list[str]:
    """Return the options of sbatch that the probes share."""
    found = ["--time=5", "--export=ALL", f"--output={folder / 'log'}", "--job-name=ham-doctor"]
    for key in ("partition", "account", "qos", "reservation", "constraint"):
        value = getattr(chosen, key) if chosen else suggested.get(key)
        if value is not None:
            found.append(f"--{key}={value}")
    if chosen.gpus_per_rank if chosen else suggested.get("gpus_per_rank"):
        kind = f"{chosen.gpu_type}:" if chosen and chosen.gpu_type else ""
        found.append(f"--gpus-per-node={kind}1")
    return found


def waited(*paths: Path) -> bool:
    """Wait until all of some files exist; return False if they do not within `PATIENCE`."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        list(paths[0].parent.iterdir())  # makes network file systems refresh their cache
        if all(path.exists() for path in paths):
            return True
        time.sleep(0.5)
    return False


def left_no_trace(job: str, what: str, hint: str) -> Finding:
    """Say of a job that has written nothing what it does instead."""
    state, _ = cluster.ask("squeue", "-h", "-j", job, "-o", "%T %r")
    waits = f"it is {' '.join(state.split())}" if state.strip() else "the queue no longer knows it"
    return Finding("unknown", what, f"left no trace within {PATIENCE:g} s; {waits}; {hint}")
