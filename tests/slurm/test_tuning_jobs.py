"""A table that tunes itself, through a real scheduler: one command submits both stages, and each run once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from clusters import Cluster, attempts, planned, prepare, records, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

SWEEP = {
    "rows": {"Dense": {}, "Fixed": {"optimizer.lr": 0.01}},
    "seeds": [0],
    "tuning": {"rows": {"Dense": {"optimizer.lr": [0.01001, 0.003]}}, "seeds": [100]},
}
COMMAND = ("sweep", "table.yaml", "--cluster", "slurm", "--profile", "test")


def test_one_command_tunes_and_then_trains(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path, sweep=SWEEP, schedule={"epochs": 1})
    stage, table = folder / "runs/table-tuning", folder / "runs/table"
    first = cluster.ham(*COMMAND, folder=folder)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("tuning: 2 runs in 2 jobs submitted")
    assert "submits the table when they are over" in first.stdout
    # the same command by hand: nothing is submitted twice, and one job alone goes on
    again = cluster.ham(*COMMAND, folder=folder)
    assert again.returncode == 0, again.stderr

    def follows() -> list[str]:
        lines = cluster.ask("squeue", "-h", "-t", "all", "-o", "%j %T").splitlines()
        return [state for name, state in map(str.split, lines) if name.startswith("ham-after-table-tuning-")]

    wait_for(lambda: table.is_dir() and all((run / "result.json").exists() for run in planned(table)), "the table")
    wait_for(lambda: "COMPLETED" in follows(), "the job between the stages")
    assert follows().count("COMPLETED") == 1
    assert sum(len(record["arrays"]) for record in records(stage)) == 1
    assert sum(len(record["arrays"]) for record in records(table)) == 1
    assert all(len(attempts(run)) == 1 for run in [*planned(stage), *planned(table)])
    (choice,) = yaml.safe_load((stage / "tuning.yaml").read_text())
    accuracies = {
        cell["column"]["optimizer.lr"]: json.loads((stage / cell["path"] / "result.json").read_text())["accuracy"]
        for cell in json.loads((stage / "sweep.json").read_text())["cells"]
    }
    assert choice["chosen"]["optimizer.lr"] == max(accuracies, key=lambda rate: accuracies[rate])
    last = cluster.ham(*COMMAND, folder=folder)
    assert last.stdout == "0 runs in 0 jobs submitted; 2 have a result, 0 were under way\n"
    # where some runs of the tuning have no result, the job after it submits nothing and says what to do
    for path in (stage / "tuning.yaml", *stage.glob("dense-0.003-*/result.json")):
        path.unlink()
    left = cluster.ham(*COMMAND, "--after-tuning", folder=folder)
    assert left.returncode == 1
    assert "some of its runs have no result (see `ham status`); to go on: ham sweep" in left.stderr
