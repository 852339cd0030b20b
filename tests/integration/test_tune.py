"""Tuning and table from one configuration: the choice by hand, what is said of it, kills, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml
from commands import Ham, one_message
from processes import Command, wait_for
from small_runs import train, write_config

from experiments.config.choices import Choices
from experiments.config.resolve import load
from experiments.config.stage import stage
from experiments.config.tuning import known
from experiments.data.bundle import DataBundle
from experiments.tracking.content import content

RANDOM = {"topology.name": "random"}
# rates at which 100 images are told apart at all, and one that diverges
SWEEP: dict[str, Any] = {
    "title": "Tiny",
    "rows": {"Random": RANDOM, "Random + HAM": {**RANDOM, "optimizer.ham": {}}, "Dense": {"optimizer.lr": 0.01}},
    "columns": {"topology.sparsity": [0.8]},
    "seeds": [0, 1],
    "baselines": {"Random + HAM": "Random"},
    "tuning": {
        "grid": {"optimizer.lr": [0.003, 0.001, 1.0e30]},
        "rows": {
            "Random + HAM": {"optimizer.lr": [0.001, 0.003, 0.01, 0.002], "optimizer.ham.alpha": [1.0]},
            "Dense": None,
        },
        "seeds": [100, 101],
    },
}


def config(folder: Path, sweep: dict[str, Any] | None = None, **changes: Any) -> Path:
    sizes = {"schedule__epochs": 1, "data__evaluate_on": "test"}
    return write_config(folder / "tiny.yaml", sweep=sweep or SWEEP, **{**sizes, **changes})


def tuned(**changes: Any) -> dict[str, Any]:
    return {**SWEEP, "tuning": {**SWEEP["tuning"], **changes}}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def by_hand(folder: Path, row: str) -> dict[float, float]:
    """Mean accuracy of each rate, from the results alone; rates of which a seed has none are left out."""
    found: dict[float, list[float]] = {}
    for cell in manifest(folder)["cells"]:
        if cell["row"] == row:
            path = folder / cell["path"] / "result.json"
            result = json.loads(path.read_text()) if path.exists() else {}
            found.setdefault(cell["column"]["optimizer.lr"], []).append(result.get("accuracy", float("nan")))
    means = {rate: mean(values) for rate, values in found.items()}
    return {rate: value for rate, value in means.items() if value == value}


def choices(folder: Path) -> dict[str, dict[str, Any]]:
    return {one["row"]: one for one in yaml.safe_load((folder / "tuning.yaml").read_text())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was tuned and trained by one command, in peace."""
    from commands import command

    home = tmp_path_factory.mktemp("whole")
    assert command("sweep", config(home), "--out", home / "runs", "--jobs", 2) == 0
    return home


def test_the_choice_is_that_of_a_hand_computation(whole: Path) -> None:
    stage_folder, found = whole / "runs/tiny-tuning", choices(whole / "runs/tiny-tuning")
    assert set(found) == {"Random", "Random + HAM"}
    for row, one in found.items():
        means = by_hand(stage_folder, row)
        best = max(means, key=lambda rate: means[rate])
        assert one["chosen"]["optimizer.lr"] == best
        assert one["accuracy"] == pytest.approx(means[best])
        assert one["images"] == 100
    assert found["Random"]["lost"] == 1, "the rate that diverges"
    assert {json.loads(p.read_text())["accuracy_on"] for p in stage_folder.glob("*/result.json")} == {"validation"}
    assert {c["seed"] for c in manifest(stage_folder)["cells"]} == {100, 101}


def test_the_final_seeds_are_trained_with_it(whole: Path, ham: Ham) -> None:
    found, table = choices(whole / "runs/tiny-tuning"), manifest(whole / "runs/tiny")
    for cell in table["cells"]:
        spec = yaml.safe_load((whole / "runs/tiny" / cell["path"] / "spec.yaml").read_text())
        expected = found[cell["row"]]["chosen"]["optimizer.lr"] if cell["row"] in found else 0.01
        assert (spec["optimizer"]["lr"], spec["data"]["evaluate_on"]) == (expected, "test")
    called = ham("table", whole / "runs/tiny")
    text = " ".join(called.out.split())
    assert "Tuning: for each row the best of 3 settings by mean accuracy (the validation part, 100 images;" in text
    assert "Not the same number of settings: Random + HAM 4. Not tuned: Dense." in text
    assert "Failed, or missed the target sparsity: Random: 1 of 3." in text
    told = json.loads(ham("table", whole / "runs/tiny", "--format", "json").out)["tuning"]
    assert {one["row"]: one["chosen"] for one in told["choices"]} == {row: one["chosen"] for row, one in found.items()}


def test_the_tuning_is_a_sweep_of_its_own(whole: Path, ham: Ham) -> None:
    folder = whole / "runs/tiny-tuning"
    best = ham("best", folder)
    assert best.code == 0, best.err
    assert best.out.startswith("Random at topology.sparsity=0.8: optimizer.lr=")
    assert "2 of 3 settings complete and on target" in best.out
    assert "tiny-tuning: 14 runs, 12 done, 2 failed" in ham("status", folder).out
    assert ham("table", folder).code == 0
    assert ham("report", folder).code == 0
    assert ham("run-cell", folder, "0").code == 0
    (path, *_) = folder.glob("*/result.json")
    assert (content(path.parent).job_type, content(path.parent).config["table"]) == ("tune", "tiny-tuning")


def test_what_is_chosen_is_not_tuned_again(whole: Path, ham: Ham) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*.json")}
    called = ham("sweep", whole / "tiny.yaml", "--out", whole / "runs", "--dry-run")
    assert called.out == "0 of 6 runs to do\n"
    again = ham("tune", whole / "tiny.yaml", "--out", whole / "runs")
    assert again.code == 0, again.err
    assert "Random at topology.sparsity=0.8: optimizer.lr=" in again.out
    after = {path: path.stat().st_mtime_ns for path in (whole / "runs").rglob("*.json")}
    assert {path for path in after if after[path] != before.get(path)} <= {whole / "runs/tiny-tuning/sweep.json"}
    dry = ham("tune", whole / "tiny.yaml", "--out", whole / "runs", "--again", "--dry-run")
    assert dry.out.splitlines()[-1] == "2 runs to do, to tune 2 rows and columns: 7 settings in all"


def test_a_dry_run_says_both_stages(ham: Ham, tmp_path: Path) -> None:
    called = ham("sweep", config(tmp_path), "--out", tmp_path / "runs", "--dry-run")
    *paths, tuning, table = called.out.splitlines()
    assert len(paths) == 14
    assert all(path.startswith(f"{tmp_path}/runs/tiny-tuning/random-") for path in paths)
    assert tuning == "14 runs to do, to tune 2 rows and columns: 7 settings in all"
    assert table == "then 6 runs of the table, with the settings chosen"
    assert not (tmp_path / "runs").exists()


def test_an_edited_grid_is_tuned_anew_with_a_word(whole: Path, ham: Ham, tmp_path: Path) -> None:
    edited = config(tmp_path, tuned(grid={"optimizer.lr": [0.003, 0.001]}))
    called = ham("sweep", edited, "--out", whole / "runs", "--dry-run")
    assert called.err == (
        "the stored choice for 'Random' at topology.sparsity=0.8 was made with another row, grid, seeds or data, and "
        "is not used: it is tuned anew (sweep.tuning=null trains rows as they stand)\n"
    )
    assert called.out.splitlines()[-2:] == [
        "0 runs to do, to tune 1 rows and columns: 2 settings in all",  # all of them have been trained
        "then 6 runs of the table, with the settings chosen",
    ]


def test_a_choice_stored_beside_the_configuration(whole: Path, ham: Ham, tmp_path: Path) -> None:
    (path := config(tmp_path)).with_name("tiny.tuning.yaml").write_text(
        (whole / "runs/tiny-tuning/tuning.yaml").read_text()
    )
    called = ham("sweep", path, "--out", tmp_path / "runs", "--dry-run")
    assert called.out.splitlines()[-1] == "6 of 6 runs to do"
    # another choice counts as it was stored, and `ham tune` says that it would choose otherwise
    text = path.with_name("tiny.tuning.yaml").read_text()
    chosen = choices(whole / "runs/tiny-tuning")["Random"]["chosen"]["optimizer.lr"]
    other = 0.001 if chosen == 0.003 else 0.003
    edited = text.replace(f"optimizer.lr: {chosen}\n", f"optimizer.lr: {other}\n", 1)
    (whole / "tiny.tuning.yaml").write_text(edited)
    try:
        called = ham("tune", whole / "tiny.yaml", "--out", whole / "runs")
        assert "tiny.tuning.yaml holds another choice for Random, which `ham sweep` uses; --store" in called.err
        assert ham("tune", whole / "tiny.yaml", "--out", whole / "runs", "--store").code == 0
        assert yaml.safe_load((whole / "tiny.tuning.yaml").read_text()) == yaml.safe_load(text)
    finally:
        (whole / "tiny.tuning.yaml").unlink()


def test_a_row_of_which_nothing_can_be_chosen_is_named_and_the_others_are_kept(ham: Ham, tmp_path: Path) -> None:
    rows = {"Random": {"optimizer.lr": [1.0e30, 2.0e30]}, "Random + HAM": {"optimizer.lr": [0.003]}, "Dense": None}
    path = config(tmp_path, tuned(rows=rows, seeds=[100]))
    called = ham("sweep", path, "--out", tmp_path / "runs", "--jobs", 2)
    assert called.code == 1
    assert "no setting can be chosen for 'Random' at topology.sparsity=0.8: none of 2 settings has" in called.err
    assert "the loss is not finite" in called.err
    assert "`ham tune --again`" in called.err
    assert set(choices(tmp_path / "runs/tiny-tuning")) == {"Random + HAM"}
    assert not (tmp_path / "runs/tiny").exists()
    again = ham("sweep", path, "--out", tmp_path / "runs")
    one_message(again, 1, "no setting can be chosen for 'Random'")  # at once: nothing is trained again


def test_what_the_machine_ended_is_trained_again(ham: Ham, tmp_path: Path) -> None:
    path = config(tmp_path, tuned(rows={"Random + HAM": None, "Dense": None}, seeds=[100]))
    stopped = ham("tune", path, "--out", tmp_path / "runs", "--dry-run").out.splitlines()[0]
    Path(stopped).mkdir(parents=True)
    failure = {"status": "failed", "error": "No space left on device", "unexpected": True}
    (Path(stopped) / "failure.json").write_text(json.dumps(failure))
    assert ham("tune", path, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    assert (Path(stopped) / "result.json").exists()


@pytest.mark.slow
def test_a_killed_tuning_goes_on(ham: Ham, tmp_path: Path, whole: Path) -> None:
    path = config(tmp_path)
    folder = tmp_path / "runs/tiny-tuning"
    with Command(tmp_path, "sweep", path, "--out", "runs", "--jobs", 2) as command:
        wait_for(lambda: len(list(folder.glob("*/result.json"))) >= 3, "some results of the tuning")
        os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait()
    done = {p: p.read_bytes() for p in folder.glob("*/result.json")}
    assert not (tmp_path / "runs/tiny").exists()
    called = ham("sweep", path, "--out", tmp_path / "runs", "--jobs", 2)
    assert called.code == 0, called.err
    assert all(p.read_bytes() == content for p, content in done.items())
    assert choices(folder) == choices(whole / "runs/tiny-tuning")
    for file in (whole / "runs/tiny").glob("*/weights.pt"):
        assert file.read_bytes() == (tmp_path / "runs/tiny" / file.parent.name / "weights.pt").read_bytes()


def test_the_test_part_is_not_evaluated_in_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the test part cannot be evaluated, runs of the tuning train to their end, and one of the table does not."""
    found = stage(load(str(config(tmp_path))), known(Choices({})), {})
    assert found is not None

    def refuse(self: DataBundle, part: str) -> Any:
        assert part == "validation", "the test part is read"
        return original(self, part)

    original = DataBundle.evaluate_batches
    monkeypatch.setattr(DataBundle, "evaluate_batches", refuse)
    for number, cell in enumerate([found.cells[0], found.cells[-1]]):
        assert train(cell.spec, tmp_path / str(number))["accuracy_on"] == "validation"
    on_test = cell.spec.model_copy(update={"data": cell.spec.data.model_copy(update={"evaluate_on": "test"})})
    with pytest.raises(Exception, match="the test part is read"):
        train(on_test, tmp_path / "table")


def test_what_decides_on_the_test_part_is_said(ham: Ham, tmp_path: Path) -> None:
    rows = {"Random + HAM": None, "Dense": None}
    path = config(tmp_path, tuned(on="test", rows=rows, grid={"optimizer.lr": [0.003]}, seeds=[100]))
    assert ham("sweep", path, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    (run,) = {path.parent for path in (tmp_path / "runs/tiny-tuning").glob("*/result.json")}
    assert content(run).job_type == "tune"
    text = " ".join(ham("table", tmp_path / "runs/tiny").out.split())
    assert "Settings were chosen on the test part, on which the table evaluates: its accuracies are too high." in text


def test_thresholds_are_calibrated_inside_the_tuning(ham: Ham, tmp_path: Path) -> None:
    row = {"representation": {"name": "str", "initial_threshold": -4.0, "threshold_decay": "calibrated"}}
    sweep = {
        "rows": {"STR": row},
        "columns": {"topology.sparsity": [0.7]},
        "seeds": [0],
        "tuning": {"grid": {"optimizer.lr": [0.1, 1.0e30]}, "seeds": [100]},
    }
    path = config(tmp_path, sweep, schedule__epochs=3, data__batch_size=25)
    dry = ham("sweep", path, "--out", tmp_path / "runs", "--dry-run").out
    assert "2 settings have their threshold decay searched for first\nthen 1 runs of the table" in dry
    called = ham("sweep", path, "--out", tmp_path / "runs", "--jobs", 2)
    assert called.code == 0, called.err
    assert re.search("str-0.7-1e-30-[^:]*: failed after", called.err)
    assert "no threshold decay found for sparsity 0.7" in called.err
    (entry,) = yaml.safe_load((tmp_path / "runs/tiny-tuning/calibration.yaml").read_text())
    chosen = choices(tmp_path / "runs/tiny-tuning")["STR"]
    assert (chosen["chosen"]["optimizer.lr"], chosen["lost"]) == (0.1, 1)
    assert chosen["threshold_decay"] == entry["threshold_decay"]
    (final,) = (tmp_path / "runs/tiny").glob("*/spec.yaml")
    assert yaml.safe_load(final.read_text())["representation"]["threshold_decay"] == entry["threshold_decay"]


def test_a_row_for_which_no_threshold_decay_is_found_is_named(ham: Ham, tmp_path: Path) -> None:
    row = {"representation": {"name": "str", "initial_threshold": -4.0, "threshold_decay": "calibrated"}}
    tuning = {"grid": {"optimizer.lr": [1.0e30]}, "seeds": [100]}
    sweep = {"rows": {"STR": row}, "columns": {"topology.sparsity": [0.7]}, "seeds": [0], "tuning": tuning}
    called = ham("sweep", config(tmp_path, sweep), "--out", tmp_path / "runs")
    assert called.code == 1
    assert "no setting can be chosen for 'STR' at topology.sparsity=0.7: none of 1 settings has" in called.err


def test_decays_of_settings_can_be_solved_before_and_a_search_is_kept_at_once(ham: Ham, tmp_path: Path) -> None:
    row = {"representation": {"name": "str", "initial_threshold": -4.0, "threshold_decay": "calibrated"}}
    tuning = {"grid": {"optimizer.lr": [0.1]}, "seeds": [100]}
    sweep = {"rows": {"STR": row}, "columns": {"topology.sparsity": [0.7]}, "seeds": [0], "tuning": tuning}
    path = config(tmp_path, sweep, schedule__epochs=3, data__batch_size=25)
    cluster = ham("sweep", path, "--out", tmp_path / "runs", "--cluster", "slurm")
    one_message(
        cluster, 2, "sweep.tuning: 1 settings ask for a calibrated threshold decay; solve them", "`ham calibrate"
    )
    assert ham("calibrate", path).out.endswith("1 settings solved, 0 failed, 0 there before\n")
    dry = ham("sweep", path, "--out", tmp_path / "runs", "--dry-run").out
    assert dry.splitlines()[-2] == "1 runs to do, to tune 1 rows and columns: 1 settings in all"


def test_other_settings_on_the_command_line_take_no_folder_over(whole: Path, ham: Ham) -> None:
    called = ham("sweep", whole / "tiny.yaml", "optimizer.momentum=0.5", "--out", whole / "runs")
    assert called.code == 2
    assert f"{whole}/runs/tiny-tuning: shows this table without settings on the command line" in called.err
    assert "give this one another sweep.name or --out" in called.err


def test_a_cell_of_a_table_that_is_not_tuned(ham: Ham, tmp_path: Path) -> None:
    called = ham("run-cell", config(tmp_path), "0", "--out", tmp_path / "runs")
    one_message(called, 2, "sweep.tuning: no settings are chosen for 'Random' at", "`ham tune ")


def test_what_cannot_be_tuned_is_refused_before_anything_starts(ham: Ham, tmp_path: Path) -> None:
    for sweep, words in (
        (tuned(seeds=[0]), "sweep.tuning.seeds: 0 also in the table's own seeds"),
        (tuned(grid={"topology.sparsity": [0.5, 0.8]}), "is never a setting"),
        ({**SWEEP, "tuning_cells": 3}, "sweep.tuning counts the settings itself"),
    ):
        for command in ("sweep", "tune"):
            one_message(ham(command, config(tmp_path, sweep), "--out", tmp_path / "runs"), 2, "tiny.yaml:", words)
    path = config(tmp_path, {key: value for key, value in SWEEP.items() if key != "tuning"})
    one_message(ham("tune", path), 2, "tiny.yaml: has no sweep.tuning, which lists what to try")
    wide = tuned(grid={"data.batch_size": [50, 70_000]})
    called = ham("sweep", config(tmp_path, wide), "--out", tmp_path / "runs")
    assert "data.batch_size: 70,000 is out of range" in called.err
    assert not (tmp_path / "runs").exists()
