"""What `ham status`, `ham logs` and `ham cancel` say of jobs of a real scheduler, with and without accounting."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, attempts, need, planned, prepare, running, step, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

LONG = {"epochs": 50000}
NOBODY = "nothing to cancel: no job of these runs waits or runs\n"


def look(cluster: Cluster, sweep: Path) -> dict[str, Any]:
    """``ham status --json``."""
    called = cluster.ham("status", sweep, "--json", folder=sweep)
    assert (called.returncode, called.stderr) == (0, "")
    return json.loads(called.stdout)


def counts(cluster: Cluster, sweep: Path) -> dict[str, int]:
    return look(cluster, sweep)["counts"]


def one(cluster: Cluster, sweep: Path, run: Path) -> dict[str, Any]:
    return next(found for found in look(cluster, sweep)["runs"] if found["path"] == str(run))


def say(cluster: Cluster, folder: Path, *arguments: object) -> str:
    called = cluster.ham(*arguments, folder=folder)
    assert (called.returncode, called.stderr) == (0, "")
    return called.stdout


def two_long_runs(cluster: Cluster, folder: Path) -> Path:
    """Submit two runs that will not end by themselves, and wait until both train."""
    prepare(folder, schedule=LONG, sweep={"rows": {"Dense": {}}, "seeds": [0, 1]})
    sweep = cluster.submit(folder)
    wait_for(lambda: all(step(run) > 0 for run in planned(sweep)), "both runs train")
    return sweep


def test_from_the_queue_to_cancelled_and_back(cluster: Cluster, tmp_path: Path) -> None:
    prepare(tmp_path, {"max_running": 2}, schedule=LONG)
    sweep = cluster.submit(tmp_path)
    wait_for(lambda: sum(step(run) > 20 for run in planned(sweep)) == 2, "two runs train")
    found = look(cluster, sweep)
    assert found["counts"] == {"running": 2, "pending": 2}
    for run in found["runs"]:
        if run["state"] == "pending":
            assert run["note"] == "JobArrayTaskLimit"
        else:
            assert run["node"] in ("n0", "n1")
            assert run["step"] > 20
            assert run["left"] > 0
    text = say(cluster, tmp_path, "status", "runs/table")
    assert re.search(r"Dense, seed 0: step \d+ of 300000 \(\d+ %\); .* left; job \d+_0 on n\d", text), text
    assert "RiGL, seed 1: JobArrayTaskLimit; job " in text
    log = say(cluster, tmp_path, "logs", "runs/table", "Dense", "s0")
    assert "==> runs/table/dense-" in log
    assert "_0_0_log.out <==" in log

    begun = next(run for run in planned(sweep) if "dense" in run.name and run.name.endswith("s0"))
    assert say(cluster, tmp_path, "cancel", "runs/table", "Dense", "s0").endswith(
        "; 1 that ran stops at a checkpoint\n"
    )
    wait_for(lambda: one(cluster, sweep, begun)["state"] == "lost", "the cancelled run is over")
    lost = one(cluster, sweep, begun)
    assert lost["note"].startswith("CANCELLED")
    assert lost["checkpoint"] == lost["step"] > 0
    assert say(cluster, tmp_path, "status", "runs/table", "--resubmit", "lost").startswith("1 runs in 1 jobs submitted")
    wait_for(lambda: one(cluster, sweep, begun)["attempts"] == 2, "the run goes on")
    assert one(cluster, sweep, begun)["step"] >= lost["step"]

    assert say(cluster, tmp_path, "cancel", "runs/table").startswith("cancelled 4 jobs of 4 runs: ")
    wait_for(lambda: counts(cluster, sweep) == {"lost": 4}, "all are cancelled")
    notes = {run["note"] for run in look(cluster, sweep)["runs"] if not run["attempts"]}
    # what is cancelled while it waits in an array may leave no record, and here is no accounting
    assert notes <= {"CANCELLED", "its job is gone from the queue; sacct: Slurm accounting storage is disabled"}
    assert say(cluster, tmp_path, "cancel", "runs/table") == NOBODY


def test_a_killed_process_is_counted_as_a_requeue(cluster: Cluster, tmp_path: Path) -> None:
    sweep = two_long_runs(cluster, tmp_path)
    run = planned(sweep)[0]
    os.kill(attempts(run)[0]["pid"], signal.SIGKILL)
    wait_for(lambda: one(cluster, sweep, run)["restarts"] == 1, "the job is requeued")
    assert one(cluster, sweep, run)["state"] in ("pending", "running")
    wait_for(lambda: len(attempts(run)) == 2, "the run goes on")
    text = say(cluster, tmp_path, "status", "runs/table")
    assert text.startswith("table: 2 runs, 0 done, 2 running (1 requeued)")
    assert "; requeued 1 time; job " in text


def test_a_scheduler_that_is_away_for_ten_seconds(cluster: Cluster, tmp_path: Path) -> None:
    sweep = two_long_runs(cluster, tmp_path)
    cluster.control("stop-ctld")
    back = threading.Timer(10, cluster.control, ["start-ctld"])
    back.start()
    found = look(cluster, sweep)
    back.join()
    assert found["scheduler"] == {"asked": True, "problem": None}
    assert found["counts"] == {"running": 2}


def test_a_scheduler_that_is_away_for_long(cluster: Cluster, tmp_path: Path) -> None:
    sweep = two_long_runs(cluster, tmp_path)
    # other hosts' processes are what a login node sees
    for run in planned(sweep):
        path = run / "attempts" / "0001.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "home": None}))
    cluster.control("stop-ctld")
    text = say(cluster, tmp_path, "status", "runs/table")
    assert text.count("The scheduler could not be asked (") == 1
    assert "table: 2 runs, 0 done, 2 unknown" in text
    assert "last step" in text
    called = cluster.ham("cancel", "runs/table", folder=tmp_path)
    assert (called.returncode, called.stdout) == (1, "")
    assert called.stderr.startswith("error: nothing was cancelled; the scheduler says: ")
    cluster.control("start-ctld")
    assert counts(cluster, sweep) == {"running": 2}


def test_with_accounting(tmp_path: Path) -> None:
    need("slurmdbd", "mariadbd")
    with running(ACCOUNTING="slurmdbd") as cluster:
        sweep = two_long_runs(cluster, tmp_path)
        say(cluster, tmp_path, "cancel", "runs/table")
        wait_for(lambda: counts(cluster, sweep) == {"lost": 2}, "both are cancelled")
        by = f"CANCELLED by {os.getuid()}"
        wait_for(lambda: {run["note"] for run in look(cluster, sweep)["runs"]} == {by}, "sacct says who did it", 30)
        assert f"Dense, seed 0: {by}; step " in say(cluster, tmp_path, "status", "runs/table")
