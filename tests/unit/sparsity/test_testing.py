"""The checks that authors of methods call: they pass what is right, and say what is wrong with everything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from sparsity import MaskSet, NoOptions, OptionError, Representation, Topology, option, registry
from sparsity.dynamic import MaskUpdates, UpdateOptions, keep_largest, random_scores
from sparsity.testing import SHORT, check_declaration, check_pair, check_representation, check_topology


class Shrink(MaskUpdates):
    """Replace weights at random, fewer and fewer."""

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options."""

        fraction: float = option(0.5, "fraction replaced", gt=0, lt=1)

    state = ("_rounds",)

    def __init__(self, options: Any):
        super().__init__(options)
        self._rounds = 0

    def update(self, ctx: Any, step: int) -> None:
        self._rounds += 1
        fraction, updated = self.options.fraction / self._rounds, {}
        for name, active in ctx.masks.num_active().items():
            left = active - int(fraction * active)
            kept = keep_largest(random_scores(ctx, name), ctx.masks[name], left)
            updated[name] = kept | keep_largest(random_scores(ctx, name), ~kept, active - left)
        ctx.set_masks(MaskSet(updated), "update")


SHRINK = {"update_every": 4}


def wrong(**changes: Any) -> type[Shrink]:
    return type("Shrink", (Shrink,), {"__doc__": "Wrong.", **changes})


def test_a_topology_that_keeps_its_word_passes_and_leaves_no_trace():
    known = registry.topologies()
    check_topology(Shrink, SHRINK)
    assert registry.topologies() == known
    assert Shrink.name == ""


def forgets_its_rounds() -> type[Topology]:
    class Forgetful(Shrink):
        """Counts on, but saves only what its base class does."""

        @classmethod
        def state_names(cls) -> Iterator[str]:
            return MaskUpdates.state_names()

    return Forgetful


def prunes_across_layers(self: Any, ctx: Any, step: int) -> None:
    numbers = ctx.masks.num_active()
    names = list(numbers)
    moved = int(0.1 * numbers[names[-1]])
    updated = dict(ctx.masks)
    last = keep_largest(ctx.weight(names[-1]).abs(), ctx.masks[names[-1]], numbers[names[-1]] - moved)
    updated[names[-1]] = last
    updated[names[0]] = keep_largest(torch.ones(ctx.shapes[names[0]]), ~last.new_zeros(ctx.shapes[names[0]]), 10**9)
    ctx.set_masks(MaskSet(updated), "update")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrong(expected_active=lambda *_: 17), "where its rule says 17: look at expected_active"),
        (lambda: wrong(expected_events=lambda *_: {"update": 3}), "expected_events states {'update': 3}, but these"),
        (lambda: wrong(family="dynamic"), "family is 'dynamic', not one of PaI, DtS, DST, dense"),
        (lambda: wrong(__doc__=""), "has no docstring"),
        (forgets_its_rounds, r"list in `state` the attributes that hooks change \(changed and not saved: .*_rounds"),
        (lambda: wrong(update=lambda *_: None), "expected_events states .*'update': 4"),
    ],
)
def test_what_is_wrong_with_a_topology_is_said(make: Any, message: str):
    with pytest.raises(AssertionError, match=message):
        check_topology(make(), SHRINK)


def test_options_under_which_nothing_happens_are_refused():
    with pytest.raises(OptionError, match="update_every: 1000 steps are too long for a run of 20"):
        check_topology(Shrink, {"update_every": 1000})


def test_a_topology_that_ignores_dense_layers_is_told():
    with pytest.raises(ValueError, match=r"leave 4\.weight dense, but its mask prunes .* Context\.prunable"):
        check_topology(wrong(update=prunes_across_layers, expected_active=lambda *_: None), SHRINK)


def test_options_without_description_are_refused():
    @dataclass(frozen=True)
    class Bare:
        number: int = 1

    with pytest.raises(AssertionError, match="Options.number has no description"):
        check_declaration(wrong(Options=Bare))
    with pytest.raises(AssertionError, match="must be a frozen dataclass"):
        check_declaration(wrong(Options=int))


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(AssertionError, match="needs another name: 'rigl' is registered"):
        check_topology(type("RigL", (Shrink,), {"__doc__": "Another one."}), SHRINK)


class Doubled(Representation):
    """θ = 2 v."""

    factor_names = ("v",)
    Options = NoOptions

    def factorise(self, weight):
        return (weight / 2,)

    def materialise(self, *factors):
        return 2 * factors[0]

    def grad(self, *factors: nn.Parameter):
        return None if factors[0].grad is None else factors[0].grad / 2


def test_a_representation_that_keeps_its_word_passes():
    known = registry.representations()
    check_representation(Doubled)
    assert registry.representations() == known


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad": lambda self, v: v.grad}, "grad is not dL/dθ where θ is not zero"),
        ({"zero_pruned": lambda self, factors, pruned: None}, "zero_pruned leaves θ at other values than 0"),
        ({"materialise": lambda self, v: v**3, "factorise": lambda self, w: (w.sign() * w.abs() ** (1 / 3),),
          "grad": lambda self, v: torch.where(v == 0, 0, v.grad / (3 * v * v))}, "set grad_at_zero = False"),
        ({"factor_names": ("v", "u")}, "factorise returns 1 tensors, factor_names has 2"),
        ({"materialise": lambda self, v: 2 * v.sum(0)}, "materialise returns shape"),
        ({"expected_events": lambda *_: {"turn": 1}}, "expected_events states {.*'turn': 1}, but these"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_representation_is_said(changes: dict[str, Any], message: str):
    with pytest.raises(AssertionError, match=message):
        check_representation(type("Doubled", (Doubled,), {"__doc__": "Wrong.", **changes}))


@pytest.mark.usefixtures("open_registry")
def test_a_pair_is_named_in_the_message():
    @registry.register_topology("off")
    class Off(registry.topology("random")):
        def expected_active(self, shapes, sparsity):
            return super().expected_active(shapes, sparsity) - 1

    with pytest.raises(
        AssertionError, match="topology 'off' with representation 'plain' and options {'off': {'allocation': 'unif"
    ):
        check_pair("off", "plain", options={"off": {"allocation": "uniform"}})


def test_short_options_are_of_registered_methods():
    assert set(SHORT) <= set(registry.topologies()) | set(registry.representations())
