"""`ham status` of a thousand runs, with jobs in every state and a scheduler to ask: what it opens and how much it does.

Both are counted, since seconds would tell how busy this machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from fake_runs import interrupt, result, write_attempt, write_checkpoint, write_heartbeat, write_json, write_submission

RUNS, FEW = 1000, 8
NAME = "ham-big-ab12cd34-0"


COUNTED = """
import sys
from experiments.cli.main import main

calls, opened = 0, 0

def count_call(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")

def count_opened(event, arguments):
    global opened
    opened += event in ("open", "os.listdir", "os.scandir", "subprocess.Popen")

sys.argv = ["ham", "status", sys.argv[1]]
sys.addaudithook(count_opened)
sys.setprofile(count_call)
try:
    main()
finally:
    sys.setprofile(None)
    print(calls, opened, file=sys.stderr)
"""


def squeue_line(task: int, state: str, started: float) -> str:
    widths = (48, 24, 256, 24, 96, 12, 256, 24, 24, 24, 24, 12)
    node, when = ("n0", f"{started:.0f}") if state == "RUNNING" else ("", "N/A")
    values = (f"12_{task}", "12", NAME, state, "None", "0", node, "UNLIMITED", "900", when, "N/A", "0")
    return "".join(value.ljust(width) for value, width in zip(values, widths, strict=True))


def sweep(folder, runs):
    """A quarter done, a quarter running, a quarter waiting; the last is stopped, failed, lost."""
    directory, now, lines, cells, tasks = folder / "big", time.time(), [], [], []
    for number in range(runs):
        path = directory / f"r{number}"
        cells.append({"row": f"R{number % 10}", "column": {}, "seed": number // 10, "identity": "", "path": path.name})
        tasks.append([path.name])
        if number % 4 == 0:
            write_attempt(path, job=f"12_{number}", ended=1.0, reason="done")
            write_json(path / "result.json", result(0.8, number // 10))
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
    for number in range(runs):
        (logs / f"12_{number}_0_log.out").write_text("x\n")
    (folder / "bin").mkdir(parents=True)
    (folder / "queue").write_text("\n".join(lines) + "\n")
    for name, body in (("squeue", f"exec cat {folder}/queue"), ("sacct", "echo disabled >&2; exit 1")):
        (folder / "bin" / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/calls\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    return directory


def counted(directory):
    """What `ham status` says, how many calls it makes, and how many files it opens."""
    env = {**os.environ, "PATH": f"{directory.parent / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", COUNTED, directory]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout, *map(int, done.stderr.split())


def test_a_run_costs_a_bounded_number_of_calls_and_of_opened_files(tmp_path):
    """Both beyond what a sweep of few runs costs, which is the start of the command."""
    few, many = (sweep(tmp_path / str(runs), runs) for runs in (FEW, RUNS))
    _, calls_of_few, opened_of_few = counted(few)
    text, calls, opened = counted(many)
    assert text.startswith("big: 1000 runs, 250 done, 250 running, 250 pending, 125 failed, 125 lost; those that run")
    assert calls - calls_of_few < 760 * (RUNS - FEW)
    assert opened - opened_of_few < 8 * (RUNS - FEW)
    assert (many.parent / "calls").read_text().split() == ["squeue", "sacct"]
