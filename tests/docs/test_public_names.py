"""Each public name says in `help` what it is for, with an example that runs, its arguments and its errors."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import re
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import write_sweep

import sparsity
from experiments import data
from scripts.reference.api import PACKAGES, names, thing

LONGEST = 8  # lines of an example
SCREEN = 24  # lines of a docstring before its arguments
# examples that take seconds; tests of their own run them
SKIPPED = {"sparsity.testing.check_topology", "sparsity.testing.check_representation"}
ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {f"{package}.{name}": thing(package, name) for package in PACKAGES for name in names(package)}
# base classes and protocols are made by the engine, errors by what raises them, and values check nothing
UNCALLED = {"sparsity.Context", "sparsity.Topology", "sparsity.Representation", "sparsity.Plan"}


def doc(name: str) -> str:
    return inspect.getdoc(PUBLIC[name]) or ""


def section(text: str, heading: str) -> str:
    found = re.search(rf"^{heading}:\n((?:    .*\n|\n)+)", f"{text}\n", flags=re.MULTILINE)
    return found[1] if found else ""


def arguments(called: Any) -> list[str]:
    return [name for name in inspect.signature(called).parameters if name not in ("self", "args", "kwargs")]


def is_called(name: str) -> bool:
    named = PUBLIC[name]
    error = isinstance(named, type) and issubclass(named, Exception)
    return not (isinstance(named, types.ModuleType) or error or name in UNCALLED) and bool(arguments(named))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the quickstart's table, as examples of `results` expect it."""
    folder = tmp_path_factory.mktemp("examples")
    rows = {"Dense": {}, "RiGL": {"topology.name": "rigl"}, "RiGL+HAM": {"topology.name": "rigl", "optimizer.ham": {}}}
    accuracies = {"Dense": [0.81, 0.83], "RiGL": [0.79, 0.81], "RiGL+HAM": [0.80, 0.82]}
    write_sweep(folder / "runs/quickstart", accuracies, rows, seeds=(0, 1), baselines={"RiGL+HAM": "RiGL"})
    return folder


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a public name and of its own methods."""
    named = PUBLIC[name]
    module = named if isinstance(named, types.ModuleType) else sys.modules[named.__module__]
    finder = doctest.DocTestFinder(recurse=isinstance(named, type))
    return [test for test in finder.find(named, name, module=module, globs={}) if test.examples]


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch, open_registry: None):
    """By themselves: an example imports what it needs."""
    monkeypatch.chdir(runs)
    monkeypatch.setattr(data, "DATASETS", dict(data.DATASETS))
    torch.manual_seed(0)
    said: list[str] = []
    for test in examples(name):
        failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append).failed
        assert not failed, "".join(said)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_first_sentence_and_the_example(name: str):
    first = doc(name).partition("\n\n")[0]
    assert first.endswith("."), first
    assert len(first) <= 130
    own = [test for test in examples(name) if test.name == name]
    assert own, f"{name} has no example"
    assert "\n\nExample:\n" in doc(name)
    lines = [line for example in own[0].examples for line in example.source.splitlines()]
    assert 1 <= len(lines) <= LONGEST
    skipped = any(doctest.SKIP in example.options for example in own[0].examples)
    assert skipped == (name in SKIPPED)


@pytest.mark.parametrize("name", [name for name in PUBLIC if is_called(name)])
def test_arguments_and_errors_are_described_in_order(name: str):
    text = doc(name)
    is_value = dataclasses.is_dataclass(PUBLIC[name])
    described = section(text, "Attributes" if is_value else "Args")
    if name != "sparsity.SparseTraining":  # made by `attach`, which describes them
        missing = [
            one
            for one in arguments(PUBLIC[name])
            if not re.search(rf"^    \*{{0,2}}{one}: ", described, flags=re.MULTILINE)
        ]
        assert missing == []
    # statistics are undefined for some samples, and say so where they return
    assert section(text, "Raises") or is_value or name.startswith("results.numbers.")
    order = [text.find(f"\n{heading}:\n") for heading in ("Example", "Args", "Returns", "Raises", "Notes")]
    found = [place for place in order if place >= 0]
    assert found == sorted(found), f"{name}: sections are Example, Args, Returns, Raises, Notes"
    if not is_value and "Args" in text:
        assert text[: text.find("\nArgs:\n")].count("\n") < SCREEN, f"{name}: arguments begin below the first screen"


@pytest.mark.parametrize("name", [name for name in PUBLIC if isinstance(PUBLIC[name], type)])
def test_methods_describe_their_arguments_where_they_describe_any(name: str):
    """Each own public method has a sentence, and a list of arguments is complete."""
    for member, function in inspect.getmembers(PUBLIC[name], inspect.isfunction):
        field = member in getattr(PUBLIC[name], "__dataclass_fields__", ())
        if field or member.startswith("_") or not function.__module__.startswith(name.partition(".")[0]):
            continue
        text = inspect.getdoc(function) or ""
        assert text.partition("\n\n")[0].rstrip().endswith("."), f"{name}.{member}"
        if given := section(text, "Args"):
            missing = [one for one in arguments(function) if not re.search(rf"^    {one}: ", given, flags=re.MULTILINE)]
            assert missing == [], f"{name}.{member}"


def offered(owner: object) -> Iterator[str]:
    """What an object offers beside methods: public attributes and properties of its own."""
    yield from (name for name in vars(owner) if not name.startswith("_"))
    for cls in type(owner).__mro__:
        if cls.__module__.startswith(("ham", "sparsity")):
            yield from (name for name, member in vars(cls).items() if isinstance(member, property) and name[0] != "_")


def test_what_a_training_offers_is_in_its_help():
    model = torch.nn.Linear(10, 10)
    sparse = sparsity.attach("random", model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.5, total_steps=1)
    listed = section(doc("sparsity.SparseTraining"), "Attributes")
    stored = [name for name in vars(sparse) if name[0] != "_"]
    assert [name for name in stored if f"\n    {name}: " not in f"\n{listed}"] == []
    for name in offered(sparse):
        assert name in doc("sparsity.SparseTraining") or inspect.getdoc(getattr(type(sparse), name)), name


PROGRAM = ROOT / "tests/docs/typed_user.py"


def test_the_user_program_runs():
    runpy.run_path(str(PROGRAM))


def test_the_user_program_states_the_type_of_what_a_training_offers():
    """pyright checks the statements (make lint); here, that none of the four is left out."""
    stated = ast.unparse(ast.parse(PROGRAM.read_text()))
    for name in ("masks", "densities()", "events", "shapes", "verdict"):
        assert re.search(rf"assert_type\(\w+\.{re.escape(name)}, ", stated), name
