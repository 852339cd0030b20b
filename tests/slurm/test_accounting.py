"""Hours that a real scheduler's accounting knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clusters import need, planned, prepare, running, step, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def test_all_starts_of_a_requeued_job_count(tmp_path: Path) -> None:
    need("slurmdbd", "mariadbd")
    with running(ACCOUNTING="slurmdbd") as cluster:
        prepare(tmp_path, {"cpus_per_rank": 2}, schedule={"epochs": 50000}, sweep={"rows": {"Dense": {}}, "seeds": [0]})
        sweep = cluster.submit(tmp_path)
        (run,) = planned(sweep)
        wait_for(lambda: step(run) > 0, "the run trains")
        (job,) = cluster.states(sweep)
        cluster.ask("scontrol", "requeue", job)
        wait_for(lambda: len(list((run / "attempts").iterdir())) == 2, "it goes on")
        wait_for(lambda: step(run) > 0, "it trains again")
        cluster.ask("scancel", job)
        wait_for(lambda: not cluster.ask("squeue", "-h"), "an empty queue", 60)

        def accounted() -> list[int]:
            lines = cluster.ask("sacct", "-nPXD", "-j", job, "-o", "ElapsedRaw,End").splitlines()
            return [int(seconds) for seconds, end in (line.split("|") for line in lines) if end != "Unknown"]

        wait_for(lambda: len(accounted()) == 2, "both starts are accounted for", 30)
        called = cluster.ham("hours", "runs/table", "--json", folder=tmp_path)
        assert (called.returncode, called.stderr) == (0, "")
        found, seconds = json.loads(called.stdout), accounted()
    assert found["total"] == {
        **{"runs": 1, "done": 0, "starts": 2, "sources": ["accounting"]},
        "hours": pytest.approx(sum(seconds) / 3600),
        "cpu_hours": pytest.approx(2 * sum(seconds) / 3600),
        "gpu_hours": 0.0,
    }
