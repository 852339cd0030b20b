"""`ham layers`, and the number of mask updates in the line of a run, in `ham status` and in tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import LAYERS, result, write_json, write_run, write_sweep

from experiments.cli.loading import said
from experiments.config.resolve import load, resolve
from experiments.errors import UserError
from experiments.run.final import mask_updates
from experiments.rundir.result import seal
from results.numbers.measure import measure
from results.progress.report import to_json
from results.progress.status import status
from results.progress.status_text import render as shown
from results.runs.layers import render
from results.runs.store import read
from results.table.formats import render as table
from results.table.records import records
from results.table.tables import table as make

RIGL = {"topology.name": "rigl"}
UNPRUNED = {
    "fc.weight": {"size": 640, "why": "left dense by the topology"},
    "all others": {"size": 480, "why": "biases, normalisation and the like: not counted"},
}


def finished(path: Path, **changes: object) -> Path:
    return write_run(path, outcome=result(0.8, target=0.9, **changes))


def test_layers_of_a_run(tmp_path):
    lines = render(finished(tmp_path / "a-00000000-s0", unpruned=UNPRUNED)).splitlines()
    assert [line.split()[0] for line in lines] == ["layer", *LAYERS, "all", "sparsity"]
    assert lines[2].split() == ["block1.conv1.weight", "2,304", "10.47", "9.98"]
    assert lines[4].endswith("left dense by the topology")
    assert lines[-1] == "sparsity is counted over 21,520 of 22,000 parameters"


def test_layers_of_a_result_that_does_not_say_what_is_not_pruned(tmp_path):
    lines = render(finished(tmp_path / "a-00000000-s0")).splitlines()
    assert lines[-1] == "sparsity is counted over 21,520 weights; of the other parameters the run has noted nothing"


def test_one_finished_run_is_asked_for(tmp_path):
    sweep = write_sweep(tmp_path / "two", {"A": [0.8, 0.9, None]})
    with pytest.raises(UserError, match=r"two: has 3 runs; name the folder of one, such as a-\w+-s0$"):
        render(sweep)
    write_run(tmp_path / "b-00000000-s0")
    with pytest.raises(UserError, match="b-00000000-s0: has no result: it is not finished"):
        render(tmp_path / "b-00000000-s0")


def test_layers_loads_no_torch(tmp_path):
    path = finished(tmp_path / "a-00000000-s0", unpruned=UNPRUNED)
    code = f"import sys; from experiments.cli.main import app; app(['layers', {str(path)!r}], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_what_changes_no_mask_and_the_first_masks_are_no_updates():
    events = [
        {"kind": "event", "event": "initial", "changed": 90, "dropped": 90, "grown": 0},
        {"kind": "event", "event": "update", "changed": 4, "dropped": 2, "grown": 2},
        {"kind": "event", "event": "update", "changed": 0, "dropped": 0, "grown": 0},
        {"kind": "event", "event": "reset", "changed": 7},
        {"kind": "epoch", "epoch": 1},
        {"kind": "event", "event": "cut", "changed": 9, "dropped": 9, "grown": 0},
    ]
    assert mask_updates(events) == 2


@pytest.mark.parametrize(
    ("number", "ending"), [(None, "sparsity 90.00%"), (0, ", 0 mask updates"), (1, ", 1 mask update")]
)
def test_the_line_of_a_run(number, ending):
    values = {"accuracy": 0.5, "accuracy_on": "test", "sparsity": 0.9, "mask_updates": number}
    assert said(Path("runs/a"), values, resolve(load("base", []))).endswith(ending)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = write_sweep(
        tmp_path / "one", {"Dense": [0.8] * 2, "RiGL": [0.8] * 2}, {"Dense": {}, "RiGL": RIGL}, seeds=(0, 1)
    )
    for run, number in zip((run for run in read(path).runs if run.row == "RiGL"), (2, 1234), strict=True):
        write_json(run.path / "result.json", seal({**run.result, "mask_updates": number}, run.path))
    return path


def test_status_counts_updates_by_row_and_by_run(sweep):
    text = shown(status(sweep))
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["Row"].endswith("  mask updates")
    assert rows["RiGL"].endswith(" 2–1,234")
    assert rows["Dense"].endswith(" -")
    assert "RiGL: 2 done of 2; 2–1,234 mask updates" in shown(status(sweep), width=20).replace("\n  ", " ")
    assert [run["mask_updates"] for run in to_json(status(sweep))["runs"]] == [None, None, 2, 1234]


def test_a_table_shows_updates_on_request_and_records_always(sweep):
    assert "Mask updates" not in table(sweep)
    lines = table(sweep, shown=("accuracy", "updates")).splitlines()
    assert any("Mask updates" in line for line in lines)
    assert any(line.startswith("RiGL") and "2–1,234" in line for line in lines)
    means = {one["row"]: one["mask_updates"] for one in records(make(read(sweep)))}
    assert means == {"Dense": None, "RiGL": 618}
    assert measure(read(sweep))["RiGL", "{}"].updates is not None
