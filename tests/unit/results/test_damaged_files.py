"""Files of runs that are damaged, copied, changed or hostile are named, and left out or refused."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from fake_runs import overridden, result, write_run, write_sweep

import results
from experiments.errors import UserError
from results.runs.store import read, read_metrics


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
