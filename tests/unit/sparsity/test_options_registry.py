"""Options and registry: what is accepted, and what the messages say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

import pytest

import sparsity
from sparsity import OptionError, option, registry
from sparsity.options import NoOptions, build_options, describe_options
from sparsity.registry import UnknownMethodError


@dataclass(frozen=True)
class Options:
    """One of each kind."""

    steps: int = option(10, "a whole number", ge=1)
    share: float = option(0.5, "a share", gt=0, le=1)
    below: float = option(0.5, "bounded above", lt=1)
    rule: str = option("global", "a word", choices=("global", "uniform"))
    on: bool = option(False, "a switch")
    decay: float | str | None = option(None, "several kinds", ge=0, choices=("calibrated",))


@dataclass(frozen=True)
class Required:
    """No default."""

    target: float = option(doc="needed")


def test_defaults():
    assert build_options(Options, {}) == Options(10, 0.5, 0.5, "global", False, None)
    assert build_options(NoOptions, {}) == NoOptions()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"steps": 1}, 1),
        ({"share": 1}, 1.0),
        ({"share": 0.25}, 0.25),
        ({"rule": "uniform"}, "uniform"),
        ({"on": True}, True),
        ({"decay": None}, None),
        ({"decay": 0}, 0.0),
        ({"decay": "calibrated"}, "calibrated"),
    ],
)
def test_accepts(values: dict[str, Any], expected: Any):
    key = next(iter(values))
    found = getattr(build_options(Options, values), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"stepz": 3}, "stepz", "unknown key; allowed: steps, share, below, rule, on, decay; did you mean 'steps'?"),
        ({"zzzzz": 3}, "zzzzz", "unknown key; allowed: steps, share, below, rule, on, decay"),
        ({"steps": 2.0}, "steps", "2.0 is not of type int"),
        ({"steps": True}, "steps", "True is not of type int"),
        ({"steps": "3"}, "steps", "'3' is not of type int"),
        ({"steps": None}, "steps", "None is not of type int"),
        ({"share": True}, "share", "True is not of type float"),
        ({"on": 1}, "on", "1 is not of type bool"),
        ({"decay": True}, "decay", "True is not of type float or str or null"),
        ({"steps": 0}, "steps", "0 is out of range: must be >= 1"),
        ({"share": 0.0}, "share", "0.0 is out of range: must be > 0"),
        ({"share": 1.5}, "share", "1.5 is out of range: must be <= 1"),
        ({"below": 1.0}, "below", "1.0 is out of range: must be < 1"),
        ({"decay": -1}, "decay", "-1.0 is out of range: must be >= 0"),
        ({"share": math.nan}, "share", "nan is not finite"),
        ({"below": -math.inf}, "below", "-inf is not finite"),
        ({"rule": "globl"}, "rule", "'globl' is not one of global, uniform; did you mean 'global'?"),
        ({"decay": "soon"}, "decay", "'soon' is not one of calibrated"),
    ],
)
def test_refuses(values: dict[str, Any], key: str, reason: str):
    with pytest.raises(OptionError) as caught:
        build_options(Options, values)
    assert caught.value.key == key
    assert caught.value.reason == reason
    assert str(caught.value) == f"{key}: {reason}"


def test_optional_is_another_word_for_or_none():
    @dataclass(frozen=True)
    class Written:
        """In the older spelling, as methods from outside may be."""

        decay: Optional[float] = option(None, "a share", le=1)  # noqa: UP045

    # the annotation names something of this function, so it is given by hand
    Written.__annotations__["decay"] = Optional[float]  # noqa: UP045
    assert build_options(Written, {"decay": 0.5}).decay == 0.5


def test_a_missing_option_is_named():
    with pytest.raises(OptionError, match="target: is required"):
        build_options(Required, {})
    assert build_options(Required, {"target": 2}).target == 2.0


def test_a_method_without_options_says_so():
    with pytest.raises(OptionError, match="x: unknown key; allowed: none"):
        build_options(NoOptions, {"x": 1})


def test_description():
    rows = {row["name"]: row for row in describe_options(Options)}
    assert list(rows) == ["steps", "share", "below", "rule", "on", "decay"]
    assert rows["steps"] == {"name": "steps", "type": "int", "default": 10, "allowed": ">= 1", "doc": "a whole number"}
    assert rows["share"]["allowed"] == "> 0 and <= 1"
    assert rows["rule"]["allowed"] == "global, uniform"
    assert rows["on"]["allowed"] == ""
    assert rows["decay"]["type"] == "float | str | null"


# ---- the registry ---------------------------------------------------------------------------------------------------


def test_members_of_this_release():
    assert {"dense", "random", "acdc", "rigl"} <= set(registry.topologies())
    assert {"plain", "str", "product", "sign_in"} <= set(registry.representations())


@pytest.mark.parametrize("listing", [registry.topologies, registry.representations])
def test_every_method_describes_itself(listing):
    methods = listing()
    assert list(methods) == sorted(methods)
    for name, method in methods.items():
        assert method.name == name
        assert method.title
        assert method.__doc__
        assert all(row["doc"] for row in describe_options(method.Options))
        # defaults pass their own checks
        build_options(method.Options, {row["name"]: row["default"] for row in describe_options(method.Options)})
    assert len({method.title for method in methods.values()}) == len(methods)


def test_legal_and_illegal_pairs():
    illegal = {
        (topology, representation)
        for topology in ("dense", "random", "acdc", "rigl")
        for representation in ("plain", "str", "powerprop", "product", "sign_in", "spred", "pilot")
        if registry.refusal(topology, representation) is not None
    }
    assert illegal == {(topology, name) for topology in ("acdc", "rigl") for name in ("str", "powerprop")}
    reason = registry.refusal("rigl", "str")
    assert reason is not None
    assert "'rigl'" in reason
    assert "'str'" in reason
    assert "could never move" in reason


@pytest.mark.parametrize(
    ("lookup", "name", "message"),
    [
        (registry.topology, "riggl", r"'riggl' is not a topology; allowed: acdc, .*dense, .*; did you mean 'rigl'\?"),
        (registry.representation, "signin", r"'signin' is not a representation; .*; did you mean 'sign_in'\?"),
    ],
)
def test_unknown_names(lookup, name: str, message: str):
    with pytest.raises(UnknownMethodError, match=message) as caught:
        lookup(name)
    assert caught.value.reason == str(caught.value)


def test_registering_a_method_of_ones_own(open_registry):
    @sparsity.register_topology("mine")
    class Mine(sparsity.Topology):
        """A topology."""

    assert registry.topology("mine") is Mine
    assert Mine.name == "mine"
    assert "mine" in registry.topologies()


def test_a_name_is_taken_once(open_registry):
    with pytest.raises(ValueError, match=r"topology 'rigl' is registered already, by sparsity\.topologies\.rigl\.RiGL"):

        @sparsity.register_topology("rigl")
        class Mine(sparsity.Topology):
            """Another one."""

    assert registry.topology("rigl").title == "RiGL"


def test_the_same_class_may_be_registered_again(open_registry):
    def define() -> type:
        class Reloaded(sparsity.Topology):
            """Defined by a module that is imported twice."""

        return Reloaded

    first, second = define(), define()
    sparsity.register_topology("reloaded")(first)
    sparsity.register_topology("reloaded")(second)
    assert registry.topology("reloaded") is second
