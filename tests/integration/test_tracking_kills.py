"""However often all processes of a sweep are killed, a push leaves W&B with every line of the metrics once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Ham
from processes import Command, wait_for
from small_runs import write_config
from test_tracking import complete, lines
from wandb_files import offline_files, read_offline
from wandb_server import Server, serving

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


def grown(runs: Path) -> int:
    """Bytes of the metrics of all runs; a run that is taken up again begins with a new file."""
    return sum(path.stat().st_mtime_ns for path in runs.glob("*/metrics.jsonl"))


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_every_line_is_there_once(ham: Ham, tmp_path: Path, server: Server, mode: str) -> None:
    config = write_config(
        tmp_path / "small.yaml",
        model={"name": "resnet8"},
        data__batch_size=25,
        schedule__epochs=40,
        checkpoint={"every_steps": 7},
        tracking={"wandb": mode},
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
    runs, moments, kills = tmp_path / "runs/small", random.Random(7), 0
    while kills < KILLS:
        before = grown(runs)
        with Command(tmp_path, "sweep", config, "--out", tmp_path / "runs", "--jobs", 2) as command:
            wait_for(lambda b=before: grown(runs) > b or not command.running(), "a line")
            time.sleep(moments.uniform(0, 1.0))
            if not command.running():
                break
            for pid in command.members():  # W&B's processes too, as the end of a Slurm job's group is
                os.kill(pid, signal.SIGKILL)
            kills += 1
    assert kills >= KILLS // 2
    assert ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    folders = sorted(runs.glob("rigl-*"))
    assert len(folders) == 2
    if mode == "offline":
        for folder in folders:
            (record,) = offline_files(folder)
            assert read_offline(record).history == lines(folder)
        assert server.runs == {}
    for times in range(2):
        pushed = ham("track", "push", runs)
        assert pushed.code == 0
        assert pushed.out.count(", 0 of them new to W&B") == (2 if times or mode == "online" else 0)
    print(f"{mode}: {kills} kills, {[len(lines(folder)) for folder in folders]} lines")
    for folder in folders:
        run = server.runs[content(folder).id]
        complete(folder, run)
        assert "rewritten_from" not in run.config
