"""What a cluster does to jobs changes nothing: the results are bit-equal to those of an undisturbed run.

The runs of one table wait at a step each, and each is then struck in its own way; so the waits of one minute that Slurm
has here and there are waited once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import TINY, Cluster, attempts, ledger, logs, planned, prepare, records, step, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

# 300 images in batches of 25: 12 steps an epoch, 60 in all
SIZES: dict[str, Any] = {
    "imports": ["pace"],
    "data": {**TINY["data"], "batch_size": 25},
    "schedule": {"epochs": 5},
    "checkpoint": {"every_steps": 5},
}
RANDOM = {"topology": {"name": "random", "sparsity": 0.9}, "optimizer.ham": {"alpha": 5.0}}
RIGL = {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 4}, "optimizer.ham": {"alpha": 5.0}}
ACDC = {"topology": {"name": "acdc", "allocation": "erk", "sparsity": 0.9}, "representation.name": "sign_in"}
STR = {
    "representation": {"name": "str", "initial_threshold": -4.0, "threshold_decay": 0.1},
    "topology.sparsity": 0.5,
    "checks.events": {"threshold": {"at_least": 1}},
}
RIGL_UPDATE, ACDC_BOUNDARY = 8, 5  # an update every four steps; 10 % of 60 steps is the end of the first dense phase


@dataclass(frozen=True)
class Table:
    """A table on the cluster, and the same one trained in peace on this machine."""

    cluster: Cluster
    folder: Path
    sweep: Path
    peace: Path

    def run(self, row: str) -> Path:
        """The run folder of a row of one seed."""
        cells = json.loads((self.peace / "sweep.json").read_text())["cells"]
        (path,) = {cell["path"] for cell in cells if cell["row"] == row}
        return self.sweep / path

    def job(self, row: str) -> str:
        """The job that carries a row now."""
        return attempts(self.run(row))[-1]["job"]

    def gate(self, row: str) -> Path:
        gate = self.folder / "runs/gates" / self.run(row).name
        gate.mkdir(parents=True, exist_ok=True)
        return gate

    def hold(self, row: str, step: int) -> None:
        (self.gate(row) / "hold").write_text(str(step))

    def release(self, row: str) -> None:
        (self.gate(row) / "hold").unlink(missing_ok=True)

    def wait_at(self, row: str, step: int, ranks: int = 1) -> None:
        reached = [self.gate(row) / f"reached-{step}-{rank}" for rank in range(ranks)]
        wait_for(lambda: all(path.exists() for path in reached), f"{row} at step {step}")

    def warn(self, row: str) -> None:
        self.cluster.ask("scancel", "--signal=USR2", self.job(row))

    def assert_equal(self) -> None:
        """All results are those of the runs in peace, and the ledgers are in order."""
        for run in planned(self.sweep):
            undisturbed = self.peace / run.name
            assert (run / "weights.pt").read_bytes() == (undisturbed / "weights.pt").read_bytes(), run.name
            one, other = (json.loads((path / "result.json").read_text()) for path in (run, undisturbed))
            passing = dict.fromkeys(("seconds", "checksum", "files"))  # metrics hold seconds
            assert one | passing == other | passing
            assert_in_order(run)
        tables = [
            self.cluster.ham("table", path, "--format", "csv", folder=self.folder) for path in (self.sweep, self.peace)
        ]
        assert tables[0].returncode == 0, tables[0].stderr
        assert tables[0].stdout == tables[1].stdout


def assert_in_order(run: Path, interval: int = 5) -> None:
    """Attempts follow each other, each from the last checkpoint, and repeat no more than lies between two."""
    at, digest, last, ended = 0, None, 0, 0.0
    for number, attempt in enumerate(attempts(run), 1):
        assert attempt["attempt"] == number
        assert attempt["time"] >= ended, "two attempts at the same time"
        ended = attempt.get("ended", attempt["time"])
    seen = 0
    for record in ledger(run):
        assert record["attempt"] >= seen or record["event"] == "lost"
        if record["event"] == "start":
            seen = record["attempt"]
            resumed = record["step"], record["checkpoint"]
            # a process may be killed when a checkpoint is on the disk and before that is noted
            assert resumed == (at, digest) or at < record["step"] <= last
            assert 0 <= last - record["step"] <= interval, "more was repeated than lies between two checkpoints"
        elif record["event"] == "checkpoint":
            at, digest = record["step"], record["checkpoint"]
            last = max(last, at)
        else:
            last = max(last, record["step"])
    started = [record["attempt"] for record in ledger(run, "start")]
    over = [record["attempt"] for record in ledger(run) if record["event"] in ("end", "lost")]
    assert started == over, "each attempt that began has ended or was noted as lost"


@pytest.fixture
def table(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """Makes a table: rows to overrides, trained in peace at once; submit it with `cluster.submit(table.folder)`."""
    shutil.copy(Path(__file__).with_name("pace.py"), tmp_path)

    def make(rows: dict[str, Any], profile: dict[str, Any] | None = None, **sections: Any) -> Table:
        folder = prepare(tmp_path, profile, sweep={"rows": rows, "seeds": [0]}, **{**SIZES, **sections})
        called = cluster.ham("sweep", "table.yaml", "--out", "peace", folder=folder)
        assert called.returncode == 0, called.stderr
        return Table(cluster, folder, folder / "runs/table", folder / "peace/table")

    yield make
    shutil.rmtree(tmp_path / "runs/gates", ignore_errors=True)  # nobody is held any longer


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
    assert "lost" in said.stdout, said
    again = cluster.ham("status", made.sweep, "--resubmit", "lost", folder=made.folder)
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


def reasons(run: Path) -> list[str]:
    """How the attempts of a run ended that could say it."""
    return [record["reason"] for record in ledger(run, "end")]


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


def test_twenty_kills_at_random_moments(cluster: Cluster, table: Any) -> None:
    draw = random.Random(7)
    rows = {
        "dense": {"optimizer.ham": {"alpha": 5.0}},
        "random": RANDOM,
        "acdc": {"topology": {"name": "acdc", "allocation": "erk", "sparsity": 0.9}, "optimizer.ham": {"alpha": 5.0}},
        "acdc-sign-in": ACDC,
        "rigl": RIGL,
        "rigl-product": {"topology": RIGL["topology"], "representation.name": "product"},
        "str": STR,
        "adamw": {**RANDOM, "optimizer.name": "adamw", "optimizer.lr": 0.01},
    }
    made: Table = table(rows, {"setup": ["export HAM_TEST_PACE=0.15"], "max_restarts": 20})
    cluster.submit(made.folder)
    plans: dict[tuple[str, int], int] = {}  # row and attempt -> steps of that attempt after which it is killed
    killed: set[tuple[str, int]] = set()
    saved: list[bool] = []  # whether there was a checkpoint

    def kill_who_is_due() -> bool:
        assert not all((made.run(row) / "result.json").exists() for row in rows), f"done after {len(killed)} kills"
        for row in rows:
            if not under_way(made.run(row)):
                continue
            attempt = attempts(made.run(row))[-1]
            key = row, attempt["attempt"]
            # one in five while it starts; the others wherever they are after so many steps, and a moment; a first
            # attempt lives beyond its first checkpoint
            starting = attempt["attempt"] > 1 and draw.random() < 0.2
            plan = plans.setdefault(key, 0 if starting else draw.randint(6, 22))
            begun = [record["step"] for record in ledger(made.run(row), "start") if record["attempt"] == key[1]]
            due = plan == 0 or (bool(begun) and step(made.run(row)) >= begun[0] + plan)
            if due and key not in killed and len(killed) < 20:
                time.sleep(draw.uniform(0, 0.1))
                with suppress(ProcessLookupError):  # done meanwhile
                    os.kill(attempt["pid"], signal.SIGKILL)
                    killed.add(key)
                    saved.append(any((made.run(row) / "checkpoints").glob("*.pt")))
        return len(killed) >= 20

    wait_for(kill_who_is_due, "twenty kills", 300)
    cluster.wait_until_done(made.sweep, 240)
    made.assert_equal()
    lost = [record for row in rows for record in ledger(made.run(row), "lost")]
    resumed = [record["step"] for row in rows for record in ledger(made.run(row), "start") if record["attempt"] > 1]
    assert len(lost) >= 10, "the others died while they started"
    assert 2 * sum(saved) >= len(killed)
    assert all(first > 0 for first in resumed)


def under_way(run: Path) -> bool:
    """Whether an attempt has begun that has not ended."""
    found = attempts(run)
    return bool(found) and "ended" not in found[-1] and Path(f"/proc/{found[-1]['pid']}").exists()


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


def test_a_hundred_tiny_jobs(cluster: Cluster, table: Any) -> None:
    """All finish, each run once, and `status` adds up all the while."""
    seeds = list(range(50))
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
        assert len(states) == 100
        assert before <= states.count("done") <= after
        assert set(states) <= {"done", "running", "pending"}
        time.sleep(3)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"COMPLETED"}, "the end of the jobs", 60)
    assert len(planned(sweep)) == 100
    assert all(len(attempts(run)) == 1 for run in planned(sweep))
    (record,) = records(sweep)
    assert sum(len(array["tasks"]) for array in record["arrays"]) == 100
