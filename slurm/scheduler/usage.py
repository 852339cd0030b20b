"""What jobs have really used, start by start, as sacct counts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import cluster
from .parse import unfold

FIELDS = ("JobID", "JobName", "ElapsedRaw", "AllocCPUS", "AllocTRES")


@dataclass(frozen=True)
class JobUse:
    """One start of a job, or of one task of an array.

    Attributes:
        id: "1234", or "1234_5" for task 5 of an array.
        name: Its name.
        seconds: How long it had its resources.
        cpus: CPUs it had on all nodes.
        gpus: GPUs it had on all nodes.
    """

    id: str
    name: str
    seconds: float
    cpus: int
    gpus: int


def used(ids: Iterable[str]) -> tuple[list[JobUse], str | None]:
    """Ask sacct for all starts of jobs: without ``--duplicates`` it would show only the last one of a requeued job.

    Args:
        ids: Jobs or arrays.

    Returns:
        The starts that have begun, and None or the message of sacct.
    """
    arrays = sorted({name.partition("_")[0] for name in ids})
    if not arrays:
        return [], None
    output, problem = cluster.ask("sacct", "-nPXD", "-j", ",".join(arrays), "-o", ",".join(FIELDS))
    return ([], problem) if problem is not None else (parse_usage(output), None)


def parse_usage(output: str) -> list[JobUse]:
    """Parse the output of sacct in the format of `FIELDS`; starts that never had resources are left out."""
    found = []
    for line in output.splitlines():
        values = line.split("|")
        if len(values) != len(FIELDS):
            continue
        name, label, seconds, cpus, allocated = values
        if seconds.isdecimal() and int(seconds) > 0:
            found += [JobUse(one, label, int(seconds), _whole(cpus), _gpus(allocated)) for one in unfold(name)]
    return found


def _gpus(allocated: str) -> int:
    """Count the GPUs of ``cpu=8,gres/gpu:a100=2,gres/gpu=2,node=1``; some clusters list only those with a type."""
    parts = (part.partition("=") for part in allocated.split(","))
    amounts = {name: amount for name, _, amount in parts}
    typed = sum(_whole(amount) for name, amount in amounts.items() if name.startswith("gres/gpu:"))
    return _whole(amounts.get("gres/gpu", "")) or typed


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0
