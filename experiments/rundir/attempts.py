"""One writer per run directory: each attempt claims the next number, and numbers are never reused.

A claim is a file that is created exclusively, which every file system can do, while locks and hard links fail on some.
Claims are never removed, so two processes can never both replace a dead one: the next number either exists or does
not. While its process works, a claim's file is touched every `BEAT` seconds. `waiting` lets the former holder come to
its end before the next one begins. docs/explanation/identity.md, "One writer", has the whole protocol.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.errors import ClaimLost, Interrupted, LostRank
from slurm.scheduler.environment import this_start

from . import holder, names, process
from .files import read_json, write_json

log = logging.getLogger(__name__)

BEAT = 15.0
"""Seconds between two signs of life of a claim."""


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
    _file: int = field(default=-1, repr=False)
    _gone: list[str] = field(default_factory=list, repr=False, compare=False)  # what a beat has found

    @property
    def job(self) -> str | None:
        """The Slurm job in the form the scheduler prints, ``1234`` or ``1234_5``, or None."""
        return self.owner["job"]

    def lost(self) -> str | None:
        """Say why this claim no longer holds: the directory has been removed, or another process has taken it over."""
        last = newest(self.folder)
        if last is None or last["attempt"] < self.number:
            return "the folder of this run has been removed or moved away"
        if last["attempt"] == self.number and last.get("token") in (self.owner["token"], None):  # None: unreadable now
            return None
        return f"process {last.get('pid')} on {last.get('host')} has taken this run over"

    def check(self) -> None:
        """Make sure that this claim still holds, before anything is written that counts.

        Raises:
            ClaimLost: if it does not.
        """
        reason = self.lost()
        if reason is not None:
            raise ClaimLost(f"{reason}; this process ends and writes nothing more", where=str(self.folder))

    def check_last_beat(self) -> None:
        """Do the same if the last beat has found the claim lost; cheap enough for every step."""
        if self._gone:
            self.check()

    def beat(self) -> bool:
        """Touch the claim's file as long as the claim holds, and return whether it does."""
        with suppress(OSError):  # the next one may succeed
            self._gone.extend(filter(None, [self.lost()]))
            if not self._gone:
                os.utime(self._file)
        return not self._gone

    def begin(self) -> None:
        """Record that the work begins only now, after a wait."""
        self.owner["time"] = time.time()
        path = holder.path(self.folder, self.number)
        write_json(path, self.owner, self.check)
        new = os.open(path, os.O_WRONLY)
        os.dup2(new, self._file)
        os.close(new)

    def end(self, reason: str) -> None:
        """Record that this attempt has ended, with its reason, see `ending`.

        If the disk is too full even for this record, others learn of the end when the process no longer exists.
        """
        os.close(self._file)
        for _ in range(2):
            with suppress(OSError):
                path = holder.path(self.folder, self.number)
                found = read_json(path) or {}
                if found.get("token") == self.owner["token"] and "ended" not in found:
                    write_json(path, {**self.owner, "ended": time.time(), "reason": reason})
                return


@contextmanager
def held(attempt: Attempt) -> Iterator[None]:
    """Keep a claim alive during a block, and record how the block ended."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(BEAT) and attempt.beat():
            pass

    thread = threading.Thread(target=keep, name="claim", daemon=True)
    thread.start()
    try:
        with ending(attempt.end):
            try:
                yield
            finally:
                over.set()
                thread.join()
    finally:
        over.set()


@contextmanager
def ending(say: Callable[[str], None]) -> Iterator[None]:
    """Report how a block ended.

    Args:
        say: Called with ``done``, ``stopped`` (at a checkpoint), ``failed``, ``lost`` (the claim), or ``crashed``
            (together with another rank).
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
    except ClaimLost:
        reason = "lost"
        raise
    except Exception:
        reason = "failed"
        raise
    finally:
        say(reason)


def claim(folder: Path, ranks: int = 1, **about: Any) -> Attempt:
    """Claim a run directory for this process.

    Args:
        folder: The run directory; must exist.
        ranks: Number of ranks of this attempt.
        about: What else its record says.

    Raises:
        Busy: if the last attempt may still be alive. One that the scheduler has given up does not count, though it may
            live: `waiting.for_earlier` comes before anything is read or written.
    """
    (folder / names.ATTEMPTS).mkdir(exist_ok=True)
    while True:
        last = newest(folder)
        if last is not None and alive(folder, last):
            raise holder.busy(folder, last)
        number = last["attempt"] + 1 if last is not None else 1
        owner = {**_myself(number, ranks), **about}
        try:
            descriptor = os.open(holder.path(folder, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue  # another process was faster; look at it
        try:
            os.write(descriptor, json.dumps(owner, indent=1).encode() + b"\n")
            os.fsync(descriptor)
        except OSError:
            os.close(descriptor)
            holder.path(folder, number).unlink(missing_ok=True)
            raise
        if last is not None and "ended" not in last and (wrong := holder.fault(last)):
            log.warning("%s: %s; passed over, since nobody touches it", holder.path(folder, number - 1), wrong)
        attempt = Attempt(folder, number, owner, descriptor)
        attempt.check()  # this process may have slept since it created the file
        return attempt


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the record of the last attempt, or None if there was none."""
    try:
        numbers = [int(file[:-5]) for file in os.listdir(folder / names.ATTEMPTS) if file[:-5].isdigit()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not numbers:
        return None
    return record(folder, max(numbers))


def record(folder: Path, number: int) -> dict[str, Any]:
    """Return the record of an attempt; from a damaged file only the number is known."""
    content = read_json(holder.path(folder, number))
    return {**(content if isinstance(content, dict) else {}), "attempt": number}


def codes(folder: Path) -> list[str]:
    """Return the versions of the suite's code that the attempts of a run had, see `environment.code`, oldest first."""
    records = [read_json(path) for path in sorted((folder / names.ATTEMPTS).glob("*.json"))]
    found = [record.get("code") for record in records if isinstance(record, dict)]
    return list(dict.fromkeys(code for code in found if isinstance(code, str)))


def alive(folder: Path, owner: dict[str, Any]) -> bool:
    """Return whether an attempt holds its run.

    Where neither its process nor the scheduler can tell, it is over if it gave no sign of life for `LEASE` seconds.
    """
    verdict = holder.judge(owner)
    return verdict if verdict is not None else holder.silent_for(folder, owner) < holder.LEASE


def _myself(number: int, ranks: int) -> dict[str, Any]:
    pid, start, host = os.getpid(), this_start(), socket.gethostname()
    return {
        "attempt": number,
        "token": secrets.token_hex(8),
        "pid": pid,
        "home": process.home(),
        "started": process.started(pid) if process.home() else None,
        "host": host,
        "node": start.node or host,
        "job": start.name,
        "job_id": start.id,
        "restarts": start.restarts,
        "ranks": ranks,
        "time": time.time(),
    }
