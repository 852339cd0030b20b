"""Whether the process that a claim names still holds its run directory."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import Busy
from slurm.scheduler import queue
from slurm.scheduler.environment import this_start

from . import names, process

LEASE = 90.0
"""Seconds without a sign of life after which a claim is over, if its process or its job does not tell.

Longer than a beat and the time for which clients of network file systems trust what they have read (60 s).
"""


def judge(owner: Mapping[str, Any]) -> bool | None:
    """Return whether a claim still holds, by its process or its Slurm job; None if neither can tell.

    A claim of a start that the scheduler has given up holds no longer, but the process may live: see `over`. That of a
    later start of this job holds: then this process is what the scheduler has given up.
    """
    if "ended" in owner:
        return False
    if fault(owner) is not None:
        return None
    seen, job, start = process_of(owner), owner.get("job_id"), this_start()
    if seen is False or job is None:
        return seen
    running = owner["restarts"] >= start.restarts if job == start.id else queue.is_running(job, owner["restarts"])
    return running if running is not None else seen


def is_later(owner: Mapping[str, Any]) -> bool:
    """Return whether a claim is that of a later start of this process's own job."""
    start = this_start()
    ours = start.id is not None and owner.get("job_id") == start.id and fault(owner) is None
    return ours and owner["restarts"] > start.restarts


def over(folder: Path, owner: Mapping[str, Any]) -> bool:
    """Return whether the holder of a claim that no longer holds can write nothing more.

    It has recorded its end, or its process is seen dead, or it was silent for `LEASE` seconds. The scheduler is not
    asked: a node that it has given up may live, and so may the task of a killed slurmstepd.
    """
    if "ended" in owner or process_of(owner) is False or touched(folder, owner) is None:
        return True
    return silent_for(folder, owner) >= LEASE


def process_of(owner: Mapping[str, Any]) -> bool | None:
    """Return whether the process that holds a claim is alive, or None if it cannot be seen from here."""
    home = owner.get("home")
    if home is None or home != process.home() or fault(owner) is not None:
        return None
    return process.alive(owner["pid"], owner.get("started"))


def fault(owner: Mapping[str, Any]) -> str | None:
    """Say which entry of a claim is of a wrong type or out of range, or None."""
    for key, (allowed, is_right) in _ENTRIES.items():
        if not is_right(owner.get(key)):
            return f"{key} must be {allowed}, not {owner.get(key)!r}"
    return None


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


_TEXT = ("a text or null", _text_or_none)
_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "pid": _whole(1, 2**31 - 1),
    "restarts": _whole(0, 2**31 - 1),
    **dict.fromkeys(("home", "started", "host", "job", "job_id"), _TEXT),
}


def path(folder: Path, number: int) -> Path:
    """Return the file of a claim."""
    return folder / names.ATTEMPTS / f"{number:04}.json"


def silent_for(folder: Path, owner: Mapping[str, Any]) -> float:
    """Return the seconds since the last sign of life of a claim, by the clock of the file system that holds it.

    A time in the future counts like one in the past, so that no clock keeps a claim for ever.
    """
    last = touched(folder, owner)
    return abs(_now(folder / names.ATTEMPTS) - last) if last is not None else 0.0


def touched(folder: Path, owner: Mapping[str, Any]) -> float | None:
    """Return when the file of a claim was last touched, or None if it is gone."""
    try:
        # opened, since network file systems ask their server only then; a pipe in its place is not waited for
        descriptor = os.open(path(folder, owner["attempt"]), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def _now(folder: Path) -> float:
    probe = folder / f".{secrets.token_hex(4)}.tmp"
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # somebody who may only read
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def words(folder: Path, owner: Mapping[str, Any]) -> str:
    """Say who holds a run directory, since when, and when it would be taken over."""
    who = writer(folder, owner)
    if judge(owner):
        return f"{who}; wait for it or stop it"
    silent = silent_for(folder, owner)
    return f"{who}; its last sign of life is {silent:.0f} s old, and after {LEASE:g} s the run is taken over"


def writer(folder: Path, owner: Mapping[str, Any]) -> str:
    """Say who writes a run, and since when."""
    wrong = fault(owner)
    if wrong is not None:
        return f"{path(folder, owner['attempt'])} does not say who writes this run ({wrong})"
    job = f" (job {owner['job']})" if owner["job"] else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_seconds(owner.get("time"))))
    return f"process {owner['pid']} on {owner['host']}{job} is writing this run since {since}"


def _seconds(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e11 else 0.0


def busy(folder: Path, owner: Mapping[str, Any]) -> Busy:
    """Return the error of a command that wants a run directory that somebody holds."""
    return Busy(words(folder, owner), where=str(folder))
