"""Every fault in what the user wrote is one message that names the place, the allowed and the nearest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import Ham, one_message
from small_runs import write_config

from results.numbers.best import _edge

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


LEAVING = {
    "raise SystemExit(0)": "SystemExit: 0",
    "import sys; sys.exit()": "SystemExit",
    "import os; os._exit(0)": "calls os._exit(0)",
    "raise BaseException('no')": "BaseException: no",
    "class Mute(OSError):\n    def __str__(self): raise ValueError\nraise Mute": "its text cannot be made, ValueError",
}


@pytest.mark.parametrize("code", LEAVING)
@pytest.mark.parametrize("command", ["run", "sweep", "methods"])
def test_a_module_that_leaves_while_it_is_imported(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, command: str
) -> None:
    """A script without a guard would end the command with code 0 and nothing done."""
    (tmp_path / "leaving.py").write_text(code)
    monkeypatch.delitem(sys.modules, "leaving", raising=False)
    monkeypatch.chdir(tmp_path)
    config = write_config(
        tmp_path / "a.yaml", imports=["leaving"], sweep={"seeds": [0]} if command == "sweep" else None
    )
    called = ham(command, "--import", "leaving") if command == "methods" else ham(command, config)
    one_message(called, 2, "the module 'leaving' fails on import", LEAVING[code], "leaving.py:")


def test_a_table_without_an_end_is_refused(ham: Ham, tmp_path: Path) -> None:
    columns = {f"optimizer.{key}": [0.001 * n for n in range(1, 301)] for key in ("lr", "momentum", "weight_decay")}
    config = write_config(tmp_path / "a.yaml", sweep={"columns": columns})
    one_message(ham("sweep", config, "--dry-run"), 2, "a.yaml:", "sweep.columns", "27,000,000 cells; at most 100,000")


@pytest.mark.parametrize("key", ["label", "the file", "sweep"])
def test_long_names_are_cut(ham: Ham, tmp_path: Path, key: str) -> None:
    stem = "s" * 200 if key == "the file" else "a"
    rows = {"sweep": {"rows": {"r" * 400: {}}}} if key == "sweep" else {}
    config = write_config(tmp_path / f"{stem}.yaml", schedule__epochs=1, data__train_limit=50, **rows)
    more = [f"label={'x' * 400}"] if key == "label" else []
    called = ham("sweep" if key == "sweep" else "run", config, *more, "--out", tmp_path / "runs")
    assert called.code == 0, called.err
    folders = [path.parent.name for path in (tmp_path / "runs").rglob("result.json")]
    assert [len(folder) for folder in folders] == [80]


@pytest.mark.parametrize("text", ["a\\nb", "a\\tb", "a\\x1b[31mb", "a\\u202eb", "a\\u2028b"])
def test_a_label_is_one_line_that_steers_nothing(ham: Ham, tmp_path: Path, text: str) -> None:
    one_message(ham("run", write_config(tmp_path / "a.yaml"), f'label="{text}"'), 2, "label")
    for section in (f'rows: {{"{text}": {{}}}}', f'title: "{text}"'):
        config = write_config(tmp_path / "b.yaml")
        config.write_text(f"{config.read_text()}sweep: {{{section}}}\n")
        one_message(ham("sweep", config, "--dry-run"), 2, "b.yaml")


DEMANDS = {
    "topology={name: rigl, sparsity: 0.9, update_every: 3}": ("{compress: {at_least: 1}}", "will record 0"),
    "topology={name: acdc, sparsity: 0.9}": ("{initial: {at_least: 1}}", "8 compress, 7 decompress"),
    "topology.name=dense": ("{initial: {at_least: 1}}", "all of its events: none"),
    "topology={name: gmp, sparsity: 0.9}": ("{initial: {at_least: 1}}", "prune"),
    "topology={name: set, sparsity: 0.9, update_every: 3}": ("{update: {at_least: 1000000}}", "1000000 are demanded"),
    "representation={name: sign_in, reset_every: 2}": ("{reset: {at_least: 2}}", "will record 1"),
    "representation.name=spred": ("{cut: {at_least: 1}}", "will record 0"),  # without a sparsity there is no cut
}


@pytest.mark.parametrize("method", DEMANDS)
def test_a_demand_that_cannot_be_met_is_refused_before_the_training(ham: Ham, tmp_path: Path, method: str) -> None:
    demand, words = DEMANDS[method]
    called = ham(
        "run", write_config(tmp_path / "a.yaml"), method, f"checks.events={demand}", "--out", tmp_path / "runs"
    )
    one_message(called, 2, "checks.events.", words, "lower at_least, or remove the demand")
    assert not (tmp_path / "runs").exists()


def test_a_report_takes_the_place_of_a_report_alone(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", schedule__epochs=1, sweep={"seeds": [0]})
    assert ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 1).code == 0
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.html").symlink_to(tmp_path / "target")
    for place, words in {
        tmp_path / "pipe": "is a pipe",
        tmp_path / "link.html": "is a symbolic link",
        tmp_path / "runs": "is a folder",
        Path("/dev/null"): "is a device",
        tmp_path / "none/x.html": "there is no folder",
    }.items():
        one_message(ham("report", tmp_path / "runs/a", "-o", place), 2, str(place), words)
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "none").exists()
    assert ham("report", tmp_path / "runs/a", "-o", tmp_path / "x.html").code == 0


@pytest.mark.parametrize("values", ["[null, 1.0, 5.0]", "[true, false]", "[a, 1.0, null]"])
def test_best_names_values_that_have_no_order(tmp_path: Path, values: str) -> None:
    tried = yaml.safe_load(values)
    assert [_edge(tried, value) for value in tried] == [""] * len(tried)
    assert [_edge([None, 1.0, 2.0, 5.0], value) for value in (None, 1.0, 2.0, 5.0)] == ["", "<", "", ">"]


def test_a_file_in_place_of_a_run_folder_is_named_with_the_way_out(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "a.yaml", schedule__epochs=1, data__train_limit=50)
    assert ham("run", config, "--out", tmp_path / "one").code == 0
    (folder,) = (tmp_path / "one").iterdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / folder.name).touch()
    called = ham("run", config, "--out", tmp_path / "two")
    one_message(called, 1, folder.name, "File exists; something else has this name; move it away")


@pytest.mark.robust
def test_what_is_damaged_is_said_once(tmp_path: Path) -> None:
    """A sweep looks at each result several times."""
    config = write_config(tmp_path / "a.yaml", schedule__epochs=1, data__train_limit=50, sweep={"seeds": [0]})
    command = [sys.executable, "-m", "experiments.cli", "sweep", str(config), "--out", str(tmp_path / "runs")]
    assert subprocess.run(command, check=False).returncode == 0
    (result,) = (tmp_path / "runs").glob("*/*/result.json")
    result.write_text('{"a":')
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0
    assert said.stderr.count("is not JSON") == 1
