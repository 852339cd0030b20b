"""One writer per run directory: each attempt claims the next number, and numbers are never reused.

A claim is an atomic hard link, since file locks fail on some network file systems. Because claims are never removed,
two processes can never both replace a dead one: the next number either exists or does not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import Busy, Interrupted, LostRank
from slurm.scheduler import queue
from slurm.scheduler.environment import this_start

from . import names
from .files import read_json, write_json


@dataclass(frozen=True)
class Attempt:
    """A claim on a run directory, held until `end`.

    Attributes:
        folder: The run directory.
        number: Number of the attempt, counted from 1.
        owner: Process, host and, if there is one, Slurm job that hold the claim.
    """

    folder: Path
    number: int
    owner: dict[str, Any]

    @property
    def job(self) -> str | None:
        """The Slurm job in the form the scheduler prints, ``1234`` or ``1234_5``, or None."""
        return self.owner["job"]

    def end(self, reason: str) -> None:
        """Record that this attempt has ended, with its reason: ``done``, ``stopped``, ``failed`` or ``crashed``.

        If the disk is too full even for this record, others learn of the end when the process no longer exists.
        """
        for _ in range(2):
            with suppress(OSError):
                write_json(_path(self.folder, self.number), {**self.owner, "ended": time.time(), "reason": reason})
                return


@contextmanager
def ending(say: Callable[[str], None]) -> Iterator[None]:
    """Report how a block ended.

    Args:
        say: Called with ``done``, ``stopped`` (at a checkpoint), ``failed``, or ``crashed`` (together with another
            rank).
    """
    reason = "crashed"
    try:
        yield
        reason = "done"
    except Interrupted:
        reason = "stopped"
        raise
    except LostRank:
        raise
    except Exception:
        reason = "failed"
        raise
    finally:
        say(reason)


def claim(folder: Path, ranks: int = 1) -> Attempt:
    """Claim a run directory for this process.

    Args:
        folder: The run directory; must exist.
        ranks: Number of ranks of this attempt.

    Raises:
        Busy: if the last attempt may still be alive.
    """
    (folder / names.ATTEMPTS).mkdir(exist_ok=True)
    mine = folder / names.ATTEMPTS / f".{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        while True:
            last = newest(folder)
            if last is not None and alive(last):
                raise _busy(folder, last)
            number = last["attempt"] + 1 if last is not None else 1
            owner = _myself(number, ranks)
            write_json(mine, owner)
            try:
                os.link(mine, _path(folder, number))
            except (FileExistsError, FileNotFoundError):
                continue  # another process was faster, and may have cleaned up; check which
            return Attempt(folder, number, owner)
    finally:
        mine.unlink(missing_ok=True)


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the record of the last attempt, or None if there was none.

    From a damaged file only the attempt's number is known.
    """
    try:
        numbers = [int(file[:-5]) for file in os.listdir(folder / names.ATTEMPTS) if file[:-5].isdigit()]
    except FileNotFoundError:
        return None
    if not numbers:
        return None
    content = read_json(_path(folder, max(numbers)))
    return {**(content if isinstance(content, dict) else {}), "attempt": max(numbers)}


def alive(owner: dict[str, Any]) -> bool:
    """Return whether an attempt may still be writing.

    On this host, its process is checked. On another host, its Slurm job is: the attempt is over if the same job has
    been restarted, or if the scheduler does not list the job as running. Where neither can be checked, the attempt
    counts as alive.
    """
    if "ended" in owner or "pid" not in owner:
        return False
    if owner.get("host") == socket.gethostname():
        return process_alive(owner["pid"], owner.get("started"))
    job, restarts = owner.get("job_id"), owner.get("restarts", 0)
    if job is None:
        return True
    start = this_start()
    if job == start.id:
        return restarts == start.restarts
    return queue.may_be_running(job, restarts)


def process_alive(pid: int, started: str | None) -> bool:
    """Return whether a process of this host is alive.

    Args:
        pid: Its number.
        started: When it started; compared too, since process numbers are reused. None skips the comparison.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return started in (None, _started(pid))


def _started(pid: int) -> str | None:
    """Return when a process started, in the kernel's own clock, or None if it is not running.

    A zombie counts as not running: where a container's first process reaps no children, it stays a zombie forever.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return rest[18] if state not in "ZX" else None
    except (OSError, IndexError):
        return None


def _myself(number: int, ranks: int) -> dict[str, Any]:
    pid, start = os.getpid(), this_start()
    return {
        "attempt": number,
        "pid": pid,
        "host": socket.gethostname(),
        "started": _started(pid),
        "node": start.node or socket.gethostname(),
        "job": start.name,
        "job_id": start.id,
        "restarts": start.restarts,
        "ranks": ranks,
        "time": time.time(),
    }


def _busy(folder: Path, owner: dict[str, Any]) -> Busy:
    job = f" (job {owner['job']})" if owner.get("job") else ""
    return Busy(
        f"process {owner['pid']} on {owner.get('host')}{job} is writing this run; wait for it or stop it "
        f"(if it is gone for good, remove {_path(folder, owner['attempt'])})",
        where=str(folder),
    )


def _path(folder: Path, number: int) -> Path:
    return folder / names.ATTEMPTS / f"{number:04}.json"
