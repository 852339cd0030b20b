"""What can befall a run that is under way on a cluster; and a storm of it, at random moments.

All waits are for progress, not for clocks: a run waits a few steps after the moment of a blow until it has been
struck, so a busy machine makes the storm longer, but not milder.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters import Cluster, attempts, ledger, logs, numbers, step, stepd
from tables import Table

from experiments.rundir import process

PATIENCE = 120.0  # seconds in which something must come forward; Slurm itself waits for up to a minute here and there
ROOM = 4  # steps that a run may go on after the moment of a blow

SHELL, NODES = "batch shell killed", {"node lost", "node dies"}
# With one of these, nobody is left who could put the job back: the task dies as well, or has just ended by itself, or
# Slurm has noted the job's end before it gave up the node.
DEADLY = {"task killed", "USR2", "TERM"} | NODES


@dataclass
class Strike:
    """Blows to deal at once, after some step of the run or, if that comes first, as soon as its next attempt begins."""

    kinds: list[str]
    step: int
    early: bool


class Blows:
    """What is done to a run that is under way; each name is a kind of blow."""

    def __init__(self, cluster: Cluster, draw: random.Random):
        self._cluster, self._draw = cluster, draw
        self._lost: int | None = None  # the node that is down
        self.kinds: dict[str, Callable[[dict[str, Any]], object]] = {
            "task killed": kill_task,
            "srun killed": lambda one: kill(numbers("srun", job=one["job_id"])),
            "stepd killed": lambda one: kill(stepd(one["job_id"])),
            "batch shell killed": lambda one: kill(numbers("slurm_script", job=one["job_id"])),
            "USR2": lambda one: cluster.ask("scancel", "--signal=USR2", one["job"]),
            "TERM": lambda one: cluster.ask("scancel", "--signal=TERM", one["job"]),
            "requeue": lambda one: cluster.ask("scontrol", "requeue", one["job"]),
            "asleep": self._sleep,
            "node lost": self._lose_node,
            "node dies": self._crash_node,
        }

    def deal(self, kinds: list[str], attempt: dict[str, Any]) -> None:
        for kind in kinds:
            with suppress(AssertionError, subprocess.TimeoutExpired):  # a job that has just ended, a controller as well
                self.kinds[kind](attempt)

    def _sleep(self, one: dict[str, Any]) -> None:
        with suppress(ProcessLookupError):
            os.kill(one["pid"], signal.SIGSTOP)
            time.sleep(self._draw.uniform(0, 2))
            os.kill(one["pid"], signal.SIGCONT)

    def _lose_node(self, one: dict[str, Any]) -> None:
        """Its slurmd dies, and what runs there lives on; Slurm gives the node up."""
        if self._lost is not None:
            kill_task(one)
            return
        self._lost = int(one["node"].removeprefix("n"))
        kill([self._cluster.daemon(self._lost)])
        self._down(self._lost)

    def _crash_node(self, one: dict[str, Any]) -> None:
        """All that runs there dies; Slurm gives the node up."""
        if self._lost is not None:
            kill_task(one)
            return
        self._lost = int(one["node"].removeprefix("n"))
        self._cluster.control("kill-node", str(self._lost))
        self._down(self._lost)

    def _down(self, node: int) -> None:
        self._cluster.ask("scontrol", "update", f"nodename=n{node}", "state=down", "reason=dead")

    def mend(self) -> None:
        """Bring back a lost node once the starts that lived on have ended there, and a controller that has crashed.

        Not earlier: Slurm holds a job that it cannot launch since its former start is still on the node, and nobody is
        left there to release it, since Slurm kills the former start as well. The controller of Slurm 22.05 crashes (in
        `build_job_info_resp`) when an srun asks for its job at the very moment in which the job has lost its node.
        """
        if not numbers("slurmctld", str(self._cluster.folder)):
            self._cluster.control("start-ctld")
        if self._lost is not None and not self._cluster.steps(self._lost):
            self._cluster.control("start-node", str(self._lost))
            with suppress(AssertionError):  # it may be back already
                self._cluster.ask("scontrol", "update", f"nodename=n{self._lost}", "state=resume")
            self._lost = None


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_task(attempt: dict[str, Any]) -> None:
    if process.alive(attempt["pid"], attempt["started"]):
        kill([attempt["pid"]])


def under_way(run: Path) -> dict[str, Any] | None:
    """The newest attempt of a run, if it has begun and not ended."""
    found = attempts(run)
    alive = found and "ended" not in found[-1] and process.alive(found[-1]["pid"], found[-1]["started"])
    return found[-1] if alive else None


@dataclass
class Storm:
    """Deals blows to the runs of a table, equally many to each, until all are dealt and all runs are done.

    Attributes:
        made: The table; it is submitted when `rage` is called.
        rows: Its rows.
        count: Number of blows.
        steps: Number of steps of each run.
        draw: Decides which blow comes when.
        dealt: What was dealt to whom, for messages.
    """

    made: Table
    rows: list[str]
    count: int
    steps: int
    draw: random.Random
    dealt: list[tuple[str, int, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blows = Blows(self.made.cluster, self.draw)
        kinds = sorted(self.blows.kinds)
        drawn = [kinds[at % len(kinds)] for at in range(self.count)]
        self.draw.shuffle(drawn)
        self._plans = {row: self._plan(drawn[at :: len(self.rows)]) for at, row in enumerate(self.rows)}
        self._struck = dict.fromkeys(self.rows, 0)  # the last attempt that was struck
        self._orphans: set[str] = set()  # rows whose batch script has been killed, and whose job is not yet put back

    def _plan(self, kinds: list[str]) -> list[Strike]:
        """One or two at a time, one in five while an attempt starts, the others spread over the run's steps."""
        groups = []
        while kinds:
            size = 1 + (self.draw.random() < 0.4)
            if SHELL in kinds[:size] and DEADLY.intersection(kinds[:size]):
                size = 1
            groups.append(kinds[:size])
            kinds = kinds[size:]
        part = (self.steps - 2 * ROOM) / len(groups)
        return [
            Strike(group, int(part * at + self.draw.uniform(0, part - ROOM)), self.draw.random() < 0.2)
            for at, group in enumerate(groups)
        ]

    def rage(self) -> None:
        """Submit the table, strike its runs as planned, and wait for their ends."""
        made = self.made
        for row in self.rows:
            self._let_go_on(row)
        made.cluster.submit(made.folder)
        seen, since = None, time.monotonic()
        while not all((made.run(row) / "result.json").exists() for row in self.rows):
            for row in self.rows:
                self._strike(row)
            self.blows.mend()
            now = [(step(made.run(row)), len(attempts(made.run(row)))) for row in self.rows]
            if now != seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() < since + PATIENCE, self._state()
            assert not list(made.sweep.glob("*/failure.json")), self._state()
            time.sleep(0.05)

    def _strike(self, row: str) -> None:
        attempt, plan = under_way(self.made.run(row)), self._plans[row]
        if attempt is None or not plan:
            return
        fresh = attempt["attempt"] > self._struck[row]
        self._orphans -= {row} if fresh else set()
        due = self._trains(row, attempt) and step(self.made.run(row)) >= plan[0].step
        if not (due or (plan[0].early and fresh)) or row in self._orphans:
            return
        if self._orphans and NODES.intersection(plan[0].kinds):
            return
        kinds = plan.pop(0).kinds
        self._struck[row] = attempt["attempt"]
        self._orphans |= {row} if SHELL in kinds else set()
        self.dealt.append((row, step(self.made.run(row)), kinds))
        self.blows.deal(kinds, attempt)
        self._let_go_on(row)

    def _trains(self, row: str, attempt: dict[str, Any]) -> bool:
        return any(record["attempt"] == attempt["attempt"] for record in ledger(self.made.run(row), "start"))

    def _let_go_on(self, row: str) -> None:
        """Have the run wait a few steps after its next blow, or no longer."""
        brake = self.made.gate(row) / "brake"
        if self._plans[row]:
            brake.write_text(str(self._plans[row][0].step + ROOM))
        else:
            brake.unlink(missing_ok=True)

    def _state(self) -> str:
        left = {row: plan for row, plan in self._plans.items() if plan}
        shown = self.made.cluster.ask("squeue", "-r", "-t", "all", "-o", "%i %T %r %N")
        return f"nothing comes forward\ndealt: {self.dealt}\nleft: {left}\n{shown}\n{logs(self.made.sweep)}"
