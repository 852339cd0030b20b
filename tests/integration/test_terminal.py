"""What people expect of a command line: versions, help in groups with examples, completion, and what comes next."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, one_message
from fake_sweep import finished_sweep
from small_runs import write_config
from test_imports import blocked

from experiments.cli import complete, listing, menu, terminal
from experiments.cli.loading import trained
from experiments.config.files import configs_folder, known_configs
from experiments.config.resolve import load, resolve
from scripts.reference.commands import commands
from sparsity import registry

COMMANDS: dict[str, Any] = dict(commands())
PANELS = (menu.TRAIN, menu.LOOK, menu.RESULTS, menu.KNOW, menu.CLUSTERS)


def test_versions_are_printed_without_loading_torch(tmp_path: Path) -> None:
    called = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "--version"],
        capture_output=True,
        text=True,
        env=blocked(tmp_path, "torch"),
        check=True,
    )
    lines = [line.split() for line in called.stdout.splitlines()]
    assert [words[0] for words in lines] == ["ham-suite", "Python", "torch", "device"]
    assert lines[3][1] in ("cpu", "cuda")
    import torch

    assert lines[2][1] == torch.__version__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_group_and_examples_that_are_its_own(name: str) -> None:
    command = COMMANDS[name]
    assert name.startswith("track ") or command.rich_help_panel in PANELS
    head, *examples = command.epilog.splitlines()
    assert head == "Examples:"
    assert any(one.startswith(f"ham {name}") for one in examples)
    options = {one for param in command.params for one in param.opts}
    for example in examples:
        assert len(example) < 79
        if example.startswith(f"ham {name} "):
            assert {word for word in shlex.split(example) if word.startswith("-")} <= options, example


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_and_shows_arguments_as_they_are_typed(
    ham: Ham, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    called = ham(*name.split(), "-h")
    assert called.code == 0
    assert called.out == ham(*name.split(), "--help").out
    assert max(map(len, called.out.splitlines())) <= 80
    usage = called.out.split("Usage: ")[1].split("\n \n")[0]
    assert "{" not in usage
    assert "[[" not in usage


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_configurations(tmp_path: Path, shell: str) -> None:
    def offered(line: str) -> str:
        variables = {"_HAM_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        further = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        env = {**blocked(tmp_path, "torch"), **variables, **further}
        called = [sys.executable, "-m", "experiments.cli"]
        return subprocess.run(called, capture_output=True, text=True, env=env, check=False).stdout

    assert "sweep" in offered("ham sw")
    assert "quickstart_long" in offered("ham sweep quick")
    assert "rigl_resnet50" in offered("ham run recipes/rigl_res")
    assert "rigl" in offered("ham methods ri")


def test_completion_knows_all_configurations_methods_and_keys() -> None:
    assert complete.configs("")[: len(known_configs())] == known_configs()
    assert set(complete.methods("")) == {*registry.topologies(), *registry.representations()}
    assert complete.keys("optimizer.ham.al") == ["optimizer.ham.alpha"]
    assert "quickstart" in complete.keys("quick")
    assert configs_folder().is_dir()


def test_completion_offers_folders_and_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete.folders("") == []
    for name in ("runs/first", "runs/.hidden", "elsewhere"):
        os.makedirs(name)
    Path("runs/first.ham.zip").touch()
    Path("runs/notes.txt").touch()
    assert complete.folders("") == ["runs/first/", "runs/first.ham.zip"]
    assert complete.folders("el") == ["elsewhere/"]
    assert complete.folders("no/such") == []
    Path("mine.yaml").touch()
    assert complete.configs("mi") == ["mine.yaml"]


def test_the_result_line_says_what_was_trained_and_what_comes_next(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", schedule__epochs=1)
    called = ham("run", config, "topology.name=random", "topology.sparsity=0.5", "optimizer.ham={}", "--out", tmp_path)
    (folder,) = tmp_path.glob("tiny-*")
    assert called.out.startswith(f"{folder}: Random + HAM, accuracy ")
    assert called.out.endswith("% on validation, sparsity 50.00%, 0 mask updates\n")
    assert f"next: `ham report {folder}`" in called.err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "Dense"),
        (["topology.name=acdc", "topology.sparsity=0.9"], "AC/DC"),
        (["representation.name=spred"], "spred"),
        (["topology.name=set", "topology.sparsity=0.9", "optimizer.ham={}", "optimizer.sam={}"], "SET + HAM + SAM"),
    ],
)
def test_what_is_trained_is_named_as_in_papers(words: list[str], name: str) -> None:
    assert trained(resolve(load("base", words))) == name


def test_methods_as_json_have_what_the_text_has(ham: Ham) -> None:
    found = json.loads(ham("methods", "--json").out)
    assert {one["name"] for one in found} == {*registry.topologies(), *registry.representations()}
    (rigl,) = json.loads(ham("methods", "rigl", "--json").out)
    assert {option["name"] for option in rigl["options"]} >= {"update_every", "drop_fraction"}
    assert all(option["doc"] in ham("methods", "rigl").out for option in rigl["options"])


@pytest.mark.parametrize("cls", [*registry.topologies().values(), *registry.representations().values()])
def test_a_method_is_found_by_its_title(ham: Ham, cls: Any) -> None:
    assert ham("methods", cls.title).out == ham("methods", listing.find(cls.title).name).out != ""


def test_an_optimizer_is_no_method(ham: Ham) -> None:
    one_message(ham("methods", "ham"), 2, "ham: is an optimizer, not a method: `ham config optimizer.ham` has its keys")


def test_a_dry_run_as_json(ham: Ham, tmp_path: Path) -> None:
    sweep = {"rows": {"Dense": None, "Random": {"topology.name": "random"}}, "seeds": [0, 1]}
    config = write_config(tmp_path / "table.yaml", topology={"sparsity": 0.5}, sweep=sweep)
    told = json.loads(ham("sweep", config, "--dry-run", "--json", "--rows", "Random", "--out", tmp_path).out)
    assert (told["stage"], told["runs"], told["reused"]) == ("table", 2, {})
    assert [(run["row"], run["seed"]) for run in told["to_do"]] == [("Random", 0), ("Random", 1)]
    one_message(ham("sweep", config, "--json"), 2, "--json: belongs to --dry-run on this machine")
    tuned = {**sweep, "tuning": {"seeds": [100], "grid": {"optimizer.lr": [0.1, 0.2]}}}
    config = write_config(tmp_path / "tuned.yaml", topology={"sparsity": 0.5}, sweep=tuned)
    for command in ("sweep", "tune"):
        told = json.loads(ham(command, config, "--dry-run", "--json", "--out", tmp_path).out)
        assert (told["stage"], len(told["to_do"])) == ("tuning", 4)


def test_no_color_switches_colours_off() -> None:
    def shown(**variables: str) -> str:
        env = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", **variables}
        called = [sys.executable, "-m", "experiments.cli", "-h"]
        return subprocess.run(called, capture_output=True, text=True, env=env, check=True).stdout

    coloured = re.compile(r"\x1b\[(\d+;)*3[0-7]")
    assert coloured.search(shown())
    assert not coloured.search(shown(NO_COLOR="1"))


@pytest.mark.parametrize("columns", [60, 80, 118, 200])
def test_tables_and_lists_fit_the_terminal(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    runs = finished_sweep(tmp_path / "runs")
    whole = {words: ham(*words).out for words in (("table", str(runs)), ("methods",))}
    monkeypatch.setattr(terminal, "width", lambda: columns)
    for words, piped in whole.items():
        text = ham(*words).out
        lines = [line for line in text.splitlines() if "left out to fit" not in line]
        assert max(map(len, lines)) <= max(columns, 80)
        assert (f"left out to fit {columns} columns" in text) == (max(map(len, piped.splitlines())) > columns)
    names = [*registry.topologies(), *registry.representations()]
    assert all(re.search(rf"^  {name} ", ham("methods").out, flags=re.MULTILINE) for name in names)
