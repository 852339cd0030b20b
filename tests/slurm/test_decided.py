"""What a submission decides, on a real scheduler: limits of the cluster, throttles of the sweep, the code of a job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, logs, names, need, planned, prepare, records, running, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

SWEEP = ("sweep", "table.yaml", "--cluster", "slurm", "--profile", "test")
CLASSES = {"rows": {"Dense": {}, "Long": {"optimizer.lr": 0.03, "resources.hours": 0.5}}, "seeds": [0, 1, 2, 3]}


def stub(folder: Path, seconds: float) -> Path:
    """A Python that only takes its time; its jobs fail."""
    path = folder / "stub"
    path.write_text(f"#!/bin/sh\nsleep {seconds}\nexit 1\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def strict() -> Iterator[Cluster]:
    """A cluster that keeps accounts and demands that their limits hold."""
    need("slurmdbd", "mariadbd")
    with running(ACCOUNTING="slurmdbd") as cluster:
        yield cluster


def test_a_wrong_account_is_refused(strict: Cluster, tmp_path: Path) -> None:
    called = strict.ham(*SWEEP, folder=prepare(tmp_path, {"account": "nobody"}))
    assert called.returncode == 2
    assert "Invalid account or account/partition combination" in called.stderr
    assert len(called.stderr.strip().splitlines()) == 1


def test_a_limit_on_submitted_jobs_is_used_up_and_told(strict: Cluster, tmp_path: Path) -> None:
    user = strict.ask("id", "-un").strip()
    limit = ("sacctmgr", "-i", "modify", "user", user, "set")
    strict.ask(*limit, "MaxSubmitJobs=5")
    folder = prepare(tmp_path, {"python": str(stub(tmp_path, 1))}, sweep=CLASSES)
    strict.ask("scontrol", "update", "nodename=n[0-1]", "state=drain", "reason=test")
    limits = ("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=MaxSubmit")
    wait_for(lambda: "5" in strict.ask(*limits), "the limit", 20)
    called = strict.ham(*SWEEP, folder=folder)
    assert called.returncode == 1
    assert "5 runs in 5 jobs submitted (" in called.stderr
    assert "AssocMaxSubmitJobLimit" in called.stderr
    assert "goes on with the 3 runs that were not accepted" in called.stderr
    sweep = folder / "runs/table"
    assert len(strict.states(sweep)) == 5
    told = strict.ham("status", sweep, folder=folder).stdout
    assert "5 pending" in told
    assert "3 never submitted" in told
    again = strict.ham(*SWEEP, folder=folder)
    assert again.returncode == 1
    assert "nothing was submitted: the same command" in again.stderr
    strict.ask(*limit, "MaxSubmitJobs=-1")
    wait_for(lambda: strict.ham(*SWEEP, folder=folder).stdout.startswith("3 runs in 3 jobs submitted"), "the rest", 60)
    assert len(strict.states(sweep)) == 8


def test_a_sweep_holds_its_throttle_and_the_queue_names_rows(cluster: Cluster, tmp_path: Path) -> None:
    """Over two classes of resources and a second submission, as jobs end in whatever order."""
    profile = {"max_running": 2, "python": str(stub(tmp_path, 1))}
    folder = prepare(tmp_path, profile, sweep={**CLASSES, "seeds": [0, 1]})
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=drain", "reason=test")
    cluster.submit(folder, "--limit", 3)
    sweep = cluster.submit(folder)  # the fourth
    assert len(cluster.states(sweep)) == 4
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=resume")
    most, seen = 0, set[str]()

    def ended() -> bool:
        nonlocal most
        lines = cluster.ask("squeue", "-h", "-r", "-t", "all", "-o", "%T|%k|%j").splitlines()
        jobs = [line.split("|") for line in lines if line.rpartition("|")[2] in names(sweep)]
        most = max(most, [state for state, *_ in jobs].count("RUNNING"))
        seen.update(comment for state, comment, _ in jobs if state == "RUNNING")
        return {state for state, *_ in jobs} == {"FAILED"}

    wait_for(ended, "four jobs, two at a time")
    assert most == 2
    assert {"Dense s0", "Long s0", "Dense s1", "Long s1"} & seen
    assert len(records(sweep)) == 2


def test_a_job_does_not_run_other_code_than_it_was_submitted_with(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path, sweep={"rows": {"Dense": {}}, "seeds": [0]})
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=drain", "reason=test")
    sweep = cluster.submit(folder)
    (snapshot,) = (folder / "runs/.snapshots").iterdir()
    (snapshot / "sparsity/__init__.py").unlink()
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=resume")
    wait_for(lambda: set(cluster.states(sweep).values()) == {"FAILED"}, "the end of the job", 60)
    assert f"the code of this job, {snapshot}, was changed or removed" in logs(sweep)
    assert not any((run / "spec.yaml").exists() for run in planned(sweep))
    shutil.rmtree(snapshot)
    again = cluster.ham("status", sweep, "--resubmit", "lost", folder=tmp_path)
    assert again.stdout.startswith("1 runs in 1 jobs submitted"), again
    cluster.wait_until_done(sweep)
