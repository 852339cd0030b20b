"""Several directories as one frame, with configurations; measurements over time; densities of layers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import LAYERS, forget, result, write_run, write_sweep

import results
from experiments.rundir.result import seal
from results.runs.store import read

PAGE = Path(__file__).resolve().parents[3] / "docs/howto/results.md"
COLUMNS = [{"topology.sparsity": 0.9}, {"topology.sparsity": 0.95}]
ROWS = {
    "Dense": {},
    "RiGL": {"topology.name": "rigl"},
    "RiGL + HAM": {"topology.name": "rigl", "optimizer.ham": {"alpha": 5.0}},
}


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(
        tmp_path / "one",
        lambda row, column, seed: 0.8 + 0.01 * seed,
        ROWS,
        COLUMNS,
        seeds=(0, 1),
        baselines={"RiGL + HAM": "RiGL"},
    )


@pytest.fixture
def other(tmp_path):
    return write_sweep(tmp_path / "two", {"Faster": [0.7]}, {"Faster": {"optimizer.lr": 0.2}}, seeds=(0,))


def test_several_directories(sweep, other):
    frame = results.load(sweep, other)
    assert frame["table"].tolist() == ["one"] * 12 + ["two"]
    assert frame["topology.sparsity"].tolist()[:2] == [0.9, 0.9]
    assert pd.isna(frame["topology.sparsity"].iloc[-1])
    assert list(dict.fromkeys(zip(frame["row"], frame["base_row"], strict=True))) == [
        ("Dense", "Dense"),
        ("RiGL", "RiGL"),
        ("RiGL + HAM", "RiGL"),
        ("Faster", "Faster"),
    ]
    assert frame["accuracy"].iloc[-1] == 0.7


def test_a_run_of_several_folders_is_one_sample_and_the_finished_one(sweep, tmp_path, caplog):
    again = write_sweep(
        tmp_path / "again", lambda row, column, seed: 0.8, {"Dense": {}, "New": {}}, COLUMNS, seeds=(0, 1)
    )
    forget(read(sweep).runs[0].path)  # the dense run of seed 0 is finished in the second folder alone
    for load in (results.load, results.curves, results.layers):
        caplog.clear()
        frame = load(sweep, again)
        dense = frame[frame["row"] == "Dense"].drop_duplicates("path")
        assert list(zip(dense["table"], dense["seed"], strict=True)) == [("one", 1), ("again", 0)]
        assert set(frame[frame["table"] == "again"]["row"]) == {"Dense", "New"}
        assert [record.getMessage() for record in caplog.records] == [
            f"{sweep}: 1 of its runs are those of {again} (same configuration and seed); left out here",
            f"{again}: 1 of its runs are those of {sweep} (same configuration and seed); left out here",
        ]
    assert len(results.load(sweep, sweep)) == len(results.load(sweep))


def test_configurations_are_columns_where_they_differ(sweep, other):
    frame = results.load(sweep, other)
    assert [name for name in frame.columns if name.startswith("spec.")] == [
        "spec.topology.name",
        "spec.topology.sparsity",
        "spec.optimizer.lr",
        "spec.optimizer.ham.alpha",
    ]
    assert set(frame[frame["row"] == "RiGL + HAM"]["spec.optimizer.ham.alpha"]) == {5.0}
    assert frame.groupby(["spec.topology.name", "topology.sparsity"])["accuracy"].mean().loc["rigl", 0.95] == (
        pytest.approx(0.805)
    )
    assert not [name for name in results.load(sweep, spec=False).columns if name.startswith("spec.")]


def test_a_run_that_has_not_begun_has_no_configuration(sweep):
    forget(read(sweep).runs[0].path)
    frame = results.load(sweep)
    assert frame["status"].tolist()[0] == "missing"
    assert pd.isna(frame["spec.topology.name"].tolist()[0])
    assert frame["spec.topology.name"].tolist()[1] == "dense"


def test_curves_are_tidy_and_each_run_is_there_once(sweep, other):
    frame = results.curves(sweep, other)
    assert frame.columns.tolist() == [
        *("table", "row", "topology.sparsity", "seed", "path", "kind", "event", "level", "step", "epoch"),
        *("metric", "value"),
    ]
    validation = frame[frame["metric"] == "validation_accuracy"]
    assert len(validation) == 4 * (2 + 4 + 4 + 1)  # epochs × runs
    assert validation["epoch"].tolist()[:4] == [1, 2, 3, 4]
    assert validation["step"].tolist()[:4] == [31, 62, 93, 124]
    assert validation.groupby("path")["value"].last().max() == pytest.approx(0.81)
    assert set(frame["kind"].unique()) == {"epoch"}  # an event without a number has no row
    assert set(frame["metric"]) == {"loss", "train_accuracy", "validation_accuracy", "lr", "density"}


def test_a_step_within_an_epoch_has_a_broken_epoch(tmp_path):
    path = write_run(tmp_path / "run")
    lines = [
        {"kind": "event", "event": "initial", "step": 0, "epoch": 0.0, "changed": 3},
        {"kind": "ham", "step": 5, "flips": 0.25, "layers": {"a": 1}},
        {"kind": "epoch", "epoch": 1, "step": 10, "loss": 2.0, "validation_accuracy": None},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame = results.curves(tmp_path)
    frame["event"] = frame["event"].fillna("")
    assert frame[["kind", "event", "step", "epoch", "metric", "value"]].values.tolist() == [
        ["event", "initial", 0, 0.0, "changed", 3],
        ["ham", "", 5, 0.5, "flips", 0.25],
        ["epoch", "", 10, 1, "loss", 2.0],
    ]


def test_layers_at_the_end_and_over_time(tmp_path):
    path = write_run(tmp_path / "run")
    densities = {name: 0.5 + 0.1 * place for place, name in enumerate(LAYERS)}
    lines = [{"kind": "epoch", "epoch": epoch, "step": 10 * epoch, "layer_density": densities} for epoch in (1, 2)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "result.json").write_text(json.dumps(seal(result(0.8, target=0.9), path)))
    final = results.layers(tmp_path)
    assert final["layer"].tolist() == list(LAYERS)
    assert final["size"].tolist() == list(LAYERS.values())
    assert final["density"].tolist() == pytest.approx([0.1] * 4, abs=0.01)
    past = results.layers(tmp_path, history=True)
    assert past[["layer", "epoch", "density"]].values.tolist() == [
        [name, epoch, density] for epoch in (1, 2) for name, density in densities.items()
    ]


@pytest.mark.parametrize(
    "recipe", re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
)
def test_recipes_run(sweep, tmp_path, monkeypatch, capsys, recipe):
    (tmp_path / "runs").mkdir()
    sweep.rename(tmp_path / "runs/quickstart")
    for path in tmp_path.glob("runs/*/*/metrics.jsonl"):
        path.write_text(re.sub(r'"loss"', r'"sign_flips_initial": 0.1, "loss"', path.read_text()))
        outcome = json.loads((path.parent / "result.json").read_text())
        for name in ("checksum", "files"):
            outcome.pop(name)
        (path.parent / "result.json").write_text(json.dumps(seal(outcome, path.parent)))
    monkeypatch.chdir(tmp_path)
    exec(compile(recipe, "results.md", "exec"), {})
    said = capsys.readouterr().out
    assert len(said.splitlines()) > 2
    assert "Empty" not in said
