"""States of runs: done, running, resumable, failed, not started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from fake_runs import fail, forget, overridden, result, write_json, write_metrics, write_run, write_sweep

from results.status import render, status
from results.store import read


@pytest.fixture
def sweep(tmp_path):
    rows = {"RiGL": {"topology.name": "rigl"}}
    return write_sweep(tmp_path / "demo", {"RiGL": [0.8] * 4}, rows, [{"topology.sparsity": 0.9}], seeds=range(4))


def interrupt(path, epochs=1):
    (path / "result.json").unlink(missing_ok=True)
    write_metrics(path, 0.5, epochs=epochs)
    (path / "checkpoint.pt").touch()


def lock(path, pid, host=None, **more):
    write_json(path / "lock", {"pid": pid, "host": host or socket.gethostname(), **more})


def states(directory):
    return [run.state for run in status(directory)]


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def started(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[19]


def test_every_state(sweep):
    paths = [run.path for run in read(sweep).runs]
    interrupt(paths[1])
    fail(paths[2], "loss is nan at step 12")
    forget(paths[3])
    found = status(sweep)
    assert [run.state for run in found] == ["done", "resumable", "failed", "not started"]
    assert [(run.step, run.total) for run in found] == [(124, 124), (31, 124), (None, None), (None, None)]
    assert [run.note for run in found] == [None, None, "loss is nan at step 12", None]


def test_a_lock_of_a_live_process_means_running(sweep):
    path = read(sweep).runs[0].path
    interrupt(path, epochs=3)
    lock(path, os.getpid())
    run = status(sweep)[0]
    assert (run.state, run.step, run.total) == ("running", 93, 124)
    lock(path, os.getpid(), started=started(os.getpid()))
    assert states(sweep)[0] == "running"


def test_a_lock_of_a_dead_process_means_nothing(sweep):
    path = read(sweep).runs[0].path
    interrupt(path)
    lock(path, dead_process())
    assert states(sweep)[0] == "resumable"


def test_a_later_process_of_the_same_number_is_another_one(sweep):
    path = read(sweep).runs[0].path
    interrupt(path)
    lock(path, os.getpid(), started="1")
    assert states(sweep)[0] == "resumable"


@pytest.mark.parametrize("pid", [None, "12", True, 0, -1, 2**70])
def test_a_damaged_lock_means_nothing(sweep, pid):
    path = read(sweep).runs[0].path
    interrupt(path)
    lock(path, pid)
    assert states(sweep)[0] == "resumable"
    (path / "lock").write_text("{")
    assert states(sweep)[0] == "resumable"


def test_a_lock_of_another_host_is_said_to_be_one(sweep):
    path = read(sweep).runs[0].path
    interrupt(path)
    lock(path, 1, host="node-17")
    run = status(sweep)[0]
    assert run.state == "elsewhere"
    assert run.note == "locked by node-17, process 1"


def test_a_retry_in_progress_is_running_and_not_failed(sweep):
    path = read(sweep).runs[0].path
    fail(path, "out of memory")
    lock(path, os.getpid())
    assert states(sweep)[0] == "running"


def test_started_without_a_checkpoint_has_nothing_to_resume(sweep):
    path = read(sweep).runs[0].path
    interrupt(path)
    (path / "checkpoint.pt").unlink()
    assert states(sweep)[0] == "not started"


def test_progress_survives_torn_and_long_metrics(sweep):
    path = read(sweep).runs[0].path
    interrupt(path, epochs=2)
    with (path / "metrics.jsonl").open("a") as file:
        for step in range(200):
            file.write(json.dumps({"kind": "event", "event": "update", "step": step}) + "\n")
        file.write('{"kind": "epoch", "epoch": 3, "st')
    assert (status(sweep)[0].step, status(sweep)[0].total) == (62, 124)


def test_progress_without_metrics_or_configuration(sweep):
    path = read(sweep).runs[0].path
    interrupt(path)
    (path / "spec.yaml").unlink()
    assert (status(sweep)[0].step, status(sweep)[0].total) == (31, None)
    (path / "metrics.jsonl").unlink()
    assert (status(sweep)[0].step, status(sweep)[0].total) == (None, None)


def test_a_run_in_several_columns_is_one_run(tmp_path):
    columns = [{"topology.sparsity": value} for value in (0.8, 0.9)]
    write_sweep(tmp_path, {"Dense": [0.9, 0.9]}, {"Dense": {}}, columns, seeds=(0, 1))
    assert states(tmp_path) == ["done", "done"]


def test_a_single_run(tmp_path):
    write_run(tmp_path / "r", overridden({"label": "RiGL"}), result(0.8))
    assert states(tmp_path / "r") == ["done"]
    assert render(tmp_path / "r").startswith("r: 1 run, 1 done\n")


def test_text(sweep):
    paths = [run.path for run in read(sweep).runs]
    interrupt(paths[1])
    fail(paths[2], "loss is nan\nat step 12")
    forget(paths[3])
    assert render(sweep) == (
        "demo: 4 runs, 1 done, 1 resumable, 1 failed, 1 not started\n"
        "\n"
        "Row   done  resumable  failed  not started  of\n"
        "RiGL     1          1       1            1   4\n"
        "\n"
        "resumable:\n"
        "  RiGL, seed 1: step 31 of 124 (25 %)\n"
        "\n"
        "failed:\n"
        "  RiGL, seed 2: loss is nan at step 12"
    )


def test_long_lists_are_cut(tmp_path):
    write_sweep(tmp_path, {"RiGL": [0.8] * 25}, {"RiGL": {"topology.name": "rigl"}}, seeds=range(25))
    for run in read(tmp_path).runs:
        fail(run.path, "no")
    assert render(tmp_path).endswith("RiGL, seed 19: no\n  and 5 more")


def test_a_thousand_runs_take_less_than_two_seconds(tmp_path):
    cells = []
    for number in range(1000):
        path = tmp_path / f"r{number}"
        cells.append({"row": f"R{number % 10}", "column": {}, "seed": number // 10, "identity": "", "path": path.name})
        if number % 2:
            write_json(path / "result.json", result(0.8))
        else:
            write_metrics(path, 0.5)
            (path / "checkpoint.pt").touch()
            (path / "spec.yaml").write_text("schedule: {epochs: 8}\n")
    write_json(tmp_path / "sweep.json", {"name": "big", "cells": cells})
    start = time.process_time()
    text = render(tmp_path)
    assert time.process_time() - start < 2
    assert text.startswith("big: 1000 runs, 500 done, 500 resumable")
