"""What a report says of configurations and environments."""

from __future__ import annotations

from pathlib import Path

from demo_sweep import RIGL, SEVERAL, sweep
from fake_runs import overridden, write_json, write_run, write_sweep

from results.page.provenance import configuration, environments
from results.runs.facts import settings
from results.runs.store import read


def configured(found):
    return configuration(found, settings(found))


def test_configuration_splits_shared_from_changed(tmp_path):
    sweep(tmp_path)
    shared, changes = configured(read(tmp_path))
    assert dict(shared)["optimizer.lr"] == "0.1"
    assert dict(shared)["topology.name"] == "rigl"  # three of four rows
    assert "topology.sparsity" not in dict(shared)  # a column
    assert not {"seed", "label"} & set(dict(shared))
    assert dict(changes) == {
        "Dense": [("topology.name", "dense")],
        "RiGL": [],
        "RiGL + HAM": [("optimizer.ham.alpha", "20.0"), ("optimizer.ham.beta", "0.001")],
        "RiGL + Sign-In": [("representation.name", "sign_in")],
    }


def test_configuration_lists_values_that_vary_by_column(tmp_path):
    sweep(tmp_path, SEVERAL)
    for run in read(tmp_path).runs:
        if run.row == "RiGL" and run.column["topology.sparsity"] == 0.8:
            spec = overridden(RIGL | run.column | {"optimizer.lr": 0.4, "seed": run.seed})
            write_run(Path(run.path), spec, run.result)
    _, changes = configured(read(tmp_path))
    assert dict(dict(changes)["RiGL"])["optimizer.lr"] == (
        "0.4 (resnet8, 80 % sparse, mlp_bn, 80 % sparse); 0.1 (resnet8, 95 % sparse, mlp_bn, 95 % sparse)"
    )


def test_environments_are_counted(tmp_path):
    sweep(tmp_path)
    runs = read(tmp_path).runs
    write_json(runs[0].path / "environment.json", {"torch": "2.9.0", "gpu": None})
    found = dict(environments(read(tmp_path)))
    assert found["torch"] == [("2.9.0", 1), ("2.14.1", 11)]
    assert "gpu" not in found


def test_a_value_without_a_majority_is_shared_by_nobody(tmp_path):
    write_sweep(tmp_path, {"RiGL": [0.8] * 3, "GMP": [0.8] * 3}, {"RiGL": RIGL, "GMP": {"topology.name": "gmp"}})
    shared, changes = configured(read(tmp_path))
    assert "topology.name" not in dict(shared)
    assert dict(changes) == {"RiGL": [("topology.name", "rigl")], "GMP": [("topology.name", "gmp")]}
