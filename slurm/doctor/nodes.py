"""A job on two nodes: whether ranks find each other, and what their clocks and the shared file system say."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.rundir.files import read_json
from slurm.profile import Profile
from slurm.scheduler import cluster

from . import rank
from .finding import Finding, left_no_trace, options, waited

WHAT = "two nodes"
SKEW = 2.0
"""Seconds by which clocks may differ without a word."""

_SCRIPT = """\
#!/bin/bash
{setup}
export PYTHONSAFEPATH=1
srun --export=ALL --kill-on-bad-exit=1 {python} -m slurm.doctor.rank {folder}
"""


@dataclass(frozen=True)
class TwoNodes:
    """The job on two nodes.

    Attributes:
        folder: Where its ranks write.
        begun: When it was submitted, by this machine's clock.
        job: Its number; None if it was not submitted.
        problem: Why it was not submitted.
    """

    folder: Path
    begun: float
    job: str | None = None
    problem: Finding | None = None


def submit(
    folder: Path, chosen: Profile | None, suggested: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> TwoNodes:
    """Submit the job.

    Args:
        folder: A folder of its own, where the runs will be.
        chosen: Profile whose partition, account and so on the job uses.
        suggested: Those of a first profile, where there is none.
        found: The partitions.
    """
    begun = time.time()
    name = chosen.partition if chosen else suggested.get("partition")
    there = [one["nodes"] for one in found if one["name"] == name or (name is None and one["default"])]
    if there and there[0] < 2:
        return TwoNodes(
            folder, begun, problem=Finding("ok", WHAT, f"not tried: partition {name or 'by default'} has one node")
        )
    folder.mkdir()
    python = (chosen.python if chosen else None) or shlex.quote(sys.executable)
    lines = "\n".join(chosen.setup) if chosen else ""
    script = folder / "nodes.sh"
    script.write_text(_SCRIPT.format(setup=lines, python=python, folder=shlex.quote(str(folder))))
    output, problem = cluster.ask(
        "sbatch",
        *("--parsable", "--nodes=2", "--ntasks-per-node=1", "--mem=2G"),
        *options(folder, chosen, suggested),
        str(script),
    )
    if problem is not None:
        return TwoNodes(folder, begun, problem=Finding("warning", WHAT, f"sbatch refused the job: {problem}"))
    return TwoNodes(folder, begun, output.split(";")[0].strip())


def findings(trial: TwoNodes) -> Iterator[Finding]:
    """Wait for the job, and return what it found."""
    if trial.problem is not None or trial.job is None:
        yield trial.problem or Finding("unknown", WHAT, "not tried")
        return
    paths = [trial.folder / f"rank-{rank}.json" for rank in range(2)]
    try:
        if waited(*paths):
            facts = [fact for path in paths if isinstance(fact := read_json(path), dict)]
            yield from judged(facts)
            stamp, clock = rank.stamp(trial.folder / "here")
            yield clocks(facts, clock - stamp, trial.begun, time.time())
        else:
            log = trial.folder / "log"
            last = cluster.words(log.read_text(errors="replace")[-400:]) if log.exists() else ""
            yield left_no_trace(trial.job, WHAT, f"its log says: {last}" if last else "the partition may be busy")
    finally:
        cluster.ask("scancel", trial.job)


def judged(facts: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Return findings from what the ranks have written, see `rank.look`."""
    yield _met(facts)
    for fact in facts:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            chosen = str(fact["variables"].get(variable) or "")
            wanted = [name for name in chosen.lstrip("^=").split(",") if name]
            if wanted and chosen[0] != "^" and not any(a.startswith(b) for a in fact["interfaces"] for b in wanted):
                text = f"{variable}={chosen} names none of the interfaces there: {_interfaces(fact)}"
                yield Finding("failed", f"network of {fact['node']}", text)
    for fact in facts:
        yield Finding("ok", f"interfaces of {fact['node']}", _interfaces(fact))
    yield _exclusive(facts)
    yield _internet(facts)


def clocks(facts: Sequence[Mapping[str, Any]], here: float, begun: float, now: float) -> Finding:
    """Compare the nodes' clocks with this machine's and with that of the file system.

    Args:
        facts: What the ranks have written.
        here: Seconds by which this machine's clock is ahead of the file system's.
        begun: When the job was submitted, by this machine's clock.
        now: When its ranks had ended, by this machine's clock; between the two lie their own clocks.
    """
    off = {"this machine": here}
    for fact in facts:
        beside = fact["clock"] - fact["stamp"]
        outside = min(0.0, fact["clock"] - begun) + max(0.0, fact["clock"] - now)
        off[str(fact["node"])] = max(beside, beside - here, outside, key=abs)
    listed = ", ".join(f"{name} {seconds:+.1f} s" for name, seconds in off.items())
    if all(abs(seconds) <= SKEW for seconds in off.values()):
        return Finding("ok", "clocks", f"beside the shared file system's: {listed}")
    text = "runs are taken over by the file system's clock alone, but times in logs and `ham status` are wrong: use NTP"
    return Finding("warning", "clocks", f"beside the shared file system's or this machine's: {listed}; {text}")


def _met(facts: Sequence[Mapping[str, Any]]) -> Finding:
    names = " and ".join(str(fact["node"]) for fact in facts)
    if len(facts) == 2 and all(fact["met"] is None for fact in facts):
        return Finding("ok", WHAT, f"ranks on {names} found each other and summed over gloo")
    reasons = "; ".join(dict.fromkeys(str(fact["met"]) for fact in facts if fact["met"]))
    loops = [fact for fact in facts if fact["address"].startswith("127.")]
    if loops:
        one = loops[0]
        reasons += (
            f"; on {one['node']} its own name, {one['host']}, is {one['address']}, which other nodes cannot reach: "
            'name its interface in the profile, setup: ["export GLOO_SOCKET_IFNAME=..."], or mend /etc/hosts'
        )
    else:
        reasons += (
            '; name an interface that both nodes share in the profile, setup: ["export GLOO_SOCKET_IFNAME=... '
            'NCCL_SOCKET_IFNAME=..."]'
        )
    return Finding("failed", WHAT, f"ranks on {names} did not find each other: {reasons}")


def _interfaces(fact: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{name} {address}" for name, address in fact["interfaces"].items()) or "none with an address"
    given = [f"{key}={value}" for key, value in fact["variables"].items() if value]
    return f"{listed}; {', '.join(given) or 'GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME are not set'}"


def _exclusive(facts: Sequence[Mapping[str, Any]]) -> Finding:
    won = [set(fact["created"]) for fact in facts]
    tried = max((fact["tried"] for fact in facts), default=0)
    twice = set.intersection(*won) if len(won) > 1 else set()
    if twice or len(set.union(*won)) < tried:
        text = f"{len(twice)} of {tried} files were created by both nodes: claims of runs are not safe here; choose"
        return Finding("failed", "O_EXCL", f"{text} another --out")
    return Finding("ok", "O_EXCL", f"each of {tried} files was created by one node alone")


def _internet(facts: Sequence[Mapping[str, Any]]) -> Finding:
    away = [str(fact["node"]) for fact in facts if not fact["internet"]]
    if not away:
        return Finding("ok", "internet", "nodes reach W&B")
    way = "tracking.wandb=offline, then `ham track push DIR` (docs/howto/wandb.md)"
    text = f"W&B is not reached from {', '.join(away)}: {way}"
    return Finding("warning", "internet", text)
