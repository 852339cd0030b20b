"""The identity of a process: the boot of its machine, its pid namespace, its number and when it started.

A host's name says none of this: containers share one, and a laptop's changes with its network. Numbers are unique in a
pid namespace alone, and are reused.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@cache
def home() -> str | None:
    """Name the place in which this process's number is unique: a boot of a machine, and a pid namespace of it.

    Returns:
        None where it cannot be told, as without /proc, or with a /proc that shows the processes of another namespace.
    """
    try:
        if os.readlink(_PROC / "self") != str(os.getpid()):
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return None


def alive(pid: int, started: str | None) -> bool | None:
    """Return whether a process of this `home` is alive; None if it cannot be told.

    Args:
        pid: Its number.
        started: When it started; compared too, since numbers are reused, also for processes of other users.
    """
    found = _stat(pid)
    if found is not None:
        state, begun = found
        # where a container's first process reaps no children, a zombie stays for ever
        return state not in "ZX" and started in (None, begun)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return None  # it exists, but /proc hides it


def started(pid: int) -> str | None:
    """Return when a process started, in the kernel's own clock, or None if it is not running."""
    found = _stat(pid)
    return found[1] if found is not None and found[0] not in "ZX" else None


def _stat(pid: int) -> tuple[str, str] | None:
    try:
        state, *rest = (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        return state, rest[18]
    except (OSError, IndexError):
        return None
