"""Who a W&B run is: told from the run's folder and from the table of the folder above it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config.yaml_text import dump
from experiments.tracking.content import Content, content

IDENTITY = "0123456789abcdef" * 4


def spec(**changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "label": "RiGL + HAM",
        "data": {"name": "cifar10", "evaluate_on": "test"},
        "model": {"name": "resnet20"},
        "topology": {"name": "rigl", "sparsity": 0.95},
        "representation": {"name": "plain"},
        "optimizer": {"ham": {"alpha": 2.0}, "sam": None},
        "seed": 3,
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            tree[section][name] = value
        else:
            tree[section] = value
    return tree


def run(folder: Path, tree: dict[str, Any]) -> Content:
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump(tree))
    (folder / "result.json").write_text(json.dumps({"identity": IDENTITY}))
    return content(folder)


def in_sweep(home: Path, tree: dict[str, Any], *columns: dict[str, Any], row: str = "RiGL + HAM") -> Content:
    home.mkdir(parents=True, exist_ok=True)
    cells = [{"row": row, "column": column, "seed": 3, "identity": IDENTITY, "path": "run"} for column in columns]
    manifest = {"name": home.name, "baselines": {"RiGL + HAM": "RiGL"}, "cells": cells}
    (home / "sweep.json").write_text(json.dumps(manifest))
    return run(home / "run", tree)


SPARSITY = "topology.sparsity"


def test_a_run_of_a_sweep(tmp_path: Path) -> None:
    found = in_sweep(tmp_path / "paper", spec(), {SPARSITY: 0.95})
    assert found.name == "rigl-ham 0.95 s3"
    assert found.group == "paper / RiGL + HAM @ 0.95"
    assert found.job_type == "train"
    assert found.tags == ["paper", "rigl", "plain", "cifar10", "resnet20", "ham"]
    assert found.id.startswith(f"{IDENTITY[:32]}-s3-")
    short = {key: value for key, value in found.config.items() if key != "spec"}
    assert short == {
        "table": "paper",
        "row": "RiGL + HAM",
        "base_row": "RiGL",
        "method": "rigl",
        "representation": "plain",
        "addition": "HAM",
        "sparsity": 0.95,
        "dataset": "cifar10",
        "model": "resnet20",
        "column": {SPARSITY: 0.95},
        "seed": 3,
        "identity": IDENTITY,
    }
    assert found.config["spec"]["optimizer"]["ham"]["alpha"] == 2.0


def test_a_group_is_one_cell_of_one_table(tmp_path: Path) -> None:
    """Averages run over seeds alone, not over sparsities or sweeps."""
    groups = [
        in_sweep(tmp_path / home, spec(topology__sparsity=value), {SPARSITY: value}).group
        for home, value in (("a", 0.9), ("b", 0.9), ("c/a", 0.95))
    ]
    assert len(set(groups)) == 3
    seeds = [in_sweep(tmp_path / f"{n}/a", spec(seed=n), {SPARSITY: 0.95}) for n in (1, 2)]
    assert len({one.group for one in seeds}) == 1
    assert len({one.id for one in seeds}) == 2


def test_two_sweeps_never_take_each_others_runs(tmp_path: Path) -> None:
    ids = [in_sweep(tmp_path / name, spec(), {SPARSITY: 0.95}).id for name in ("a", "b")]
    assert len({*ids, run(tmp_path / "single/run", spec()).id}) == 3
    assert max(map(len, ids)) <= 64  # W&B's limit


def test_a_run_that_is_repeated_over_columns_belongs_to_none(tmp_path: Path) -> None:
    dense = spec(topology={"name": "dense", "sparsity": 0.0}, label="Dense", optimizer={"ham": None, "sam": None})
    columns = [{SPARSITY: value, "model.name": "resnet20"} for value in (0.9, 0.95)]
    found = in_sweep(tmp_path / "t", dense, *columns, row="Dense")
    assert (found.group, found.name) == ("t / Dense @ resnet20", "dense resnet20 s3")
    assert found.config["addition"] == "none"
    # also where the table has a single sparsity
    assert in_sweep(tmp_path / "u", dense, {SPARSITY: 0.9}, row="Dense").group == "u / Dense"


def test_a_run_without_a_sweep(tmp_path: Path) -> None:
    found = run(tmp_path / "runs/run", spec(data__evaluate_on="validation"))
    assert (found.id, found.group) == (f"{IDENTITY[:32]}-s3", "single runs / RiGL + HAM")
    assert found.job_type == "tune"
    assert found.config["base_row"] == "RiGL + HAM"


@pytest.mark.parametrize(
    "manifest", ['{"name": "t", "cells": [3, {"path": "run"}, {}]}', "[]", '"x"', "{", '{"cells": null}']
)
def test_a_damaged_table_costs_no_run(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "sweep.json").write_text(manifest)
    assert run(tmp_path / "run", spec()).config["row"] == "RiGL + HAM"


def test_long_names_fit(tmp_path: Path) -> None:
    found = run(tmp_path / "run", spec(label="α" * 300, data__name="d" * 200))
    assert len(found.group) <= 128
    assert max(map(len, found.tags)) <= 64


def test_a_run_that_another_sweep_has_trained_says_where(tmp_path: Path) -> None:
    assert "reused_from" not in run(tmp_path / "own", spec()).config
    result = {"identity": IDENTITY, "reused_from": "/runs/other/rigl-01234567-s3"}
    (tmp_path / "own/result.json").write_text(json.dumps(result))
    assert content(tmp_path / "own").config["reused_from"] == "/runs/other/rigl-01234567-s3"
