"""The history of a run, attempt by attempt: an append-only log, and a heartbeat that outlives the process."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from experiments.errors import ClaimLost

from . import names
from .attempts import Attempt
from .files import atomic
from .reading import Unreadable, parse_json, read_regular, typed

log = logging.getLogger(__name__)

_WIDTH = 80  # bytes of a heartbeat: a fixed length, so that a shorter line fully overwrites a longer one
_MOST = 2**53


class Beat(NamedTuple):
    """The last sign of life of a run.

    Attributes:
        attempt: Number of the attempt.
        step: Steps done.
        total: Steps of the whole run.
        time: Unix seconds.
    """

    attempt: int
    step: int
    total: int
    time: float

    @classmethod
    def of(cls, attempt: int, step: int, total: int, time: float) -> Beat:
        """Make one of what a file says.

        Raises:
            ValueError: for numbers that no run writes.
        """
        if not (1 <= attempt < _MOST and 0 <= step <= total < _MOST and 0 <= time < _MOST):
            raise ValueError("out of range")
        return cls(attempt, step, total, time)


class Entry(BaseModel):
    """One line of a ledger."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    attempt: Annotated[int, Field(ge=1)]
    event: Literal["start", "checkpoint", "end", "lost"]
    step: Annotated[int, Field(ge=0)]
    time: float = 0.0


class Ledger:
    """Writer of one attempt's part of the ledger; records are never changed once written.

    Events are ``start`` (with the first step), ``checkpoint``, ``end`` (with the last step and the reason) and
    ``lost`` (with the last step that the heartbeat shows), which the next attempt writes about one that died.

    Args:
        attempt: The attempt, which holds the run directory.
    """

    def __init__(self, attempt: Attempt):
        self.attempt = attempt
        self._path = attempt.folder / names.LEDGER
        self._file: int | None = None
        self._heartbeat: int | None = None
        self._named = False

    def start(self, step: int, checkpoint: str | None) -> None:
        """Record the first step, after recording earlier attempts that died as ``lost``."""
        records = read(self.attempt.folder)
        self._renew()
        ended = {record["attempt"] for record in records if record["event"] in ("end", "lost")}
        beat = last_beat(self.attempt.folder)
        for record in records:
            number = record["attempt"]
            if record["event"] == "start" and number not in ended:
                seen = beat.step if beat is not None and beat.attempt == number else record["step"]
                self._append({"attempt": number, "event": "lost", "step": max(seen, record["step"])})
        self._open()
        owner = self.attempt.owner
        where = {key: owner[key] for key in ("job", "node", "ranks")}
        self._note("start", step=step, checkpoint=checkpoint, **where)

    def checkpoint(self, step: int, digest: str) -> None:
        """Record a checkpoint that is on the disk."""
        self._note("checkpoint", step=step, checkpoint=digest)

    def end(self, step: int, reason: str, checkpoint: str | None) -> None:
        """Record the end of the attempt; if it cannot be recorded, the next attempt records this one as lost."""
        with suppress(OSError, ClaimLost):
            self._note("end", step=step, reason=reason, checkpoint=checkpoint)

    def _open(self) -> None:
        """Make a new heartbeat, by which an earlier writer that still lives learns that the run is no longer its own.

        Raises:
            ClaimLost: if it is no longer this attempt's.
        """
        self.attempt.check()
        self._heartbeat = _close(self._heartbeat)
        path = self.attempt.folder / names.HEARTBEAT
        path.unlink(missing_ok=True)
        self._heartbeat = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        self._named = not _is_gone(self._heartbeat)  # there are file systems that cannot tell

    def beat(self, step: int, total: int) -> None:
        """Record that a step is done; the page cache keeps the record even if the process is killed.

        Raises:
            ClaimLost: if this attempt has lost the run, as the claim's last beat or the heartbeat's file tells.
        """
        if self._heartbeat is None:
            return
        self.attempt.check_last_beat()
        if self._named and _is_gone(self._heartbeat):
            self._open()
        text = f"{self.attempt.number} {step} {total} {time.time():.2f}"
        with suppress(OSError):  # a full disk must not end a run here
            os.pwrite(self._heartbeat, text.ljust(_WIDTH - 1).encode() + b"\n", 0)

    def close(self) -> None:
        """Close the files."""
        self._heartbeat, self._file = _close(self._heartbeat), _close(self._file)

    def _note(self, event: str, **content: Any) -> None:
        self._append({"attempt": self.attempt.number, "event": event, **content})

    def _renew(self) -> None:
        """Begin a new file with all that the old one holds, so that what an earlier writer adds reaches nobody.

        Raises:
            ClaimLost: if the run is no longer this attempt's.
        """
        self._file = _close(self._file)
        with suppress(FileNotFoundError, Unreadable):
            before = read_regular(self._path)
            with atomic(self._path, self.attempt.check) as file:
                file.write(before)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def _append(self, record: dict[str, Any]) -> None:
        if self._file is None or _is_gone(self._file):
            self._renew()
        assert self._file is not None
        line = json.dumps({**record, "time": time.time()}).encode() + b"\n"
        size = os.fstat(self._file).st_size
        if size > 0 and os.pread(self._file, 1, size - 1) != b"\n":  # of a killed writer, or for want of space
            line = b"\n" + line
        self.attempt.check()
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fsync(self._file)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _is_gone(descriptor: int) -> bool:
    """Return whether an open file has no name any more; asked at every step, it costs a microsecond."""
    try:
        return os.fstat(descriptor).st_nlink == 0
    except OSError:  # a network file system's way to say it
        return True


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all whole records of a run's ledger, in order; other lines are named and left out."""
    path, records = folder / names.LEDGER, []
    try:
        lines = read_regular(path).splitlines()
    except (FileNotFoundError, Unreadable):
        return []
    for number, line in enumerate(lines, 1):
        try:
            records.append(typed(Entry, parse_json(line)).model_dump())
        except Unreadable as error:
            if number < len(lines):  # the last one may be under way
                log.warning("%s:%d: %s; line left out", path, number, error)
    return records


def last_beat(folder: Path) -> Beat | None:
    """Return the last heartbeat of a run, or None."""
    try:
        attempt, step, total, seconds = read_regular(folder / names.HEARTBEAT, most=1000).decode().split()
        return Beat.of(int(attempt), int(step), int(total), float(seconds))
    except (FileNotFoundError, ValueError):
        return None
