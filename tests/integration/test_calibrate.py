"""`ham calibrate` solves for STR's decay, stores it with its cost in runs, and the sweep uses the stored number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Ham, one_message
from small_runs import result, write_config

from experiments.config.resolve import load
from experiments.config.sweep import expand
from experiments.launch.calibrate import TOLERANCE

STR = {"name": "str", "initial_threshold": -5.0, "threshold_decay": "calibrated"}
ROWS: dict[str, Any] = {
    "Dense": {},
    "STR": {"representation": STR},
    "STR + HAM": {"representation": STR, "optimizer.ham": {"alpha": 5.0, "beta": 1.0e-3}},
}


def config(folder: Path, sparsities: list[float], **changes: Any) -> Path:
    sweep = {"rows": ROWS, "columns": {"topology.sparsity": sparsities}, "seeds": [0, 1], "tuning_cells": 1}
    return write_config(folder / "tiny.yaml", data__batch_size=25, data__evaluate_on="test", sweep=sweep, **changes)


def test_solved_stored_and_used(ham: Ham, tmp_path: Path) -> None:
    path = config(tmp_path, [0.7])
    called = ham("sweep", path, "--out", tmp_path / "runs")
    assert called.code == 2
    assert "ham calibrate" in called.err
    assert not (tmp_path / "runs").exists()

    called = ham("calibrate", path, "--jobs", 2)
    assert (called.code, called.said) == (0, "")
    store = tmp_path / "tiny.calibration.yaml"
    assert called.out == f"{store}: 2 settings solved, 0 failed, 0 there before\n"
    entries = yaml.safe_load(store.read_text())
    assert [entry["of"] for entry in entries] == [
        {"row": row, "topology.sparsity": 0.7} for row in ("STR", "STR + HAM")
    ]
    for entry in entries:
        assert abs(entry["reached"] - 0.7) <= TOLERANCE
        assert 1 <= entry["runs"] <= 14
        assert entry["threshold_decay"] > 0

    specs = {cell.row: cell.spec for cell in expand(load(str(path))).cells}
    for entry in entries:
        assert specs[entry["of"]["row"]].representation.options.threshold_decay == entry["threshold_decay"]

    assert ham("sweep", path, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    for entry, slug in zip(entries, ("str-0.7-", "str-ham-0.7-"), strict=True):
        # the search's own seed; evaluated on the test part now, which the search did not touch
        (folder,) = (tmp_path / "runs/tiny").glob(f"{slug}*-s0")
        assert result(folder)["sparsity"] == pytest.approx(entry["reached"], abs=1e-5)
        assert result(folder)["accuracy_on"] == "test"


@pytest.mark.robust
def test_a_second_call_solves_only_what_is_new(ham: Ham, tmp_path: Path) -> None:
    assert ham("calibrate", config(tmp_path, [0.7])).code == 0
    store = tmp_path / "tiny.calibration.yaml"
    before = yaml.safe_load(store.read_text())
    called = ham("calibrate", config(tmp_path, [0.7]))
    assert called.out == f"{store}: 0 settings solved, 0 failed, 2 there before\n"
    assert yaml.safe_load(store.read_text()) == before
    called = ham("calibrate", config(tmp_path, [0.7, 0.6]))
    assert called.out == f"{store}: 2 settings solved, 0 failed, 2 there before\n"
    after = yaml.safe_load(store.read_text())
    assert after[:2] == before
    assert [entry["target"] for entry in after] == [0.7, 0.7, 0.6, 0.6]


def test_what_cannot_be_solved_is_said_and_the_rest_is_stored(ham: Ham, tmp_path: Path) -> None:
    """A row whose threshold cannot move (one step, a rate next to nothing) and one that diverges."""
    rows = {
        "STR": {"representation": STR},
        "Stuck": {"representation": STR, "optimizer.lr": 1.0e-9, "schedule.epochs": 1},
        "Diverges": {"representation": STR, "optimizer.lr": 1.0e30, "schedule.epochs": 1},
    }
    sweep = {"rows": rows, "columns": {"topology.sparsity": [0.7]}}
    path = write_config(tmp_path / "tiny.yaml", data__batch_size=25, sweep=sweep)
    called = ham("calibrate", path, "--jobs", 2)
    assert called.code == 1
    assert called.out.endswith("1 settings solved, 2 failed, 0 there before\n")
    assert "stuck-0.7" in called.err
    assert "no threshold decay found for sparsity 0.7 in 7 runs; nearest: 0." in called.err
    assert "the loss is not finite" in called.err
    (entry,) = yaml.safe_load((tmp_path / "tiny.calibration.yaml").read_text())
    assert entry["of"]["row"] == "STR"


def test_what_cannot_be_carried_out_is_refused_before_a_search(ham: Ham, tmp_path: Path) -> None:
    called = ham("calibrate", config(tmp_path, [0.7]), "data.batch_size=70000")
    one_message(called, 2, "row 'STR' and 1 more: ", "data.batch_size: 70,000 is out of range")
    assert not list(tmp_path.glob("*.calibration.yaml"))
