"""The partitions of a cluster as sinfo prints them, and a first profile derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import cluster


def partitions() -> tuple[list[dict[str, Any]], str | None]:
    """Return the partitions, and None or the error message of sinfo."""
    output, problem = cluster.ask("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G")
    return parse(output), problem


def parse(output: str) -> list[dict[str, Any]]:
    """Parse the output of sinfo, one line for each kind of node of a partition."""
    found: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        name, state, limit, nodes, cpus, memory, gres = (*line.split("|"), *[""] * 7)[:7]
        entry = {
            "name": name.rstrip("*"),
            "default": name.endswith("*"),
            "up": state == "up",
            "hours": hours(limit),
            "nodes": _count(nodes),
            "cpus": _count(cpus),
            "memory": _count(memory),
            "gpus": gpus(gres),
        }
        first = found.setdefault(entry["name"], entry)
        if first is not entry:  # the partition has nodes of several kinds
            first["nodes"] += entry["nodes"]
            first["gpus"] = first["gpus"] or entry["gpus"]
    return list(found.values())


def _count(text: str) -> int:
    """Return a number as sinfo prints it, such as "96+"; 0 for what is none."""
    number = text.rstrip("+")
    return int(number) if number.isdecimal() else 0


def hours(limit: str) -> float | None:
    """Convert a time limit as sinfo prints it (``1-00:00:00``, ``30:00``, ``infinite``) to hours; None for no limit."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts) or not (days or "0").isdecimal():
        return None
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 24 + seconds / 3600


def gpus(gres: str) -> dict[str, int]:
    """Parse sinfo's GRES, such as ``gpu:a100:4(S:0-1)``, into GPUs per node by type; the type may be empty."""
    found: dict[str, int] = {}
    for part in gres.replace("(S:", "(").split(","):
        fields = part.partition("(")[0].split(":")
        if fields[0] == "gpu" and fields[-1].isdecimal():
            found[fields[1] if len(fields) == 3 else ""] = int(fields[-1])
    return found


def described(partition: Mapping[str, Any]) -> str:
    """Describe a partition in one line."""
    limit = "no time limit" if partition["hours"] is None else f"up to {partition['hours']:g} h"
    kinds = ", ".join(f"{count} GPUs {kind}".strip() for kind, count in partition["gpus"].items()) or "no GPUs"
    mark = ", the default" if partition["default"] else ""
    down = "" if partition["up"] else ", down"
    return f"{partition['nodes']} nodes of {partition['cpus']} CPUs and {kinds}, {limit}{mark}{down}"


def suggestion(partitions: list[dict[str, Any]]) -> dict[str, Any]:
    """Suggest the keys of a first profile.

    The partition is one with GPUs if there is one, otherwise the default. CPUs and memory per rank are one GPU's share
    of its node.
    """
    up = [partition for partition in partitions if partition["up"]]
    ordered = sorted(up, key=lambda one: (not one["gpus"], not one["default"]))
    if not ordered:
        return {}
    best = ordered[0]
    count = sum(best["gpus"].values())
    limit = best["hours"]
    keys: dict[str, Any] = {"partition": best["name"], "hours": 4.0 if limit is None else min(4.0, limit)}
    keys["gpus_per_rank"] = 1 if count else 0
    if count and best["cpus"]:
        keys["cpus_per_rank"] = max(1, best["cpus"] // count)
    if count and best["memory"]:
        keys["mem_per_rank_gb"] = round(0.9 * best["memory"] / 1024 / count, 1)
    return keys
