"""Who writes a run when Slurm starts its job again while the former process lives; and many blows at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, attempts, ledger, numbers, step, stepd, wait_for
from tables import ACDC, RANDOM, RIGL, STR, Table

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

PACE = {"setup": ["export HAM_TEST_BEAT=1"], "max_restarts": 100}


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_one_writer_at_a_time(made: Table, row: str) -> None:
    """The second attempt waited for the end of the first, which has added nothing since."""
    run = made.run(row)
    first, second = attempts(run)
    assert first["reason"] == "lost"
    assert first["ended"] <= second["time"]
    assert [(one["attempt"], one["event"]) for one in ledger(run) if one["event"] != "checkpoint"] == [
        (1, "start"),
        (1, "lost"),
        (2, "start"),
        (2, "end"),
    ]
    assert metrics(run) == metrics(made.peace / run.name)
    assert "may still live; it is told" in (run / "log.txt").read_text()


def test_a_process_that_slurm_has_given_up_and_that_lives(cluster: Cluster, table: Any) -> None:
    """Its slurmstepd is killed, and then the slurmd of its node, a machine of its own, which Slurm declares dead."""
    made: Table = table({"stepd": RIGL, "node": {**RIGL, "optimizer.lr": 0.05}}, PACE)
    with cluster.machine(1) as daemon:
        cluster.ask("scontrol", "update", "nodename=n0", "state=drain", "reason=test")
        for row in ("stepd", "node"):
            made.hold(row, 23)
        cluster.submit(made.folder)
        for row in ("stepd", "node"):
            made.wait_at(row, 23)

        os.kill(*stepd(attempts(made.run("stepd"))[0]["job_id"]), signal.SIGKILL)
        takes_over_only_when_released(made, "stepd")

        os.kill(daemon, signal.SIGKILL)
        cluster.ask("scontrol", "update", "nodename=n1", "state=down", "reason=dead")
        cluster.ask("scontrol", "update", "nodename=n0", "state=resume")
        takes_over_only_when_released(made, "node")
        assert [attempt["node"] for attempt in attempts(made.run("node"))] == ["n1", "n0"]
        assert attempts(made.run("node"))[0]["host"] == "n1"
        cluster.wait_until_done(made.sweep)
    made.assert_equal()
    for row in ("stepd", "node"):
        assert_one_writer_at_a_time(made, row)


def takes_over_only_when_released(made: Table, row: str) -> None:
    run = made.run(row)
    wait_for(lambda: len(attempts(run)) == 2, f"a second claim of {row}")
    wait_for(lambda: "may still live; it is told" in (run / "log.txt").read_text(), "a word on the wait", 20)
    time.sleep(2)
    assert [record["attempt"] for record in ledger(run, "start")] == [1]
    assert step(run) == 23
    made.release(row)
    wait_for(lambda: len(ledger(run, "start")) == 2, f"the second attempt of {row}", 30)


class Blows:
    """What is done to a run that is under way; each name is a kind of blow."""

    def __init__(self, cluster: Cluster, draw: random.Random):
        self._cluster, self._draw = cluster, draw
        self._down: dict[str, float] = {}  # nodes, and until when
        self.kinds: dict[str, Callable[[dict[str, Any]], object]] = {
            "task killed": lambda one: kill([one["pid"]]),
            "srun killed": lambda one: kill(numbers("srun", job=one["job_id"])),
            "stepd killed": lambda one: kill(stepd(one["job_id"])),
            "batch shell killed": lambda one: kill(numbers("slurm_script", job=one["job_id"])),
            "USR2": lambda one: cluster.ask("scancel", "--signal=USR2", one["job"]),
            "TERM": lambda one: cluster.ask("scancel", "--signal=TERM", one["job"]),
            "requeue": lambda one: cluster.ask("scontrol", "requeue", one["job"]),
            "asleep": self._sleep,
            "node lost": self._node,
        }

    def strike(self, attempt: dict[str, Any]) -> list[str]:
        """Strike a run with a blow that is drawn, or with two at once, and return their kinds."""
        kinds = self._draw.choices(sorted(self.kinds), k=1 + (self._draw.random() < 0.4))
        for kind in kinds:
            with suppress(AssertionError, ValueError, FileNotFoundError):  # a job or a daemon that has just ended
                self.kinds[kind](attempt)
        return kinds

    def _sleep(self, one: dict[str, Any]) -> None:
        with suppress(ProcessLookupError):
            os.kill(one["pid"], signal.SIGSTOP)
            time.sleep(self._draw.uniform(0, 2))
            os.kill(one["pid"], signal.SIGCONT)

    def _node(self, one: dict[str, Any]) -> None:
        """Its slurmd dies, and what runs there lives on; Slurm gives the node up, and finds it back later.

        Not at once: Slurm holds a job for ever that it cannot launch since its former start is still on the node.
        """
        node = one["node"]
        if node in self._down:
            kill([one["pid"]])
        else:
            kill([self._cluster.daemon(int(node.removeprefix("n")))])
            self._cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=dead")
            self._down[node] = time.monotonic() + 8

    def bring_back(self) -> None:
        """Start the slurmd of nodes that have been down long enough."""
        for node in [node for node, until in self._down.items() if time.monotonic() > until]:
            del self._down[node]
            self._cluster.control("start-node", node.removeprefix("n"))
            with suppress(AssertionError):  # it may be back already
                self._cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def under_way(run: Path) -> dict[str, Any] | None:
    """The newest attempt of a run, if it has begun and not ended."""
    found = attempts(run)
    alive = found and "ended" not in found[-1] and Path(f"/proc/{found[-1]['pid']}").exists()
    return found[-1] if alive else None


def test_blows_at_random_moments(cluster: Cluster, table: Any) -> None:
    """48 on four runs, by a fixed seed; all come to their end by themselves, bit-equal to an undisturbed run."""
    draw = random.Random(11)
    rows = {"random": RANDOM, "acdc": ACDC, "rigl": RIGL, "str": STR}
    made: Table = table(rows, PACE, schedule={"epochs": 8})
    slow = made.folder / "runs/gates/slow"
    slow.parent.mkdir(parents=True)
    slow.touch()
    cluster.submit(made.folder)
    blows, struck = Blows(cluster, draw), []
    plans: dict[tuple[str, int], int] = {}  # row and attempt -> steps of it after which it is struck
    deadline = time.monotonic() + 300
    while len(struck) < 48:
        assert time.monotonic() < deadline, (struck, cluster.states(made.sweep))
        assert not all((made.run(row) / "result.json").exists() for row in rows), f"done after {len(struck)}"
        for row in rows:
            if (attempt := under_way(made.run(row))) is None:
                continue
            # one in five while it starts, the others after some steps and a moment
            key = row, attempt["attempt"]
            plan = plans.setdefault(key, 0 if draw.random() < 0.2 else draw.randint(2, 7))
            begun = [record["step"] for record in ledger(made.run(row), "start") if record["attempt"] == key[1]]
            if plan == 0 or (begun and step(made.run(row)) >= begun[0] + plan):
                struck += blows.strike(attempt)
                plans[key] = 10**6 if struck[-1] != "asleep" else plan + draw.randint(1, 5)
        blows.bring_back()
        time.sleep(0.05)
    time.sleep(8)
    blows.bring_back()
    slow.unlink()
    cluster.wait_until_done(made.sweep, 240)
    made.assert_equal()
    assert set(struck) == set(blows.kinds)
    for row in rows:
        run = made.run(row)
        assert metrics(run) == metrics(made.peace / run.name)
