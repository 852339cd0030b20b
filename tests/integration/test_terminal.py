"""What people expect of a command line: versions, help in groups with examples, completion, and what comes next."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Ham
from test_imports import blocked

from experiments.cli import complete, menu
from experiments.config.files import configs_folder, known_configs
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
