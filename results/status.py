"""How far the runs of a directory are, from their folders and the manifest alone."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .discover import read_spec
from .notes import place
from .schema import Sweep, is_number
from .store import METRICS, read, read_json

State = Literal["done", "running", "elsewhere", "resumable", "failed", "not started"]
STATES: tuple[State, ...] = ("done", "running", "elsewhere", "resumable", "failed", "not started")
LISTED = 20
"""Runs of one state that `render` lists one by one."""

_TAIL = 1 << 16


@dataclass(frozen=True)
class RunState:
    """One run folder.

    Attributes:
        row: Label of the table row.
        column: Column of the first cell that the run stands in.
        seed: Seed.
        path: The run's folder.
        state: "done"; "running": a live process on this host holds its lock; "elsewhere": another host holds it, which
            cannot be asked from here; "resumable": it stopped with a checkpoint; "failed"; "not started": there is
            nothing to resume.
        step: Optimizer steps up to the last finished epoch, None if unknown.
        total: Steps of the whole run, None if unknown.
        note: The error of a failed run, the holder of a lock, or None.
    """

    row: str
    column: Mapping[str, Any]
    seed: int
    path: Path
    state: State
    step: int | None = None
    total: int | None = None
    note: str | None = None


def status(directory: str | Path) -> list[RunState]:
    """Look at every run of a directory.

    Args:
        directory: What `results.load` takes.

    Returns:
        One state a run folder, in table order.

    Raises:
        UserError: as `results.load` does.
    """
    return _states(read(directory))


def render(directory: str | Path) -> str:
    """The states as text: counts by row, then what runs, waits or failed."""
    sweep = read(directory)
    states = _states(sweep)
    counts = Counter(run.state for run in states)
    shown: list[State] = [state for state in STATES if counts[state] or state == "done"]
    plural = "run" if len(states) == 1 else "runs"
    head = f"{sweep.name}: {len(states)} {plural}, " + ", ".join(f"{counts[state]} {state}" for state in shown)
    blocks = [head, _by_row(sweep, states, shown)]
    for state in STATES:
        if state not in ("done", "not started") and counts[state]:
            blocks.append(_listing(sweep, state, [run for run in states if run.state == state]))
    return "\n\n".join(blocks)


def _states(sweep: Sweep) -> list[RunState]:
    states = []
    for run in sweep.runs:
        if run.status == "done":
            step = run.number("steps")
            count = None if step is None else int(step)
            states.append(RunState(run.row, run.column, run.seed, run.path, "done", count, count))
            continue
        state, note = _unfinished(run.path, run.error if run.status == "failed" else None)
        step, total = (None, None) if state == "not started" else _progress(run.path)
        states.append(RunState(run.row, run.column, run.seed, run.path, state, step, total, note))
    return states


def _unfinished(path: Path, error: str | None) -> tuple[State, str | None]:
    lock, _ = read_json(path / "lock")
    if lock and lock.get("host") == socket.gethostname():
        if _alive(lock):
            return "running", f"process {lock['pid']}"
    elif lock and lock.get("host"):
        return "elsewhere", f"locked by {lock['host']}, process {lock.get('pid')}"
    if error is not None:
        return "failed", error
    return ("resumable" if (path / "checkpoint.pt").is_file() else "not started"), None


def _alive(lock: Mapping[str, Any]) -> bool:
    pid = lock.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process: it lives
        return True
    return lock.get("started") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """When a process started, as the lock states it: tells a process from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _progress(path: Path) -> tuple[int | None, int | None]:
    """Step and total from the last epoch line; the total follows from the epochs of the configuration."""
    for line in reversed(_tail(path / METRICS)):
        try:
            value = json.loads(line)
        except ValueError:  # torn at the end of a killed run, or at the start of the tail
            continue
        if isinstance(value, dict) and value.get("kind") == "epoch":
            step, epoch, epochs = value.get("step"), value.get("epoch"), read_spec(path).get("schedule.epochs")
            if not is_number(step):
                return None, None
            if is_number(epoch) and is_number(epochs) and epoch > 0:
                return int(step), round(step / epoch * epochs)
            return int(step), None
    return None, None


def _tail(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            return file.read().splitlines()
    except OSError:
        return []


def _by_row(sweep: Sweep, states: Sequence[RunState], shown: Sequence[State]) -> str:
    width = max(len("Row"), *(len(row) for row in sweep.rows))
    lines = ["  ".join(["Row".ljust(width), *shown, "of"])]
    for row in sweep.rows:
        counts = Counter(run.state for run in states if run.row == row)
        numbers = [str(counts[state] or "-").rjust(len(state)) for state in shown]
        lines.append("  ".join([row.ljust(width), *numbers, str(counts.total()).rjust(2)]))
    return "\n".join(lines)


def _listing(sweep: Sweep, state: State, runs: Sequence[RunState]) -> str:
    lines = [f"{state}:"]
    for run in runs[:LISTED]:
        text = f"  {place(sweep, run.row, run.column)}, seed {run.seed}"
        if run.step is not None:
            share = f" of {run.total} ({100 * run.step / run.total:.0f} %)" if run.total else ""
            text += f": step {run.step}{share}"
        lines.append(text + (f": {' '.join(run.note.split())}" if run.note else ""))
    if len(runs) > LISTED:
        lines.append(f"  and {len(runs) - LISTED} more")
    return "\n".join(lines)
