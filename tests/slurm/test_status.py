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
    value = json.loads(called.stdout)
    bad = value["counts"].keys() & {"failed", "lost", "never submitted"}
    assert (called.returncode, called.stderr) == (int(bool(bad)), "")
    return value


def counts(cluster: Cluster, sweep: Path) -> dict[str, int]:
    return look(cluster, sweep)["counts"]


def one(cluster: Cluster, sweep: Path, run: Path) -> dict[str, Any]:
    return next(found for found in look(cluster, sweep)["runs"] if found["path"] == str(run))


def say(cluster: Cluster, folder: Path, *arguments: object) -> str:
    called = cluster.ham(*arguments, folder=folder)
    assert (called.returncode, called.stderr) == (0, "")
    return called.stdout


def two_long_runs(cluster: Cluster, folder: Path, **profile: Any) -> Path:
    """Submit two runs that will not end by themselves, and wait until both train."""
    prepare(folder, profile, schedule=LONG, sweep={"rows": {"Dense": {}}, "seeds": [0, 1]})
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
            assert run["note"].startswith("JobArrayTaskLimit: ")
        else:
            assert run["node"] in ("n0", "n1")
            assert run["step"] > 20
            assert run["left"] > 0
    text = say(cluster, tmp_path, "status", "runs/table")
    assert re.search(r"Dense, seed 0: step \d+ of 300000 \(\d+ %\); .* left; job \d+_0 on n\d", text), text
    assert "RiGL, seed 1: JobArrayTaskLimit: as many jobs of its array run as `max_running` allows; job " in text
    log = say(cluster, tmp_path, "logs", "runs/table", "Dense", "s0")
    assert "==> runs/table/dense-" in log
    assert "_0_0_log.out <==" in log

    begun = next(run for run in planned(sweep) if "dense" in run.name and run.name.endswith("s0"))
    assert say(cluster, tmp_path, "cancel", "runs/table", "Dense", "s0").endswith(
        "; 1 that ran stops at a checkpoint\n"
    )
    wait_for(lambda: one(cluster, sweep, begun)["state"] == "cancelled", "the cancelled run is over")
    gone = one(cluster, sweep, begun)
    assert gone["note"].startswith("CANCELLED")
    assert gone["checkpoint"] == gone["step"] > 0
    again = ("status", "runs/table", "Dense", "--resubmit")
    assert say(cluster, tmp_path, *again, "lost") == "no run of those that Dense fits is lost; nothing was submitted\n"
    assert say(cluster, tmp_path, *again, "cancelled").startswith("1 runs in 1 jobs submitted")
    # `max_running` holds for the whole sweep, so it waits until those under way are over
    waits = one(cluster, sweep, begun)
    assert (waits["state"], waits["attempts"]) == ("pending", 1)
    assert waits["note"].startswith("Dependency: ")

    assert say(cluster, tmp_path, "cancel", "runs/table").startswith("cancelled 4 jobs of 4 runs: ")
    # what is cancelled while it waits in an array may leave no trace in the queue, and here is no accounting
    wait_for(lambda: counts(cluster, sweep) == {"cancelled": 4}, "all are cancelled")
    assert all(run["note"].startswith("CANCELLED by `ham cancel`, ") for run in look(cluster, sweep)["runs"])
    assert say(cluster, tmp_path, "cancel", "runs/table") == NOBODY


def test_what_an_administrator_does_to_a_job_is_said(cluster: Cluster, tmp_path: Path) -> None:
    sweep = two_long_runs(cluster, tmp_path, mail="me@lab.org")
    first, second = planned(sweep)
    jobs = {run: one(cluster, sweep, run)["job"] for run in (first, second)}
    cluster.ask("scontrol", "suspend", jobs[first])
    cluster.ask("scontrol", "requeuehold", jobs[second])
    wait_for(lambda: counts(cluster, sweep) == {"suspended": 1, "held": 1}, "one is suspended, one held")
    assert one(cluster, sweep, first)["note"].startswith("SUSPENDED: ")
    assert f"`scontrol release {jobs[second]}` lets it go" in one(cluster, sweep, second)["note"]
    waited = cluster.ham("wait", "runs/table", "--timeout", "1", "--every", "1", folder=tmp_path)
    assert (waited.returncode, waited.stderr) == (124, "")
    assert "runs/table: 1 suspended, 1 held\n" in waited.stdout
    cluster.ask("scontrol", "resume", jobs[first])
    wait_for(lambda: counts(cluster, sweep) == {"running": 1, "held": 1}, "one goes on")
    say(cluster, tmp_path, "cancel", "runs/table", "s1")
    cluster.ask("scancel", jobs[first])
    waited = cluster.ham("wait", "runs", "--every", "1", folder=tmp_path)
    assert (waited.returncode, waited.stderr) == (1, "")
    assert waited.stdout.endswith("runs/table: 2 cancelled\n")
    sent = cluster.folder / "log" / "mail.txt"
    wait_for(lambda: sent.exists() and " me@lab.org" in sent.read_text(), "one e-mail at the end")
    assert re.fullmatch(
        r"-s Slurm Job_id=\d+ Name=ham-end-table-\w+ Failed, .* ExitCode 1 me@lab.org\n", sent.read_text()
    )
    assert cluster.ham("status", "runs/table", folder=tmp_path).returncode == 0


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
        wait_for(lambda: counts(cluster, sweep) == {"cancelled": 2}, "both are cancelled")
        by = f"CANCELLED by {os.getuid()}"
        wait_for(lambda: {run["note"] for run in look(cluster, sweep)["runs"]} == {by}, "sacct says who did it", 30)
        assert f"Dense, seed 0: {by}; step " in say(cluster, tmp_path, "status", "runs/table")
