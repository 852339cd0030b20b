"""How many processes of one thread each this machine lets this command use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use: no more than the CPU quota of its container, and at least one."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        cores = os.process_cpu_count()  # pyright: ignore[reportAttributeAccessIssue]
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return max(1, int(min([float(cores or 1), *quotas()])))


def quotas(membership: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> Iterator[float]:
    """Yield the CPU quotas, in cores, of the control groups that this process is in, versions 1 and 2.

    Args:
        membership: The kernel's file that names the groups.
        groups: Where their files are.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, place in lines:
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / controllers if controllers else groups
        # in a container, the path may be the one on the host, of which only the top can be seen
        for folder in {top, *(top.joinpath(*Path(place).parts[1 : end + 1]) for end in range(len(Path(place).parts)))}:
            for limit, period in _limits(folder):
                if limit > 0 and period > 0:
                    yield limit / period


def _limits(folder: Path) -> Iterator[tuple[float, float]]:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            limit, period = " ".join((folder / name).read_text() for name in files).split()
            yield float(limit.replace("max", "-1")), float(period)
        except (OSError, ValueError):
            continue
