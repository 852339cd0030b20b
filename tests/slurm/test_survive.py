"""What a cluster does to jobs changes nothing: the results are bit-equal to those of an undisturbed run.

The runs of one table wait at a step each, and each is then struck in its own way; so the waits of one minute that Slurm
has here and there are waited once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from clusters import TINY, Cluster, attempts, ledger, logs, planned, prepare, records, wait_for
from tables import ACDC, RANDOM, RIGL, STR, Table, assert_in_order, reasons

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

RIGL_UPDATE, ACDC_BOUNDARY = 8, 5  # an update every four steps; 10 % of 60 steps is the end of the first dense phase


def test_each_of_many_deaths(cluster: Cluster, table: Any) -> None:
    rows = {
        "update": RIGL,  # USR2 while a step is an update of RiGL's
        "boundary": ACDC,  # USR2 at a phase boundary
        "early": {**RANDOM, "optimizer.lr": 0.05},  # USR2 before the first checkpoint
        "twice": {**RANDOM, "optimizer.lr": 0.04},  # USR2 twice in a row, and once more in the second attempt
        "requeued": {**RIGL, "optimizer.lr": 0.05},  # scontrol requeue, with time to save
        "torn": {**ACDC, "optimizer.lr": 0.05},  # scontrol requeue, without
        "killed": STR,  # SIGKILL of the task
        "cancelled": {**RIGL, "optimizer.lr": 0.04},  # scancel, then submitted again
        "limit": {**RANDOM, "optimizer.lr": 0.03, "resources.hours": 1 / 60},  # one minute
    }
    held = {
        "update": RIGL_UPDATE,
        "boundary": ACDC_BOUNDARY,
        "early": 2,
        "twice": 13,
        "requeued": 17,
        "torn": 22,
        "killed": 33,
        "cancelled": 28,
    }
    made: Table = table(rows, {"signal_seconds": 30})
    for row, at in held.items():
        made.hold(row, at)
    (made.gate("limit") / "idle").write_text("7")
    cluster.submit(made.folder)
    for row, at in held.items():
        made.wait_at(row, at)
    cancelled = made.job("cancelled")
    for row in ("update", "boundary", "early", "twice", "twice"):
        made.warn(row)
    made.hold("twice", 15)  # lets it go on, stop after this step, and wait again in its next attempt
    cluster.ask("scontrol", "requeue", made.job("requeued"))
    cluster.ask("scontrol", "requeue", made.job("torn"))
    os.kill(attempts(made.run("killed"))[-1]["pid"], signal.SIGKILL)
    cluster.ask("scancel", cancelled)
    time.sleep(0.5)
    for row in ("update", "boundary", "early", "requeued", "killed"):
        made.release(row)
    wait_for(lambda: cluster.states(made.sweep)[cancelled] == "CANCELLED", "the end of the cancelled job", 60)
    made.release("torn")  # killed meanwhile
    made.release("cancelled")
    said = cluster.ham("status", made.sweep, folder=made.folder)
    assert "1 cancelled" in said.stdout, said
    again = cluster.ham("status", made.sweep, "--resubmit", "cancelled", folder=made.folder)
    assert again.returncode == 0, again.stderr
    assert "1 runs in 1 jobs submitted" in again.stdout
    made.wait_at("twice", 15)
    made.warn("twice")
    made.release("twice")
    cluster.wait_until_done(made.sweep, 180)
    made.assert_equal()
    assert [record["step"] for record in ledger(made.run("update"), "start")] == [0, RIGL_UPDATE + 1]
    assert [record["step"] for record in ledger(made.run("boundary"), "start")] == [0, ACDC_BOUNDARY + 1]
    assert [record["step"] for record in ledger(made.run("early"), "start")] == [0, 3]
    assert [record["step"] for record in ledger(made.run("twice"), "start")] == [0, 14, 16]
    assert reasons(made.run("requeued")) == ["stopped", "done"]
    assert reasons(made.run("torn")) == ["done"]
    assert reasons(made.run("killed")) == ["done"]
    assert [record["step"] for record in ledger(made.run("killed"), "start")] == [0, 30]
    assert [record["step"] for record in ledger(made.run("torn"), "lost")] == [22]
    assert len({attempt["job"] for attempt in attempts(made.run("cancelled"))}) == 2
    # Slurm warns up to a minute early and looks every 30 s, so it may have warned before step 7, too
    assert set(reasons(made.run("limit"))[:-1]) == {"stopped"}
    assert 8 in [record["step"] for record in ledger(made.run("limit"), "start")]
    assert all(attempt["node"] in ("n0", "n1") for run in planned(made.sweep) for attempt in attempts(run))


def test_a_job_on_two_nodes_survives_the_death_of_one(cluster: Cluster, table: Any) -> None:
    """Four ranks train with DDP; slurmd, stepd and tasks of a node are killed, and the job starts again elsewhere."""
    profile = {"nodes": 2, "ranks_per_node": 2}
    made: Table = table({"ranks": RIGL}, profile, data={**TINY["data"], "batch_size": 20}, schedule={"epochs": 4})
    made.hold("ranks", 23)
    cluster.submit(made.folder)
    made.wait_at("ranks", 23, ranks=4)
    cluster.control("kill-node", "1")
    cluster.ask("scontrol", "update", "nodename=n1", "state=down", "reason=dead")
    made.release("ranks")
    cluster.control("start-node", "1")
    cluster.wait_until_done(made.sweep, 180)
    struck = made.run("ranks")
    assert [record["ranks"] for record in ledger(struck, "start")] == [4, 4]
    assert ledger(struck, "start")[1]["step"] == 20
    assert_in_order(struck)
    # four ranks sum in another order than one; so the comparison is with four ranks in peace, at the same settings
    whole = four_in_peace(cluster, made)
    assert (struck / "weights.pt").read_bytes() == (whole / struck.name / "weights.pt").read_bytes()


def four_in_peace(cluster: Cluster, made: Table) -> Path:
    """The same table with four ranks again, in another folder."""
    folder = made.folder / "again"
    folder.mkdir()
    for name in ("table.yaml", "pace.py"):
        shutil.copy(made.folder / name, folder)
    shutil.copytree(made.folder / "profiles", folder / "profiles")
    sweep = cluster.submit(folder)
    cluster.wait_until_done(sweep, 180)
    return sweep


def test_a_crash_loop_ends_with_a_reason(cluster: Cluster, table: Any) -> None:
    made: Table = table({"loop": RANDOM, "well": RIGL}, {"max_restarts": 2})
    gate = made.gate("loop")
    (gate / "crash").write_text("7")
    cluster.submit(made.folder)
    run = made.run("loop")
    wait_for(lambda: (run / "failure.json").exists(), "the end of the loop", 180)
    failure = json.loads((run / "failure.json").read_text())["error"]
    assert "2 attempts of job" in failure
    assert "in a row crashed without progress; the last lines: " in failure
    assert failure.endswith("the library of this test has given up")
    assert (made.run("well") / "result.json").exists()
    wait_for(lambda: set(cluster.states(made.sweep).values()) <= {"COMPLETED", "FAILED"}, "the end of the jobs", 30)
    said = cluster.ham("status", made.sweep, folder=made.folder).stdout
    assert "1 failed" in said
    assert "without progress" in said
    (gate / "crash").unlink()
    again = cluster.ham("status", made.sweep, "--resubmit", "failed", folder=made.folder)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: (run / "result.json").exists(), "the run", 120)
    made.assert_equal()


def test_without_scontrol_on_the_node_the_job_ends_well_and_is_resubmitted(cluster: Cluster, table: Any) -> None:
    made: Table = table({"bare": RIGL})
    bare = made.folder / "bin"
    bare.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if program.name != "scontrol" and not (bare / program.name).exists():
                (bare / program.name).symlink_to(program)
    prepare_profile(made.folder, {"setup": [f"export PATH={bare}"]})
    made.hold("bare", 11)
    cluster.submit(made.folder)
    made.wait_at("bare", 11)
    job = made.job("bare")
    made.warn("bare")
    time.sleep(0.3)
    made.release("bare")
    wait_for(lambda: cluster.states(made.sweep).get(job) == "COMPLETED", "the end of the job", 60)
    assert "--resubmit lost" in logs(made.sweep)
    assert reasons(made.run("bare")) == ["stopped"]
    again = cluster.ham("status", made.sweep, "--resubmit", "lost", folder=made.folder)
    assert again.returncode == 0, again.stderr
    cluster.wait_until_done(made.sweep)
    made.assert_equal()


def prepare_profile(folder: Path, profile: dict[str, Any]) -> None:
    path = folder / "profiles/test.yaml"
    text = path.read_text()
    path.write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in profile.items()))


def test_forty_tiny_jobs(cluster: Cluster, table: Any) -> None:
    """All finish, each run once, and `status` adds up all the while."""
    seeds = list(range(20))
    folder = Path(table({"Dense": {}}, schedule={"epochs": 1}).folder)
    prepare(
        folder,
        {"setup": ["export HAM_TEST_PACE=0"]},
        schedule={"epochs": 1},
        sweep={"rows": {"Dense": {}, "Random": RANDOM}, "seeds": seeds},
    )
    sweep = cluster.submit(folder)
    begun = time.monotonic()
    while not all((run / "result.json").exists() for run in planned(sweep)):
        assert time.monotonic() - begun < 400, logs(sweep)[-2000:]
        before = sum((run / "result.json").exists() for run in planned(sweep))
        said = cluster.ham("status", sweep, "--json", folder=folder)
        after = sum((run / "result.json").exists() for run in planned(sweep))
        assert said.returncode == 0, said.stderr
        states = [run["state"] for run in json.loads(said.stdout)["runs"]]
        assert len(states) == 40
        assert before <= states.count("done") <= after
        assert set(states) <= {"done", "running", "pending"}
        time.sleep(3)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"COMPLETED"}, "the end of the jobs", 60)
    assert len(planned(sweep)) == 40
    assert all(len(attempts(run)) == 1 for run in planned(sweep))
    (record,) = records(sweep)
    assert sum(len(array["tasks"]) for array in record["arrays"]) == 40
