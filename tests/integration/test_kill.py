"""Whatever moment a command is killed at, the same command ends with the table of one that was left in peace."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import Ham
from commands import command as call
from processes import Command, wait_for
from small_runs import contents, result, resumptions, write_config

from experiments.rundir.attempts import newest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are followed through /proc"),
    pytest.mark.timeout(900),
]

ROWS: dict[str, Any] = {
    "AC/DC + Sign-In": {
        "topology": {"name": "acdc", "allocation": "erk", "sparsity": 0.9},
        "representation.name": "sign_in",
    },
    "RiGL + HAM": {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 5}, "optimizer.ham": {"alpha": 20.0}},
}
# 12 steps an epoch, 48 in all; a run's checkpoints are many and its steps slow enough to be killed between them
SIZES = {"data__batch_size": 25, "schedule__epochs": 4, "model": {"name": "resnet8"}, "checkpoint": {"every_steps": 3}}
# six kills: of one worker, of the command while it works or starts; after each of the command's it is started again
MOMENTS = ["worker", "worker", "work", "start", "worker", "work"]


def sweep_config(folder: Path) -> Path:
    return write_config(folder / "small.yaml", sweep={"rows": ROWS, "seeds": [0, 1]}, **SIZES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert call("sweep", sweep_config(folder), "--out", folder / "runs", "--jobs", 2) == 0
    return folder / "runs/small"


def times_of_checkpoints(runs: Path) -> dict[Path, int]:
    found = {}
    for path in runs.glob("*/checkpoints/*.pt"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # its run is done
            continue
    return found


def wait_for_checkpoints(command: Command, runs: Path, number: int) -> None:
    """Until so many checkpoints have been written from now on."""
    seen, known = 0, times_of_checkpoints(runs)

    def written() -> bool:
        nonlocal seen, known
        assert command.running(), f"the sweep was over too soon: {command.err}"
        now = times_of_checkpoints(runs)
        seen += sum(known.get(path) != stamp for path, stamp in now.items())
        known = now
        return seen >= number

    wait_for(written, f"{number} checkpoints")


def workers(command: Command, runs: Path) -> dict[int, Path]:
    """Process numbers of the workers, from the attempts that are under way."""
    found = {}
    for path in runs.glob("*/attempts"):
        owner = newest(path.parent)
        if owner is not None and "ended" not in owner:
            found[owner["pid"]] = path.parent
    return {pid: found[pid] for pid in command.members() if pid in found}


def lines_of_logs(runs: Path) -> Counter[str]:
    return Counter(
        f"{path.parent.name}: {line}" for path in runs.glob("*/log.txt") for line in path.read_text().splitlines()
    )


@pytest.mark.robust
def test_six_kills_change_nothing(ham: Ham, undisturbed: Path, tmp_path: Path) -> None:
    draw = random.Random(20)
    config, runs = sweep_config(tmp_path), tmp_path / "runs/small"
    arguments = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 2)
    moments, restarts, resumed, after_a_checkpoint = list(MOMENTS), -1, 0, 0
    while moments:
        before = lines_of_logs(runs)
        restarts += 1
        with Command(tmp_path, *arguments) as command:
            alive = True
            while alive:
                moment = moments.pop(0)
                if moment == "start":
                    time.sleep(draw.uniform(0, 2))
                else:
                    wait_for_checkpoints(command, runs, draw.randint(1, 4))
                    time.sleep(draw.uniform(0, 0.03))
                after_a_checkpoint += bool(times_of_checkpoints(runs))
                if moment == "worker":
                    at_work = workers(command, runs)
                    os.kill(draw.choice(sorted(at_work)), signal.SIGKILL)
                else:
                    command.kill()
                    alive = False
            wait_for(lambda command=command: not command.members(), "the end of all its processes")
        at_rest = contents(runs)
        assert "Traceback" not in command.err
        resumed += any("resumed at step" in line for line in lines_of_logs(runs) - before)
        time.sleep(0.1)
        assert contents(runs) == at_rest, "somebody still writes"
    before = lines_of_logs(runs)
    restarts += 1
    assert ham(*arguments).code == 0
    resumed += any("resumed at step" in line for line in lines_of_logs(runs) - before)
    steps = [step for folder in runs.iterdir() if folder.is_dir() for step in resumptions(folder)]
    assert all(step > 0 for step in steps)
    assert 2 * after_a_checkpoint >= len(MOMENTS)
    assert 2 * resumed >= restarts
    assert not list(runs.rglob("*.tmp")) + list(runs.rglob("checkpoints"))
    for form in ("text", "csv"):
        disturbed, reference = (ham("table", folder, "--format", form) for folder in (runs, undisturbed))
        assert (disturbed.code, disturbed.err) == (0, "")
        assert disturbed.out == reference.out
    for folder in undisturbed.iterdir():
        if folder.is_dir():
            assert result(runs / folder.name) == result(folder)
            assert contents(runs / folder.name)["weights.pt"] == contents(folder)["weights.pt"]


@pytest.mark.robust
def test_ctrl_c_leaves_a_sweep_that_goes_on(ham: Ham, undisturbed: Path, tmp_path: Path) -> None:
    config, runs = sweep_config(tmp_path), tmp_path / "runs/small"
    arguments = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 2)
    # while the server process that the workers come from imports torch
    with Command(tmp_path, *arguments) as command:
        wait_for(lambda: command.members("multiprocessing.forkserver"), "the server process")
        time.sleep(0.3)
        assert command.ctrl_c() == 130
        assert "Traceback" not in command.err
        wait_for(lambda: not command.members(), "the end of all its processes")
    # while two runs are under way
    with Command(tmp_path, *arguments) as command:
        wait_for_checkpoints(command, runs, 3)
        assert command.ctrl_c() == 130
        *ended, last = command.err.splitlines()
        assert last == f"error: {runs}: stopped; the same command goes on from here"
        assert all(re.match(r"\[\d/\d\] ", line) for line in ended)
        wait_for(lambda: not command.members(), "the end of all its processes")
    assert not list(runs.rglob("failure.json"))
    assert not any("Traceback" in line for line in lines_of_logs(runs))
    status = ham("status", runs).out
    assert "2 resumable" in status or "1 done, 1 resumable" in status
    assert ham(*arguments).code == 0
    assert ham("table", runs).out == ham("table", undisturbed).out


@pytest.mark.robust
def test_ctrl_c_leaves_a_run_that_goes_on(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "one.yaml", **SIZES)
    with Command(tmp_path, "run", config, "--out", tmp_path / "runs") as command:
        wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/*.pt")), "a checkpoint")
        assert command.ctrl_c() == 130
    (folder,) = (tmp_path / "runs").iterdir()
    (checkpointed,) = [line for line in command.err.splitlines() if line.startswith("error: ")]
    assert f"{folder}: stopped at step " in checkpointed
    assert checkpointed.endswith(" of 48; the same command resumes it")
    assert "Traceback" not in command.err
    assert "1 resumable" in ham("status", tmp_path / "runs").out
    assert ham("run", config, "--out", tmp_path / "runs").code == 0
    (step,) = resumptions(folder)
    assert f"stopped at step {step} of 48" in checkpointed
    assert ham("run", config, "--out", tmp_path / "whole").code == 0
    assert result(folder) == result(tmp_path / "whole" / folder.name)
