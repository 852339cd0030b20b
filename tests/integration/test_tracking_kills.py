"""However often all processes of a sweep are killed, a push leaves W&B with every line of the metrics once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commands import Ham
from processes import PATIENCE, Command, wait_for
from small_runs import write_config
from test_tracking import complete, descendants, lines
from wandb_server import Server, serving

from experiments.rundir import attempts
from experiments.tracking.content import content

pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.robust,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are followed through /proc"),
    pytest.mark.timeout(600),
]

KILLS = 10


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(Server()) as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        yield server


def changed(runs: Path) -> int:
    """When lines were written, summed over all runs: it grows with each."""
    return sum(path.stat().st_mtime_ns for path in runs.glob("*/metrics.jsonl"))


def one_run(folder: Path) -> list[int]:
    """The process that trains a run, and W&B's for it; none if it has finished."""
    last = attempts.newest(folder)
    if last is None or not attempts.alive(folder, last):
        return []
    return [last["pid"], *descendants(last["pid"], "")]


def kill(processes: list[int]) -> int:
    """SIGKILL, as at the end of a Slurm job's group; how many times something was killed: once or not at all."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return min(len(processes), 1)


def test_every_line_is_there_once(ham: Ham, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with its mirror, then all that is left; in turn as on nodes with and without internet."""
    config = write_config(
        tmp_path / "small.yaml",
        model={"name": "resnet8"},
        data__batch_size=25,
        schedule__epochs=16,
        checkpoint={"every_steps": 7},
        tracking={"wandb": "auto"},
        sweep={
            "rows": {
                "RiGL + HAM": {
                    "topology": {"name": "rigl", "sparsity": 0.9, "update_every": 5},
                    "optimizer.ham": {"alpha": 20.0},
                }
            },
            "seeds": [0, 1],
        },
    )
    sweep = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 2)
    runs, moments, kills = tmp_path / "runs/small", random.Random(7), 0
    while kills < KILLS:
        before = changed(runs)
        monkeypatch.setenv("WANDB_MODE", ("online", "offline")[kills // 2 % 2])
        with Command(tmp_path, *sweep) as command:
            wait_for(lambda b=before: changed(runs) > b or not command.running(), "a line")
            time.sleep(moments.uniform(0, 1.0))
            kills += kill(one_run(sorted(runs.glob("rigl-*"))[moments.randrange(2)]))
            time.sleep(moments.uniform(0, 1.0))
            if not command.running():
                break
            kills += kill(command.members())
    print(f"{kills} kills")
    assert kills >= KILLS // 2
    with Command(tmp_path, *sweep) as command:
        assert command.process.wait(PATIENCE) == 0, command.err
    folders = sorted(runs.glob("rigl-*"))
    there = {
        folder.name: len(server.runs[run].lines) for folder in folders if (run := content(folder).id) in server.runs
    }
    print(f"{[len(lines(folder)) for folder in folders]} lines, at W&B before the push {there}")
    monkeypatch.delenv("WANDB_MODE")
    assert ham("track", "push", runs).code == 0
    assert ham("track", "push", runs).out.count(", 0 of them new to W&B") == 2
    for folder in folders:
        run = server.runs[content(folder).id]
        complete(folder, run)
        assert "rewritten_from" not in run.config
