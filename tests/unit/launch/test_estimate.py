"""Estimates of how long runs take, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.config.resolve import load, resolve
from experiments.config.sweep import Cell
from experiments.config.yaml_text import dump
from experiments.launch.estimate import Estimate, StepTime, estimates, local

TINY: dict[str, Any] = {
    "data": {"name": "synthetic", "validation": 100, "batch_size": 50, "evaluate_on": "validation"},
    "model": {"name": "mlp_bn"},
    "tracking": {"wandb": "disabled"},
}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return named(tmp_path, "a")


def named(folder: Path, identity: str, *overrides: str, seed: int = 0) -> Cell:
    (folder / "tiny.yaml").write_text(dump(TINY))
    spec = resolve(load(str(folder / "tiny.yaml"), overrides))
    return Cell("Row", {}, seed, spec, identity, f"{identity}-s{seed}")


def took(cell: Cell, seconds: float, steps: int = 100) -> tuple[Cell, dict[str, Any]]:
    return cell, {"seconds": seconds, "steps": steps}


def test_other_seeds_of_the_same_run_count_first(cell: Cell, tmp_path: Path) -> None:
    finished = [took(replace(cell, seed=1), 100.0), took(replace(cell, seed=2), 200.0)]
    finished.append(took(named(tmp_path, "b", "optimizer.lr=0.5"), 900.0))
    found = estimates([cell], finished, lambda spec: 100, {"a": StepTime(7.0, 100)})
    assert found == {cell.path: Estimate(150.0, "same")}


def test_timed_steps_come_before_what_is_alike(cell: Cell, tmp_path: Path) -> None:
    other = [took(named(tmp_path, "b", "optimizer.lr=0.5"), 300.0)]
    assert estimates([cell], other, lambda spec: 50, {"a": StepTime(7.0, 60)}) == {cell.path: Estimate(420.0, "probe")}
    assert estimates([cell], other, lambda spec: 50) == {cell.path: Estimate(150.0, "alike")}


@pytest.mark.parametrize(
    "other",
    ["model.name=mlp_bn_small", "data.batch_size=25", "optimizer.sam={}", "runtime.amp=bf16", "data.validation=50"],
)
def test_what_decides_the_speed_is_not_alike(cell: Cell, tmp_path: Path, other: str) -> None:
    assert estimates([cell], [took(named(tmp_path, "b", other), 300.0)], lambda spec: 50) == {}


@pytest.mark.parametrize("other", ["topology.name=random", "schedule.epochs=9", "optimizer.name=adam", "seed=3"])
def test_what_hardly_decides_it_is(cell: Cell, tmp_path: Path, other: str) -> None:
    assert estimates([cell], [took(named(tmp_path, "b", other), 300.0)], lambda spec: 50)[cell.path].seconds == 150.0


def test_only_what_is_left_counts(cell: Cell) -> None:
    found = estimates([cell], [took(cell, 100.0)], lambda spec: 100, done=lambda cell: 75)
    assert found[cell.path].seconds == 25.0


def test_results_without_times_say_nothing(cell: Cell) -> None:
    assert estimates([cell], [(cell, {"seconds": 3.0}), (cell, {})], lambda spec: 100) == {}


def test_in_words() -> None:
    found = {"a": Estimate(3600.0, "same"), "b": Estimate(5400.0, "probe"), "c": Estimate(60.0, "same")}
    assert local(found, 3, 2) == (
        "time: about 2.5 hours of compute, 1 h 30 min with 2 workers; "
        "1 from steps timed on this machine, 2 from finished runs of other seeds"
    )
    assert local(found, 5, 1).startswith("time of 3 of 5: about 2.5 hours of compute, 2 h 31 min with 1 workers; ")
    assert "of 2 nothing is known (--probe times some steps of each here)" in local(found, 5, 1)
    assert local({}, 4, 1).startswith("how long they take is not known: of 4 nothing is known")
