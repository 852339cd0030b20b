"""Loading run folders: manifests, bare folders, single runs, and everything that can be missing or damaged."""

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
from results.runs.store import read, read_metrics

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


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("{", "is not JSON"),
        ({"cells": []}, "lists no runs"),
        ({"cells": [{"row": "A", "seed": 0}]}, r"has no cells\.0\.path"),
        ({"cells": [{"row": "A", "seed": "first", "path": "a"}]}, r"has cells\.0\.seed 'first'"),
        ({"cells": [{"row": "A", "seed": -1, "path": "a"}]}, r"has cells\.0\.seed -1"),
        ({"cells": [{"row": "A", "seed": 0, "path": "../b"}]}, "not a folder inside the sweep's"),
        ("[" * 10**5, "nested more than 40 levels deep"),
        ({"cells": [{"row": "A", "column": {}, "seed": 0, "path": p} for p in "ab"]}, "twice"),
        ({"column_keys": ["x"], "cells": [{"row": "A", "column": {}, "seed": 0, "path": "a"}]}, "has other keys than"),
        ({"cells": [{"row": "A", "column": {"x": 1}, "seed": 0, "path": "a"}]}, "other keys than column_keys: none"),
        ({"cells": [{"row": "A", "seed": s, "path": "a"} for s in (0, 1)]}, "the folder a to two runs"),
        ({"cells": [{"row": "A", "seed": 0, "path": "a"}], "baselines": {"A": "B"}}, "'B', which is not a row"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, change, word):
    path = tmp_path / "sweep.json"
    path.write_text(change if isinstance(change, str) else json.dumps({"name": "x"} | change))
    with pytest.raises(UserError, match=word) as caught:
        results.load(tmp_path)
    assert str(path) in str(caught.value)


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


def test_a_copied_run_does_not_count_twice(tmp_path, caplog):
    for name in ("a", "copy"):
        write_run(tmp_path / name, overridden({"label": "RiGL"}), result(0.8))
    with caplog.at_level(logging.WARNING):
        assert len(results.load(tmp_path)) == 1
    assert "copy: repeats a" in caplog.text


def test_metrics_leave_out_torn_lines(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1}\n{oops}\n{"kind": "event"}\n{"kind": "ep')
    with caplog.at_level(logging.WARNING):
        lines = list(read_metrics(tmp_path, {}))
    assert [line["kind"] for line in lines] == ["epoch", "event"]
    assert caplog.text.count("not JSON") == 1
    assert "metrics.jsonl:2" in caplog.text


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


@pytest.mark.parametrize("damage", ["removed", "a link to nothing"])
def test_a_bare_run_without_its_configuration_is_not_passed_over_in_silence(tmp_path, caplog, damage):
    write_run(tmp_path / "rigl-0a1b2c3d-s4", {"seed": 4}, result(0.5, 4, identity="0a1b2c3d"))
    write_run(tmp_path / "set-0a1b2c3e-s4", {"seed": 4}, result(0.6, 4, identity="0a1b2c3e"))
    path = tmp_path / "rigl-0a1b2c3d-s4/spec.yaml"
    path.unlink()
    if damage != "removed":
        path.symlink_to(tmp_path / "none")
    with caplog.at_level(logging.WARNING):
        frame = results.load(tmp_path)
    assert frame[["row", "accuracy"]].values.tolist() == [["rigl", 0.5], ["set", 0.6]]
    assert "spec.yaml" in caplog.text


@pytest.mark.parametrize("where", ["a sweep", "a folder of runs"])
def test_a_result_copied_into_another_seeds_folder_is_named_and_not_counted(tmp_path, caplog, where):
    directory = write_sweep(tmp_path / "demo", {"RiGL": [0.7, 0.8]}, seeds=(0, 1))
    first, second = (entry.path for entry in read(directory).runs)
    shutil.copy(first / "result.json", second / "result.json")
    if where == "a folder of runs":
        (directory / "sweep.json").unlink()
    frame = results.load(directory)
    assert frame["status"].tolist() == ["done", "missing"]
    assert f"{second}: result.json belongs to seed 0, and this is the folder of seed 1" in caplog.text


def test_metrics_that_were_changed_after_the_end_make_no_curve(tmp_path, caplog):
    run = write_run(tmp_path / "r", {"label": "A"}, result(0.8))
    entry = read(tmp_path / "r").runs[0]
    assert len(list(read_metrics(run, entry.result))) == 8
    path = run / "metrics.jsonl"
    path.write_text(path.read_text().replace('"epoch": 1', '"epoch": 9'))
    assert list(read_metrics(run, entry.result)) == []
    assert f"{path}: was changed after the run had ended" in caplog.text


HOSTILE = {
    "deep lists": "[" * 200_000,
    "deep mappings": "a: " + "{a: " * 5000,
    "deep items": "- " * 100_000 + "a",
    "aliases of aliases": "k0: &k0 [1]\n" + "".join(f"k{n}: &k{n} [*k{n - 1}, *k{n - 1}]\n" for n in range(1, 40)),
    "an object": "a: !!python/object/apply:os.system [ls]",
    "a number without end": "seed: 1e999",
    "no YAML": "{",
    "bytes": "\x00\x01",
    "a list": "[1, 2]",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_configuration_is_named_and_left_out(tmp_path, caplog, kind):
    run = write_run(tmp_path / "rigl-0a1b2c3d-s4", {"seed": 4}, result(0.5, 4, identity="0a1b2c3d"))
    (run / "spec.yaml").write_text(HOSTILE[kind])
    with caplog.at_level(logging.WARNING):
        assert results.load(tmp_path)["accuracy"].tolist() == [0.5]
    assert f"{run}/spec.yaml" in caplog.text
