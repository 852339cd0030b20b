"""Commands that look at finished runs again: predictions, comparison, verification, power, and what a sweep hides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Ham, one_message
from small_runs import tiny_spec, train, write_config

from experiments.rundir.result import seal

KEPT = "evaluate.predictions=true"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of other rates that kept their predictions, and one of the first that did not."""
    home = tmp_path_factory.mktemp("pair")
    train(tiny_spec(home, KEPT), home / "a")
    train(tiny_spec(home, KEPT, "optimizer.lr=0.0001"), home / "b")
    train(tiny_spec(home), home / "c")
    return home


def reseal(folder: Path, **changes: object) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(seal({**json.loads(path.read_text()), **changes}, folder)))


@pytest.fixture
def copy(pair: Path, tmp_path: Path) -> Path:
    shutil.copytree(pair, tmp_path / "runs")
    return tmp_path / "runs"


def test_predictions_are_those_behind_the_accuracy(pair: Path) -> None:
    result = json.loads((pair / "a/result.json").read_text())
    with np.load(pair / "a/predictions.npz", allow_pickle=False) as arrays:
        assert arrays["predicted"].dtype == arrays["labels"].dtype == np.uint8
        assert len(arrays["labels"]) == result["evaluated"]
        assert (arrays["predicted"] == arrays["labels"]).mean() == result["accuracy"]
    assert "predictions.npz" in result["files"]
    assert not (pair / "c/predictions.npz").exists()


def test_keeping_predictions_changes_nothing_else(pair: Path) -> None:
    one, other = (json.loads((pair / name / "result.json").read_text()) for name in "ac")
    for key in ("checksum", "files", "seconds"):
        del one[key], other[key]
    assert one == other


def test_two_runs_are_compared(ham: Ham, pair: Path) -> None:
    called = ham("compare", pair / "a", pair / "b")
    assert called.code == 0, called.err
    assert "optimizer.lr: 0.1 -> 0.0001" in called.out
    assert "they part in epoch 1" in called.out
    assert "Test (McNemar, 100 images): B - A is" in called.out
    assert "evaluate" not in called.out.split("Curves")[0]
    same = ham("compare", pair / "a", pair / "c").out
    assert "Configuration: the same." in same
    assert "the same to the end (4 epochs)" in same
    assert "Test: B kept no predictions.npz; evaluate.predictions=true keeps the classes of a new run." in same


def test_predictions_of_another_run_are_not_tested(ham: Ham, copy: Path) -> None:
    shutil.copy(copy / "a/predictions.npz", copy / "b/predictions.npz")
    assert (
        "B's predictions.npz was changed after the run had ended; nothing is tested"
        in ham("compare", copy / "a", copy / "b").out
    )


def test_a_folder_of_several_runs_is_not_compared(ham: Ham, pair: Path) -> None:
    one_message(ham("compare", pair, pair / "a"), 2, f"{pair}: holds 3 runs; give the folder of one")


def test_weights_are_evaluated_again(ham: Ham, copy: Path) -> None:
    called = ham("table", copy, "--verify")
    assert called.code == 0, called.err
    assert called.err.strip() == "3 of 3 results verified by their weights"
    reseal(copy / "a", accuracy=0.99)  # a checksum that fits, as a forger would write it
    shutil.copy(copy / "b/weights.pt", copy / "c/weights.pt")
    called = ham("table", copy, "--verify")
    assert called.code == 1
    assert "a: accuracy 99.00% is stated, and its weights have " in called.err
    assert "c: weights.pt is not the file that the run left" in called.err
    assert "1 of 3 results verified" in called.err


def test_weights_that_are_gone_are_said(ham: Ham, copy: Path) -> None:
    (copy / "b/weights.pt").unlink()
    called = ham("table", copy, "--verify")
    assert (called.code, "b: weights.pt is not there" in called.err) == (1, True)


def test_power_of_a_folder_and_of_a_configuration(ham: Ham, pair: Path, tmp_path: Path) -> None:
    one_message(ham("power", pair, "--difference", 0.3), 2, "no difference to a plain row from three seeds")
    one_message(ham("power", pair, "--difference", 0), 2, "--difference: 0 is out of range: above 0, up to 100 points")
    found = json.loads(ham("power", "paper/imagenet_rigl", "--difference", 0.3, "--json").out)
    assert (found["family"], found["paired_holm"] > found["paired"]) == (6, True)


def test_a_sweep_with_other_settings_asks_for_another_name(ham: Ham, tmp_path: Path) -> None:
    sweep = {"rows": {"A": {}, "B": {"optimizer.lr": 0.2}}, "seeds": [0], "name": "t"}
    config = write_config(tmp_path / "t.yaml", sweep=sweep, schedule={"epochs": 1})
    out = ("--out", tmp_path / "runs", "--jobs", 1)
    assert ham("sweep", config, *out).code == 0
    called = ham("sweep", config, "optimizer.momentum=0.5", *out)
    assert called.code == 2
    for words in (
        "shows this table without settings on the command line",
        "2 runs of it that are finished (A, B)",
        "would be in no table with optimizer.momentum=0.5",
        "give this one another sweep.name or --out",
    ):
        assert words in called.err
    assert ham("sweep", config, "sweep.seeds=[0, 1]", *out, "--dry-run").code == 0  # an addition hides nothing
    assert ham("sweep", config, "optimizer.momentum=0.5", "sweep.name=u", *out, "--dry-run").code == 0
    assert "(with" not in ham("table", tmp_path / "runs/t").out
