"""What an earlier command left is used only for what it is: the same specification, data, weights and code."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Ham, one_message
from small_runs import contents, result, resumptions, tiny_spec, train, train_until, write_config
from test_plugins import METHOD

from experiments.config.identity import folder_suffix, identity_with_data
from experiments.errors import RunFailure, UserError
from experiments.rundir import environment
from experiments.rundir.result import seal
from results.table.formats import render

ROWS: dict[str, Any] = {"A": {}, "B": {"optimizer.lr": 0.05}}


def sweep(folder: Path, rows: dict[str, Any] | None = None, name: str = "t", **more: Any) -> Path:
    return write_config(folder / f"{name}.yaml", schedule__epochs=1, sweep={"rows": rows or ROWS, "seeds": [0]}, **more)


def attempts(runs: Path) -> int:
    return len(list(runs.glob("*/attempts/*.json")))


# ---- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("open_registry")
def test_a_method_that_was_edited_trains_again_and_says_so(ham: Ham, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    config = sweep(folder, {"A": {}}, imports=["toy_methods"], topology={"name": "halves", "sparsity": 0.5})
    kept = []
    for share in (0.5, 0.25):
        (folder / "helper_of_toy.py").write_text(f"SHARE = {share}\n")
        (folder / "toy_methods.py").write_text(f"from helper_of_toy import SHARE\n{METHOD}".replace("0.5,", "SHARE,"))
        called = ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
        assert called.code == 0, called.err
        kept.append(called.said)
        sys.modules.pop("toy_methods")
        sys.modules.pop("helper_of_toy")
    table = ham("table", tmp_path / "runs/t", "--format", "csv").out
    assert "0.7501" in table
    assert kept[0] == ""
    assert "1 run of the table so far (A) had other settings, seeds, data or code, and are no longer in it" in kept[1]
    assert sorted(result(path)["sparsity"] for path in (tmp_path / "runs/t").glob("a-*")) == pytest.approx(
        [0.5, 0.75], abs=0.01
    )


def test_a_table_that_mixes_versions_of_the_suite_says_so(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(tmp_path, "schedule.epochs=1")
    own = environment.code()
    train(spec, tmp_path / "runs/a")
    assert "versions of the suite" not in render(tmp_path / "runs", "text")
    monkeypatch.setattr("experiments.run.runner.code", lambda: "0123456789ab")
    train(spec.model_copy(update={"seed": 1}), tmp_path / "runs/b")
    text = " ".join(render(tmp_path / "runs", "text").split())
    assert f"different versions of the suite's code: {own} (" in text
    assert "0123456789ab (" in text


def test_a_run_that_goes_on_under_another_version_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec, own = tiny_spec(tmp_path), environment.code()
    train_until(spec, tmp_path / "runs/a", 8)
    monkeypatch.setattr("experiments.run.runner.code", lambda: "0123456789ab")
    assert train(spec, tmp_path / "runs/a")["code"] == [own, "0123456789ab"]
    assert f"goes on under another version of the suite (0123456789ab after {own})" in caplog.text
    assert f"{own} then 0123456789ab" in " ".join(render(tmp_path / "runs", "text").split())


def test_the_code_of_the_suite_is_a_hash_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(environment.__file__).parents[2]
    for part in ("ham", "sparsity", "experiments"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    before = environment.code()
    for edited, counts in ((None, False), ("cli/main.py", False), ("run/training.py", True)):
        if edited is not None:
            path = tmp_path / "experiments" / edited
            path.write_text(path.read_text() + "\n")
        with monkeypatch.context() as patch:
            patch.setattr(environment, "_ROOT", tmp_path)
            assert (environment.code.__wrapped__() != before) == counts


# ---- names and folders -----------------------------------------------------------------------------------------------


def test_a_folder_with_another_run_of_the_same_name_is_refused(ham: Ham, tmp_path: Path) -> None:
    """Two specifications whose identities begin with the same digits."""
    config = write_config(tmp_path / "tiny.yaml", schedule__epochs=1)
    assert ham("run", config, "--out", tmp_path / "runs").code == 0
    (done,) = (tmp_path / "runs").iterdir()
    for finished in (True, False):
        other = tiny_spec(tmp_path, "schedule.epochs=1", "optimizer.lr=0.05")
        clash = tmp_path / "runs" / f"tiny{folder_suffix(identity_with_data(other), 0)}"
        done = done.rename(clash)
        for path in (clash / "result.json", clash / "attempts/0001.json"):
            if path.exists():
                kept = json.loads(path.read_text())
                kept["identity"] = identity_with_data(other)[:8] + kept["identity"][8:]
                path.write_text(json.dumps(seal(kept, clash) if path.name == "result.json" else kept))
        if not finished:
            (clash / "result.json").unlink()
        before = contents(clash)
        called = ham("run", config, "schedule.epochs=1", "optimizer.lr=0.05", "--out", tmp_path / "runs")
        one_message(called, 2, clash.name, "holds another run, whose optimizer.lr is 0.1 where this one has 0.05")
        assert contents(clash) == before


def test_a_result_of_another_seed_is_refused(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "t.yaml", schedule__epochs=1, sweep={"rows": {"A": {}}, "seeds": [0, 1]})
    assert ham("sweep", config, "sweep.seeds=[0]", "--out", tmp_path / "runs", "--jobs", 1).code == 0
    (one,) = (tmp_path / "runs/t").glob("a-*-s0")
    shutil.copytree(one, one.with_name(one.name.replace("-s0", "-s1")))
    called = ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
    one_message(called, 2, "-s1", "holds another run, whose seed is 0 where this one has 1")


def test_a_row_that_was_renamed_keeps_its_runs(ham: Ham, tmp_path: Path) -> None:
    assert ham("sweep", sweep(tmp_path), "--out", tmp_path / "runs", "--jobs", 1).code == 0
    before = attempts(tmp_path / "runs/t")
    called = ham("sweep", sweep(tmp_path, {"A": {}, "Renamed": ROWS["B"]}), "--out", tmp_path / "runs", "--jobs", 1)
    assert (called.code, called.said) == (0, "")
    assert attempts(tmp_path / "runs/t") == before
    assert "Renamed" in ham("table", tmp_path / "runs/t").out
    config = write_config(tmp_path / "one.yaml", schedule__epochs=1)
    for label in ("first", "second"):
        assert ham("run", config, f"label={label}", "--out", tmp_path / "single").code == 0
    assert [path.name[:5] for path in (tmp_path / "single").iterdir()] == ["first"]


def test_a_second_configuration_of_the_same_name_does_not_take_the_table_over(ham: Ham, tmp_path: Path) -> None:
    first = sweep(tmp_path / "p1", {"A1": {}})
    second = sweep(tmp_path / "p2", {"A2": {"optimizer.lr": 0.05}})
    grown = sweep(tmp_path / "p3", {"A1": {}, "A2": {"optimizer.lr": 0.05}})
    assert ham("sweep", first, "--out", tmp_path / "runs", "--jobs", 1).code == 0
    before = contents(tmp_path / "runs")
    called = ham("sweep", second, "--out", tmp_path / "runs", "--jobs", 1)
    one_message(called, 2, "runs/t: shows the table of", "p1/t.yaml", "p2/t.yaml does not have (A1)", "sweep.name")
    assert contents(tmp_path / "runs") == before
    assert ham("sweep", grown, "--out", tmp_path / "runs", "--jobs", 1).said == ""


# ---- initial weights and data ----------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Path:
    train(tiny_spec(tmp_path, "seed=7", "schedule.epochs=1"), tmp_path / "begin")
    return shutil.copyfile(tmp_path / "begin/weights.pt", tmp_path / "w0.pt")


def at(number: int, act: Callable[[], Any]) -> Callable[[int, int], None]:
    return lambda done, total: act() if done == number else None


def test_the_file_of_initial_weights_is_needed_once(tmp_path: Path, start: Path) -> None:
    """It is removed while the run trains: the run ends, and one that was stopped goes on without it."""
    spec = tiny_spec(tmp_path, f"model.weights={start}")
    hashed = identity_with_data(spec)
    from experiments.run import runner

    whole = runner.run(spec, tmp_path / "whole", hashed)
    step = 0

    def remove(done: int, total: int) -> None:
        nonlocal step
        step = done
        start.unlink(missing_ok=True)

    with pytest.raises(Exception, match="stopped at step 8"):
        runner.run(spec, tmp_path / "run", hashed, progress=remove, stop=lambda: step == 8)
    done = runner.run(spec, tmp_path / "run", hashed)
    assert resumptions(tmp_path / "run") == [8]
    assert done["initial_weights"] == whole["initial_weights"]
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_the_same_command_goes_on_without_the_file(ham: Ham, tmp_path: Path, start: Path) -> None:
    config = write_config(tmp_path / "t.yaml", model__weights=str(start))
    whole = ham("run", config, "--out", tmp_path / "whole")
    from experiments.config.resolve import load, resolve

    spec = resolve(load(str(config)))
    (done,) = (tmp_path / "whole").iterdir()
    train_until(spec, tmp_path / "runs" / done.name, 8)
    start.unlink()
    called = ham("run", config, "--out", tmp_path / "runs")
    assert (called.code, called.said) == (0, "")
    assert called.out.replace("/runs/", "/whole/") == whole.out
    assert resumptions(tmp_path / "runs" / done.name) == [8]
    called = ham("run", config, "optimizer.lr=0.05", "--out", tmp_path / "runs")
    one_message(called, 2, "model.weights", "No such file")


def test_another_file_under_its_name_is_noticed(tmp_path: Path, start: Path) -> None:
    """Between the moment at which it is hashed and that at which it is read; what was read is what the result says."""
    from experiments.models.weights import content_hash
    from experiments.run import runner

    spec = tiny_spec(tmp_path, f"model.weights={start}")
    hashed, digest = identity_with_data(spec), content_hash(str(start))
    good = start.read_bytes()
    replaced = torch.load(start, weights_only=True)
    replaced["state"]["model"] = {name: value * 0 for name, value in replaced["state"]["model"].items()}
    torch.save(replaced, start)
    with pytest.raises(RunFailure, match=r"the data, the file of model\.weights \(.*w0\.pt\) that this run has read"):
        runner.run(spec, tmp_path / "run", hashed)
    start.write_bytes(good)
    done = runner.run(spec, tmp_path / "run", hashed, progress=at(3, lambda: torch.save(replaced, start)))
    assert done["initial_weights"] == digest


def test_data_that_change_after_they_were_hashed_are_noticed(tmp_path: Path) -> None:
    from experiments.run import runner

    spec = tiny_spec(tmp_path)
    with pytest.raises(RunFailure, match="the data that this run has read are not those that its command has seen"):
        runner.run(spec, tmp_path / "run", "0" * 64)
    assert "changed meanwhile" in json.loads((tmp_path / "run/failure.json").read_text())["error"]


def test_nobody_reads_the_folder_of_another_run(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    train_until(spec, tmp_path / "run", 8)
    other = tiny_spec(tmp_path, "optimizer.lr=0.05")
    with pytest.raises(UserError, match=r"whose optimizer\.lr is 0\.1"):
        train(other, tmp_path / "run")
    assert os.listdir(tmp_path / "run/attempts") == ["0001.json"]
