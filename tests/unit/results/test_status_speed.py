"""`ham status` of a thousand runs, with jobs in every state and a scheduler to ask, within two seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import interrupt, result, write_attempt, write_checkpoint, write_heartbeat, write_json, write_submission

HAM = Path(sys.executable).with_name("ham")
RUNS = 1000
NAME = "ham-big-ab12cd34-0"


def seconds(*command: object, env: dict[str, str] | None = None) -> tuple[float, str]:
    """Duration of a command and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env, check=True)
    return time.perf_counter() - begun, done.stdout


def squeue_line(task: int, state: str, started: float) -> str:
    widths = (48, 24, 256, 24, 96, 12, 256, 24, 24, 24, 24, 12)
    node, when = ("n0", f"{started:.0f}") if state == "RUNNING" else ("", "N/A")
    values = (f"12_{task}", "12", NAME, state, "None", "0", node, "UNLIMITED", "900", when, "N/A", "0")
    return "".join(value.ljust(width) for value, width in zip(values, widths, strict=True))


@pytest.fixture
def big(tmp_path):
    """A quarter done, a quarter running, a quarter waiting; the last is stopped, failed, lost."""
    directory, now, lines, cells, tasks = tmp_path / "big", time.time(), [], [], []
    for number in range(RUNS):
        path = directory / f"r{number}"
        cells.append({"row": f"R{number % 10}", "column": {}, "seed": number // 10, "identity": "", "path": path.name})
        tasks.append([path.name])
        if number % 4 == 0:
            write_attempt(path, job=f"12_{number}", ended=1.0, reason="done")
            write_json(path / "result.json", result(0.8))
        elif number % 4 == 1:
            write_attempt(path, job=f"12_{number}", time=now - 100)
            for step in range(100):
                with (path / "ledger.jsonl").open("a") as file:
                    file.write(json.dumps({"attempt": 1, "event": "checkpoint", "step": step, "time": now}) + "\n")
            write_heartbeat(path, 50, seconds=now)
            write_checkpoint(path, 50)
            lines.append(squeue_line(number, "RUNNING", now))
        elif number % 4 == 2:
            lines.append(squeue_line(number, "PENDING", now))
        else:
            interrupt(path, job=f"12_{number}", ended=1.0, reason="stopped")
            if number % 8 == 3:
                write_json(path / "failure.json", {"status": "failed", "error": "loss is nan"})
    write_json(directory / "sweep.json", {"name": "big", "cells": cells})
    logs = write_submission(directory, tasks)
    for number in range(RUNS):
        (logs / f"12_{number}_0_log.out").write_text("x\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "queue").write_text("\n".join(lines) + "\n")
    for name, body in (("squeue", f"exec cat {tmp_path}/queue"), ("sacct", "echo disabled >&2; exit 1")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/calls\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return directory


def test_a_thousand_runs_take_less_than_two_seconds(big):
    env = {**os.environ, "PATH": f"{big.parent / 'bin'}:{os.environ['PATH']}"}
    taken = []
    for _ in range(5):  # a busy machine is not the command's fault, and slows down bare help as well
        help_takes, _ = seconds(HAM, "--help")
        status_takes, text = seconds(HAM, "status", big, env=env)
        taken.append(status_takes - max(0.0, help_takes - 0.4))
        if taken[-1] < 2:
            break
    assert text.startswith("big: 1000 runs, 250 done, 250 running, 250 pending, 125 failed, 125 lost; those that run")
    assert min(taken) < 2, taken
    assert (big.parent / "calls").read_text().split() == ["squeue", "sacct"] * len(taken)
