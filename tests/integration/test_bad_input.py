"""Every fault in what the user wrote is one message that names the place, the allowed and the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Ham, one_message
from small_runs import write_config

FAULTY_OVERRIDES = {
    "optimizer.lrr=0.1": ("command line", "optimizer.lrr", "unknown key", "did you mean 'lr'?"),
    "optimiser.lr=0.1": ("optimiser", "unknown key", "did you mean 'optimizer'?"),
    "topology.name=riggl": ("topology.name", "'riggl'", "allowed: acdc, ", "did you mean 'rigl'?"),
    "representation.name=signin": ("representation.name", "pilot, plain, powerprop", "did you mean 'sign_in'?"),
    "topology={name: rigl, sparsity: 0.9, update_evry: 3}": ("topology.update_evry", "did you mean 'update_every'?"),
    "topology={name: rigl, sparsity: 95}": ("topology.sparsity", "95", "must be < 1", "write 0.95"),
    "topology={name: rigl, sparsity: 95%}": ("topology.sparsity", "95%", "a number", "write 0.95"),
    "model.name=resnet9": ("model.name", "'resnet9'", "mlp_bn", "did you mean 'resnet8'?"),
    "data.name=fashion_minst": ("data.name", "did you mean 'fashion_mnist'?"),
    "data.root=/no/such/folder": ("data.root", "/no/such/folder"),
    "data.batch_size=1000": ("data.batch_size", "1 to 300"),
    "data.validation=0": ("data.evaluate_on", "data.validation is 0"),
    "schedule.epochs=two": ("schedule.epochs", "'two'", "a whole number"),
    "seed=-1": ("seed", "must be >= 0"),
    "seed": ("'seed' is not of the form key=value",),
    "imports=[no_such_module]": ("imports", "there is no module 'no_such_module'"),
}


@pytest.mark.parametrize("override", FAULTY_OVERRIDES)
def test_a_faulty_setting(ham: Ham, tmp_path: Path, override: str) -> None:
    config = write_config(tmp_path / "tiny.yaml", **({"data__name": "fashion_mnist"} if "root" in override else {}))
    called = ham("run", config, override, "--out", tmp_path / "runs")
    one_message(called, 2, *FAULTY_OVERRIDES[override])


def test_an_illegal_combination_says_why(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", topology={"name": "rigl", "sparsity": 0.9})
    called = ham("run", config, "representation={name: str, threshold_decay: 0.1}", "--out", tmp_path / "runs")
    one_message(called, 2, "topology.name", "rigl", "str", "zero")
    assert not (tmp_path / "runs").exists()


def test_two_rows_that_are_one_run(ham: Ham, tmp_path: Path) -> None:
    rows = {"A": {"topology.name": "dense"}, "B": {"optimizer.lr": 0.1}}
    config = write_config(tmp_path / "a.yaml", sweep={"rows": rows})
    called = ham("sweep", config, "--out", tmp_path / "runs")
    one_message(called, 2, "a.yaml:", "sweep.rows.B", "'A' and 'B' are the same run")
    assert not (tmp_path / "runs").exists()


FAULTY_FILES = {
    "optimizer: {lr: 0.1}\noptimizer: {lr: 0.2}\n": ("a.yaml:2", "'optimizer' is written twice, in lines 1 and 2"),
    "extends: [b]\n": ("extends goes round in a circle", "a.yaml", "b.yaml"),
    "extends: [recipies/fashion_mnist_resnet8]\n": ("a.yaml:1", "did you mean 'recipes/fashion_mnist_resnet8'?"),
    "optimizer: {lr: 0.1\n": ("a.yaml:", "is not valid YAML"),
    "- optimizer\n": ("a.yaml:1", "must be a mapping"),
    "optimizer: {name: sgd, lr: 'fast'}\n": ("a.yaml:1", "optimizer.lr", "a number"),
}


@pytest.mark.parametrize("text", FAULTY_FILES)
def test_a_faulty_file(ham: Ham, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("extends: [a]\n")
    one_message(ham("run", tmp_path / "a.yaml", "--out", tmp_path / "runs"), 2, *FAULTY_FILES[text])


def test_several_faults_are_one_message_with_a_line_each(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", optimizer={"lr": -1.0, "momentom": 0.9})
    called = ham("run", config)
    assert called.code == 2
    lines = called.err.strip().splitlines()
    assert len(lines) == 2
    assert any("optimizer.lr" in line for line in lines)
    assert any("did you mean 'momentum'?" in line for line in lines)


def test_the_wrong_command_for_a_configuration(ham: Ham, tmp_path: Path) -> None:
    single = write_config(tmp_path / "single.yaml")
    table = write_config(tmp_path / "table.yaml", sweep={"seeds": [0, 1]})
    one_message(ham("sweep", single), 2, "single.yaml", "ham run")
    one_message(ham("run", table), 2, "sweep", "ham sweep", "sweep=null")
    one_message(ham("run", "quickstrat"), 2, "'quickstrat'", "did you mean 'quickstart'?")
    one_message(ham("methods", "rigll"), 2, "'rigll' is not a method", "did you mean 'rigl'?")


def test_folders_without_runs(ham: Ham, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("table", "status", "report"):
        one_message(ham(command, tmp_path / "none"), 2, "none")
        one_message(ham(command, tmp_path / "empty"), 2, "empty")
    assert list((tmp_path / "empty").iterdir()) == []
