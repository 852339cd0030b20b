"""What a dry run accepts, construction accepts: each key and option, at its bounds, beyond them and of wrong types.

Acceptance is that of `ham sweep --dry-run`: the configuration resolves, and `check`, which constructs on the meta
device, finds nothing. Construction is then done for real: data, network, representation, average, optimizer and the
topology with its first masks.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from experiments import data as datasets
from experiments.config.identity import identity
from experiments.config.keys import assign_text
from experiments.config.resolve import Loaded, load, resolve
from experiments.config.schema import DataSpec, EventKind, HamSpec, SamSpec, Spec
from experiments.data import Outline
from experiments.errors import UserError
from experiments.run.build import build
from experiments.run.check import check
from experiments.run.schedule import lr_multiplier
from ham import HAM, SAM
from sparsity import registry

ODD: list[Any] = [None, True, False, "text", -1, 0.5, 3, math.inf, {}]
NEEDED = {  # without which nothing is accepted, or too much to do
    "granet": ["topology.update_every=3"],
    "grasp": ["topology.per_class=2"],
    "mest": ["topology.update_every=1", "topology.sparsity=0.4"],
    "rigl": ["topology.update_every=5"],
    "set": ["topology.update_every=5"],
    "synflow": ["topology.rounds=2"],
}
CONTEXT = {"topology": ["topology.sparsity=0.9"], "representation": ["topology.sparsity=0.9"]}
SMALL = [
    *("model.name=mlp_bn", "schedule.epochs=3"),
    *("data.name=synthetic", "data.train_limit=200", "data.batch_size=20", "data.validation=100"),
]


# ---- what there is to try -------------------------------------------------------------------------------------------


def around(bounds: dict[str, float], whole: bool) -> list[Any]:
    """Values at each bound and next to it on both sides."""
    tried: list[Any] = []
    for bound in bounds.values():
        step = 1 if whole else max(abs(bound), 1.0) * 1e-9
        tried += [bound, bound - step, bound + step]
    return [int(value) for value in tried] if whole else [float(value) for value in tried]


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """Bounds of a field, also of one that may be null."""
    found: dict[str, float] = {}
    names = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
    pending = [*field.metadata, field.annotation]
    while pending:
        item = pending.pop()
        if type(item) in names:
            found[names[type(item)]] = getattr(item, names[type(item)])
        elif isinstance(item, FieldInfo):
            pending += item.metadata
        elif not isinstance(item, type):
            pending += get_args(item)
    return found


def choices_of(hint: Any) -> list[str]:
    return [one for arg in get_args(hint) for one in ([arg] if isinstance(arg, str) else choices_of(arg))]


def leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def keys() -> Iterator[tuple[str, list[str], list[Any]]]:
    """Each key of the configuration: what else must be set, and the values to try."""
    for key, field in leaves(Spec):
        if key == "runtime.sync_batch_norm":
            continue  # hangs on the machine that trains
        if key == "schedule.milestones":
            yield key, ["schedule.name=multistep"], [*ODD, [1.0], [1.0, 2.0], [2.0, 1.0], [3.0]]
            continue
        if key in (
            "imports",
            "data.name",
            "model.name",
            "topology.name",
            "representation.name",
            "data.root",
            "model.weights",
        ):
            continue  # names and files: their own tests
        whole = field.annotation is int or int in get_args(field.annotation)
        yield key, [], [*ODD, *choices_of(field.annotation), *around(bounds_of(field), whole)]
    for name, spec, base in (("ham", HamSpec, []), ("sam", SamSpec, ["optimizer.ham={}"])):
        for key, field in spec.model_fields.items():
            values = [*ODD, *choices_of(field.annotation), *around(bounds_of(field), whole=False)]
            yield f"optimizer.{name}.{key}", [*base, f"optimizer.{name}={{}}"], values


def options() -> Iterator[tuple[str, list[str], list[Any]]]:
    """Each option of each registered method."""
    for kind, methods in (("topology", registry.topologies()), ("representation", registry.representations())):
        for name, cls in methods.items():
            for field in dataclasses.fields(cls.Options):
                meta = field.metadata
                bounds = {bound: meta[bound] for bound in ("ge", "gt", "le", "lt") if meta.get(bound) is not None}
                values = [*ODD, *(meta.get("choices") or ()), *around(bounds, "int" in str(field.type))]
                yield f"{kind}.{field.name}", [f"{kind}.name={name}", *CONTEXT[kind], *NEEDED.get(name, [])], values


# ---- both sides -----------------------------------------------------------------------------------------------------


@cache
def base() -> Loaded:
    return load("base", SMALL)


@cache
def outline(section: str) -> Outline:
    return datasets.outline(DataSpec.model_validate_json(section))


def accepted(overrides: list[str]) -> Spec | None:
    """The specification, if a dry run accepts it; any other error than a message to the user is a fault."""
    try:
        tree = base().tree
        for override in overrides:
            tree = assign_text(tree, override)
        spec = resolve(base(), tree, calibrate=False)
        check(spec, outline(spec.data.model_dump_json()))
    except UserError:
        return None
    return spec


def construct(spec: Spec) -> None:
    """What a worker makes of a specification before its first step, for real; and the learning rate of every step."""
    spec = spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"device": "cpu"})})
    run = build(spec)
    run.sparse.expected_events()
    per_epoch = run.data.steps_per_epoch
    for step in range(0, min(spec.schedule.epochs, 100) * per_epoch, per_epoch):
        assert 0 <= lr_multiplier(spec.schedule, step, per_epoch) <= 1


CASES = [*keys(), *options()]


@pytest.mark.parametrize(
    ("key", "context", "values"), CASES, ids=[f"{key} {context[0] if context else ''}" for key, context, _ in CASES]
)
def test_what_a_dry_run_accepts_is_constructed(key: str, context: list[str], values: list[Any]) -> None:
    verdicts, constructed = [], set()
    for text in dict.fromkeys(map(json.dumps, values)):
        spec = accepted([*context, f"{key}={text.replace('Infinity', '.inf')}"])
        verdicts.append(spec is not None)
        if key == "topology.rounds" and isinstance(json.loads(text), int | float) and json.loads(text) > 100:
            continue  # of SynFlow, minutes of scoring
        if spec is not None and identity(spec) not in constructed:
            constructed.add(identity(spec))
            construct(spec)
    assert any(verdicts), "nothing was accepted"
    assert not all(verdicts), "nothing was refused"


@pytest.mark.parametrize("topology", registry.topologies())
def test_a_pair_is_refused_here_and_there(topology: str) -> None:
    for representation in registry.representations():
        names = [f"topology.name={topology}", f"representation.name={representation}", "topology.sparsity=0.5"]
        refused = accepted([*names, *NEEDED.get(topology, [])]) is None
        assert refused == (registry.refusal(topology, representation) is not None), representation


@pytest.mark.parametrize("kind", ["topology", "representation"])
def test_a_demand_is_accepted_if_and_only_if_it_can_be_met(kind: str) -> None:
    """For every method: as many events as it states, and not one more; and no event of another method."""
    for name in getattr(registry, "topologies" if kind == "topology" else "representations")():
        context = [f"{kind}.name={name}", "topology.sparsity=0.5", *NEEDED.get(name, [])]
        spec = accepted(context)
        assert spec is not None, name
        stated = build(spec).sparse.expected_events()
        for event in get_args(EventKind):
            number = stated.get(event, 0)
            verdicts = [
                accepted([*context, f"checks.events={{{event}: {{at_least: {n}}}}}"])
                for n in (max(number, 1), number + 1)
            ]
            unbounded = (name, event) == ("str", "threshold")  # as often as thresholds move
            assert (verdicts[0] is not None) == (number > 0 or unbounded), (name, event)
            assert (verdicts[1] is not None) == unbounded, (name, event)


# ---- HAM and SAM: declared in the configuration and in their constructors -------------------------------------------

NUMBERS = [-math.inf, -1e9, -1.0, -1e-12, -0.0, 0.0, 1e-12, 0.5, 1.0, 1e9, math.inf, math.nan]


@pytest.mark.parametrize(
    ("section", "cls", "key"),
    [*((HamSpec, HAM, key) for key in HamSpec.model_fields), *((SamSpec, SAM, key) for key in SamSpec.model_fields)],
)
def test_defaults_and_ranges_are_those_of_the_constructor(section: type[BaseModel], cls: type, key: str) -> None:
    if (cls, key) == (SAM, "perturbation"):
        return  # the runner's: which ranks' gradients
    declared, made = section.model_fields[key], inspect.signature(cls).parameters[key]
    assert declared.default == made.default

    def takes(value: Any) -> bool:
        weight = torch.nn.Parameter(torch.ones(2, 2))
        base = torch.optim.SGD([weight], lr=0.1)
        try:
            cls(base if cls is HAM else HAM(base), **{key: value})
        except (ValueError, TypeError):
            return False
        return True

    def allows(value: Any) -> bool:
        try:
            section.model_validate({key: value})
        except ValueError:
            return False
        return True

    values: list[Any] = [*NUMBERS, None, *choices_of(declared.annotation), "text"]
    if declared.annotation is bool:
        values = [True, False]
    assert [takes(value) for value in values] == [allows(value) for value in values]
