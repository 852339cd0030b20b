"""The reference is complete, up to date, and true: every command, key, method and public name has its page."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

import sparsity
from experiments.config.described import described
from experiments.config.schema import CellRule, Spec, SweepSpec
from scripts.reference import DOCS, REGENERATE, api, commands, loops, pages, stale
from slurm.profile import Profile
from sparsity import registry

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "configuration": (Spec, ROOT / "configs/base.yaml"),
    "profile": (Profile, ROOT / "slurm/profiles/default.yaml"),
}


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


def test_pages_are_up_to_date(written):
    old = [name for name, text in written.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert not old, f"out of date: {', '.join(old)}; run {REGENERATE}"
    assert stale(written) == []


def keys(model: type[BaseModel], above: str = "") -> set[str]:
    """The dotted keys of a model, found apart from how the page finds them."""
    found = set()
    for name, field in model.model_fields.items():
        path = f"{above}.{name}".lstrip(".")
        inner = [t for t in _parts(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        direct = inner and typing.get_origin(field.annotation) not in (list, dict)
        found |= keys(inner[0], path) if direct else set()
        found |= set() if direct and inner == [field.annotation] else {path}
    return found


def _parts(annotation: typing.Any) -> list[typing.Any]:
    inner = typing.get_args(annotation)
    return [annotation, *(part for one in inner for part in _parts(one))] if inner else [annotation]


@pytest.mark.parametrize(
    ("page", "model", "above"),
    [
        ("configuration", Spec, ""),
        ("profile", Profile, ""),
        ("table_file", SweepSpec, "sweep"),
        ("table_file", CellRule, ""),
    ],
)
def test_every_key_has_a_line_and_a_meaning(written, page, model, above):
    lines = re.findall(r"^\| `([\w.]+)`.*\| (.*) \|$", written[f"reference/{page}.md"], flags=re.MULTILINE)
    assert keys(model, above) <= {key for key, _ in lines}
    assert [key for key, meaning in lines if not meaning] == []


@pytest.mark.parametrize("kind", MODELS)
def test_defaults_are_those_of_the_base_file(kind):
    model, file = MODELS[kind]
    found = {key.path: key for key in described(model, file)}
    some = {
        "configuration": ("optimizer.lr", "0.1", "float > 0"),
        "profile": ("hours", "4.0", "float > 0 and <= 8,784"),
    }
    path, default, allowed = some[kind]
    assert (found[path].default, found[path].allowed) == (default, allowed)


def test_every_command_and_option_is_in_the_page(written):
    page = written["reference/command_line.md"]
    for name, command in commands.commands():
        section = page.split(f"\n## ham {name}\n")[1].split("\n## ")[0]
        assert [
            o for p in command.params if not p.hidden for o in p.opts if o.startswith("--") and o not in section
        ] == []
        assert [p.name for p in command.params if not p.help] == []


def test_every_public_name_is_in_a_page_with_a_sentence(written):
    for package in api.PACKAGES:
        page = written[f"reference/api/{package.replace('.', '_')}.md"]
        for name in api.names(package):
            assert re.search(rf"^\| `{package}\.{name}` \| \S.* \|$", page, flags=re.MULTILINE), name
            assert f".{name}\n" in page


def test_every_option_of_every_method_has_a_meaning():
    for cls in {**registry.topologies(), **registry.representations()}.values():
        assert [f.name for f in dataclasses.fields(cls.Options) if not f.metadata["doc"]] == []


def trained(topology: str, representation: str) -> None:
    """Train in a loop that gives exactly what the table says."""
    needs = loops.needs_of_topology(registry.topology(topology)) + loops.needs_of_representation(
        registry.representation(representation)
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    loader = [(torch.randn(64, 8), torch.tensor([0, 1] * 32)) for _ in range(12)]
    loss = torch.nn.functional.cross_entropy
    optimizer = torch.optim.SGD(sparsity.represent(model, representation).param_groups(), lr=0.05)
    given = {"steps_per_epoch": 4} if loops.EPOCHS in needs else {}
    if loops.PROBE in needs:
        given["probe"] = sparsity.Probe(lambda: iter(loader), loss, (8,), 2)
    if "update_every" in {f.name for f in dataclasses.fields(registry.topology(topology).Options)}:
        given["update_every"] = 2 if loops.EPOCHS not in loops.needs_of_topology(registry.topology(topology)) else 1
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.5, total_steps=12, **given)
    metrics = {"metrics": lambda: {"train_accuracy": 0.5}} if loops.METRICS in needs else {}
    while sparse.steps_done < sparse.total_steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            sparse.step(**metrics)
        if sparse.level_ended:
            assert loops.LEVELS in needs
            sparse.next_level()
    sparse.finalize()


PAIRS = [(t, r) for t in registry.topologies() for r in registry.representations() if not registry.refusal(t, r)]


@pytest.mark.parametrize(
    ("topology", "representation"), [pair for pair in PAIRS if pair[1] == "plain" or pair[0] == "gmp"]
)
def test_a_loop_that_gives_what_the_table_says_is_enough(topology, representation):
    trained(topology, representation)


@pytest.mark.parametrize(("topology", "representation"), [("snip", "plain"), ("mest", "plain"), ("gmp", "sign_in")])
def test_what_the_table_says_is_needed(monkeypatch, topology, representation):
    monkeypatch.setattr(loops, "needs_of_topology", lambda cls: "")
    monkeypatch.setattr(loops, "needs_of_representation", lambda cls: "")
    with pytest.raises(ValueError, match=r"Probe|steps_per_epoch"):
        trained(topology, representation)


def test_every_pair_that_is_refused_is_in_the_table():
    rows = re.findall(r"^\| ([\w, ]+) \| ([\w, ]+) \| the topology", loops.needs_table(), flags=re.MULTILINE)
    stated = {(t, r) for tops, reps in rows for t in tops.split(", ") for r in reps.split(", ")}
    assert stated == {(t, r) for t in registry.topologies() for r in registry.representations()} - set(PAIRS)
