"""One writer a run directory."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import UserError


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's own clock: tells a process from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


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


class RunLock:
    """Holds a run directory for one process, by an atomic hard link (file locks are unreliable on network file systems).

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
        mine.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "started": _started(pid)}))
        try:
            for _ in range(2):
                try:
                    os.link(mine, self._path)
                    return self
                except FileExistsError:
                    self._clear_stale(mine)
        finally:
            mine.unlink()
        raise UserError("another process has just taken this run; wait for it", where=str(self._path.parent))

    def _clear_stale(self, mine: Path) -> None:
        try:
            owner = json.loads(self._path.read_text())
        except FileNotFoundError:
            return  # released meanwhile
        except json.JSONDecodeError:
            owner = {}
        if owner and _alive(owner):
            raise UserError(
                f"process {owner['pid']} on {owner['host']} is writing this run; wait for it or stop it "
                f"(if it is gone for good, remove {self._path})",
                where=str(self._path.parent),
            )
        # renaming is atomic: of two that see the same stale lock, one moves it and the other finds it gone
        stale = mine.with_suffix(".stale")
        with suppress(FileNotFoundError):
            os.rename(self._path, stale)
            stale.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
