"""One writer a run directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import UserError


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's own clock: tells a process from a later one of the same number.

    None for one that is over but that nobody has reaped: where a container's first process reaps none, it stays so.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return rest[18] if state not in "ZX" else None
    except (OSError, IndexError):
        return None


def _owner(path: Path) -> dict[str, Any] | None:
    """What a lock says of its owner, or None if it is damaged.

    Raises:
        FileNotFoundError: if there is no lock.
    """
    try:
        owner = json.loads(path.read_bytes())
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) and "host" in owner else None


def _alive(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return True  # another machine: not ours to judge
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return owner.get("started") in (None, _started(owner["pid"]))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time judge and remove a lock, or a second could remove what a first has just put there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system that cannot lock a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class RunLock:
    """Holds a run directory for one process, by an atomic hard link (file locks fail on some network file systems).

    A lock whose process on this host is gone is taken over.

    Args:
        folder: The run directory.

    Raises:
        UserError: on entering, if another live process holds it.
    """

    def __init__(self, folder: Path):
        self._path = folder / "lock"

    def __enter__(self) -> RunLock:
        pid = os.getpid()
        mine = self._path.with_name(f".lock.{socket.gethostname()}.{pid}")
        try:
            mine.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "started": _started(pid)}))
            for _ in range(2):
                try:
                    os.link(mine, self._path)
                    return self
                except FileExistsError:
                    self._clear_stale()
        finally:
            mine.unlink(missing_ok=True)
        raise UserError("another process has just taken this run; wait for it", where=str(self._path.parent))

    def _clear_stale(self) -> None:
        with _alone(self._path.parent), suppress(FileNotFoundError):  # released meanwhile
            owner = _owner(self._path)
            if owner is not None and _alive(owner):
                raise UserError(
                    f"process {owner['pid']} on {owner['host']} is writing this run; wait for it or stop it "
                    f"(if it is gone for good, remove {self._path})",
                    where=str(self._path.parent),
                )
            self._path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
