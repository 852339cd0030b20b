"""Loading run folders: manifests, bare folders, single runs, and what is missing or unfinished."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
import sys

import pytest
from fake_runs import fail, forget, overridden, result, write_json, write_run, write_sweep

import results
from experiments.errors import UserError
from results.runs.store import read

COLUMNS = [{"topology.sparsity": 0.9}, {"topology.sparsity": 0.95}]
ROWS = {"Dense": {}, "RiGL": {"topology.name": "rigl"}}


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "demo", lambda row, column, seed: 0.8 + 0.01 * seed, ROWS, COLUMNS, seeds=(0, 1))


def runs_of(directory, row):
    return [entry for entry in read(directory).runs if entry.row == row]


def test_one_frame_row_a_cell_in_table_order(sweep):
    frame = results.load(sweep)
    assert frame["row"].tolist() == ["Dense"] * 4 + ["RiGL"] * 4
    assert frame["topology.sparsity"].tolist() == [0.9, 0.9, 0.95, 0.95] * 2
    assert frame["seed"].tolist() == [0, 1] * 4
    assert frame["accuracy"].tolist() == [0.8, 0.81] * 4
    assert set(frame["status"]) == {"done"}
    assert frame["target_sparsity"].tolist()[4:] == [0.9, 0.9, 0.95, 0.95]
    assert math.isnan(frame["target_sparsity"][0])
    assert frame["events"][4] == {"update": 23}
    # a dense run is one folder that stands in both columns
    assert frame["path"][0] == frame["path"][2]
    assert len(frame["path"].unique()) == 6


def test_a_moved_folder_still_loads(sweep, tmp_path):
    before = results.load(sweep)
    shutil.move(sweep, tmp_path / "elsewhere")
    after = results.load(tmp_path / "elsewhere")
    assert after.drop(columns="path").equals(before.drop(columns="path"))
    assert after["path"].str.startswith(str(tmp_path / "elsewhere")).all()


def test_unfinished_runs(sweep):
    first, second = runs_of(sweep, "Dense")
    fail(first.path, "loss is nan at step 12")
    forget(second.path)
    frame = results.load(sweep)
    dense = frame[frame["row"] == "Dense"]
    assert dense["status"].tolist() == ["failed", "missing"] * 2
    assert dense["error"].tolist()[0] == "loss is nan at step 12"
    assert dense["accuracy"].isna().all()


def test_started_but_unfinished_is_missing(sweep):
    run = runs_of(sweep, "RiGL")[0]
    (run.path / "result.json").unlink()
    assert runs_of(sweep, "RiGL")[0].status == "missing"


def test_a_result_outweighs_an_old_failure(sweep):
    run = runs_of(sweep, "RiGL")[0]
    write_json(run.path / "failure.json", {"status": "failed", "error": "out of memory"})
    assert runs_of(sweep, "RiGL")[0].status == "done"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"status": "done", "accu', "is not JSON"),
        ("[1, 2]", "does not hold an object"),
        (json.dumps(result(0.5) | {"accuracy": None}), "has accuracy None"),
        (json.dumps(result(0.5) | {"accuracy": True}), "has accuracy True"),
        (json.dumps(result(0.5) | {"accuracy": float("nan")}), "holds NaN"),
        (json.dumps(result(0.5) | {"status": "running"}), "status 'running'"),
        (json.dumps(result(0.5, identity="ffffffff")), "another configuration"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_damaged_result_is_missing_and_named(sweep, caplog, content, word):
    run = runs_of(sweep, "RiGL")[0]
    data = content if isinstance(content, bytes) else content.encode()
    (run.path / "result.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = runs_of(sweep, "RiGL")
    assert [entry.status for entry in found] == ["missing", "done", "done", "done"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(run.path) in message
    assert "result.json" in message
    assert word in message


def test_a_damaged_failure_is_missing_and_named(sweep, caplog):
    run = runs_of(sweep, "RiGL")[0]
    fail(run.path, "x")
    (run.path / "failure.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert runs_of(sweep, "RiGL")[0].status == "missing"
    assert "failure.json" in caplog.text


def test_missing_folder_names_its_neighbours(sweep):
    with pytest.raises(UserError, match=r"no such folder.*demo"):
        results.load(sweep.parent / "dema")


def test_a_file_is_refused(sweep):
    with pytest.raises(UserError, match="is a file"):
        results.load(sweep / "sweep.json")


def test_a_folder_without_runs_points_to_those_inside(sweep, tmp_path):
    with pytest.raises(UserError, match=r"holds no runs.*demo"):
        results.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no runs"):
        results.load(tmp_path / "empty")


def test_a_single_run(tmp_path):
    write_run(tmp_path / "r", overridden({"label": "RiGL", "seed": 7}), result(0.9, 7, 0.95, identity="00c0ffee"))
    frame = results.load(tmp_path / "r")
    assert frame[["row", "seed", "accuracy", "identity"]].values.tolist() == [["RiGL", 7, 0.9, "00c0ffee"]]


def test_bare_runs_group_by_label_and_configuration(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path / f"a{seed}", overridden({"label": "RiGL", "seed": seed}), result(0.8))
        write_run(tmp_path / f"b{seed}", overridden({"label": "GMP", "seed": seed, "optimizer.lr": 0.2}), result(0.7))
    write_run(tmp_path / "c", overridden({"label": "GMP", "optimizer.lr": 0.3}), result(0.6))
    write_run(tmp_path / "str-0a1b2c3d-s4", overridden({"seed": 4}), result(0.5))
    (tmp_path / "notes").mkdir()
    frame = results.load(tmp_path)
    assert [f"{row}:{seed}" for row, seed in zip(frame["row"], frame["seed"], strict=True)] == [
        "GMP (optimizer.lr=0.2):0",
        "GMP (optimizer.lr=0.2):1",
        "GMP (optimizer.lr=0.3):0",
        "RiGL:0",
        "RiGL:1",
        "str:4",
    ]
    assert frame["identity"].tolist()[-1] == "0a1b2c3d"


def test_import_is_cheap_and_free_of_torch(sweep):
    code = (
        "import sys, results, results.table.formats, results.progress.status\n"
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"results.load({str(sweep)!r}); results.table.formats.render({str(sweep)!r}, 'text')\n"
        "heavy = {'torch', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_tolerance_of_sparsity():
    """The tables' mark and STR's warning mean the same distance; results loads no torch, so each has the number."""
    from results.numbers.measure import TOLERANCE
    from sparsity.representations import str as soft_threshold

    assert soft_threshold.TOLERANCE == TOLERANCE
