"""What each rank of the doctor's job on two nodes does: ``python -m slurm.doctor.rank FOLDER``."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from experiments.errors import SuiteError
from experiments.rundir.files import write_json
from slurm.scheduler.environment import this_start

FILES = 20
_SIOCGIFADDR = 0x8915


def look(folder: Path) -> dict[str, Any]:
    """Return what this rank finds.

    Returns:
        `met` is None or why it did not find the other rank; `address` that of the host's own name; `clock` and `stamp`
        this clock and the file system's; `created` the files that it created exclusively, of `tried`.
    """
    start = this_start()
    met = _meet(folder)
    created = [number for number in range(FILES) if _create(folder / f"file-{number}")]
    stamped, clock = stamp(folder / f"stamp-{start.rank}")
    return {
        "node": start.node or socket.gethostname(),
        "host": socket.gethostname(),
        "address": address_of(socket.gethostname()),
        "interfaces": interfaces(),
        "variables": {name: os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")},
        "met": met,
        "tried": FILES,
        "created": created,
        "stamp": stamped,
        "clock": clock,
        "internet": _reaches(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"),
    }


def _meet(folder: Path) -> str | None:
    """Find the other rank as the ranks of a run do, and add numbers over both."""
    import torch

    from experiments.ranks import distributed

    try:
        with distributed.joined(folder / "meet", "cpu", 1.0) as world:
            if world.size != 2:
                return f"there are {world.size} ranks, not 2"
            total = world.sum(torch.ones(1000)).sum().item()
            return None if total == 2000 else f"the sum over both is {total:g} instead of 2000"
    except (SuiteError, OSError) as error:
        return str(error).splitlines()[0]


def address_of(host: str) -> str:
    """Return the IPv4 address of a name, or an empty text."""
    with suppress(OSError):
        return socket.gethostbyname(host)
    return ""


def interfaces() -> dict[str, str]:
    """Return the IPv4 address of each network interface that has one (Linux only)."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _create(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    return True


def stamp(path: Path) -> tuple[float, float]:
    """Return the file system's time and this machine's, at the same moment."""
    path.touch()
    return path.stat().st_mtime, time.time()


def _reaches(url: str) -> bool:
    place = urlsplit(url)
    with suppress(OSError), socket.create_connection((place.hostname or "", place.port or 443), timeout=3):
        return True
    return False


if __name__ == "__main__":
    given = Path(sys.argv[1])
    write_json(given / f"rank-{this_start().rank}.json", look(given))
