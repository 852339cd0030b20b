"""Mistakes in a command line: every command says them in one line, with the part, what is allowed and the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from commands import Ham, one_message

from experiments.cli.main import app


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield (*words, name), one
        yield from _commands(one, (*words, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))
LEAVES = {words: one for words, one in COMMANDS.items() if not hasattr(one, "commands")}
OPTIONS = [(words, param) for words, one in LEAVES.items() for param in one.params if param.param_type_name == "option"]


def _given(command: Any, without: Any) -> list[str]:
    """The required parts of a command line before one of them."""
    words: list[str] = []
    for param in command.params:
        if param is without:
            break
        if param.required:
            words += [param.opts[0], "1"] if param.param_type_name == "option" else ["x"]
    return words


def test_there_is_something_to_test() -> None:
    assert {("sweep",), ("power",), ("track", "push")} <= LEAVES.keys()
    assert any(param.required for _, param in OPTIONS)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_what_is_missing_is_named(ham: Ham, words: tuple[str, ...]) -> None:
    command = LEAVES[words]
    for param in (one for one in command.params if one.required):
        option = param.param_type_name == "option"
        name = param.opts[0] if option else param.metavar or param.name.upper()
        others = [] if option else _given(command, param)
        if option:  # the arguments are checked first
            others = ["x" for one in command.params if one.required and one.param_type_name != "option"]
        expected = f"error: {name}: is missing: "
        one_message(ham(*words, *others), 2, expected, f"`ham {' '.join(words)} --help` says more")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_misspelt_option_gets_the_nearest_one(ham: Ham, words: tuple[str, ...]) -> None:
    one_message(ham(*words, "--zzzzz"), 2, f"error: --zzzzz: is no option of `ham {' '.join(words)}`; `ham ")
    for param in COMMANDS[words].params:
        for name in (one for one in param.opts if one.startswith("--")):
            one_message(ham(*words, f"{name}x"), 2, f"{name}x: is no option", f"; did you mean {name!r}?")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_misspelt_command_gets_the_nearest_one(ham: Ham, words: tuple[str, ...]) -> None:
    *above, last = words
    one_message(ham(*above, f"{last}x"), 2, f"error: {last}x".replace(last, f"'{last}", 1), f"; did you mean {last!r}?")


@pytest.mark.parametrize(
    ("words", "param"), OPTIONS, ids=lambda one: one.name if hasattr(one, "name") else "-".join(one)
)
def test_a_value_too_few_or_too_many(ham: Ham, words: tuple[str, ...], param: Any) -> None:
    longest = max(param.opts, key=len)
    if param.is_flag:
        one_message(ham(*words, f"{longest}=1"), 2, f"error: {longest}: takes no value")
    else:
        one_message(ham(*words, longest), 2, f"error: {longest}: needs a value")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sweep", "q", "--jobs", "0"), "--jobs: must be greater than or equal to 1"),
        (("sweep", "q", "-j", "many"), "--jobs: must be a valid integer"),
        (
            ("sweep", "q", "--cluster", "slrm"),
            "--cluster: 'slrm' is not one of 'local', 'slurm'; did you mean 'slurm'?",
        ),
        (("doctor",), "WHAT: is missing: What to look at: slurm; allowed: local, slurm; "),
        (("methods", "a", "b"), "got unexpected extra argument(s) (b); `ham methods --help` says what it takes"),
        (("--versions",), "--versions: is no option of `ham`; did you mean '--version'?"),
    ],
)
def test_values_that_are_not_allowed(ham: Ham, words: tuple[str, ...], said: str) -> None:
    one_message(ham(*words), 2, f"error: {said}")


def test_nothing_at_all_shows_what_there_is(ham: Ham) -> None:
    called = ham()
    assert called.code == 2
    assert "sweep" in called.out + called.err
    assert "error" not in called.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "base", "model.name=resnet50"), "did you mean 'torchvision:resnet50'?"),
        (("run", "base", "model.name=ResNet18"), "did you mean 'torchvision:resnet18'?"),
        (("run", "base", "model.name=mobilevit_s"), "did you mean 'timm:mobilevit_s'?"),
        (("run", "base", "runtime.device=gpu"), "did you mean 'cuda'?"),
        (("run", "base", "runtime.amp=float16"), "did you mean 'fp16'?"),
        (("run", "base", "topology.name=AC/DC"), "did you mean 'acdc'?"),
        (("run", "base", "representation.name=Sign-In"), "did you mean 'sign_in'?"),
        (("run", "base", "optimizer.learning_rate=0.2"), "did you mean 'lr'?"),
        (("run", "base", "--lr", "0.2"), "settings are written without dashes: did you mean optimizer.lr=...?"),
        (("sweep", "quickstart", "--learning-rate", "0.2"), "did you mean optimizer.lr=...?"),
        (("run", "base", "--optimizer.lr=0.2"), "did you mean optimizer.lr=...?"),
        (("sweep", "quickstart", "--batch-size", "2"), "did you mean data.batch_size=...?"),
        (("run", "base", "optimizer.ham=true"), "optimizer.ham: true is not a mapping; write {} for its defaults"),
        (("table", "runs/x", "--format", "tex"), "did you mean 'latex'?"),
    ],
)
def test_what_goes_by_another_name_elsewhere_is_understood(ham: Ham, words: tuple[str, ...], said: str) -> None:
    one_message(ham(*words), 2, said)


def test_every_other_word_means_one_of_the_suite() -> None:
    from experiments import errors
    from experiments.cli.settings import known_keys

    keys = known_keys()
    words = {part for key in keys for part in (*key.path.split("."), *key.allowed.split(" | "))}
    words |= {"latex", "markdown", "fashion_mnist"}
    assert set(errors._SYNONYMS.values()) <= words
    assert all(errors.bare(name) == name for name in errors._SYNONYMS)
