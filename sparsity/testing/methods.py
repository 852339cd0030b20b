"""`check_topology` and `check_representation`: the checks of one method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparsity import registry
from sparsity.masking.budgets import DenseLayers
from sparsity.options import build_options
from sparsity.representation import Representation
from sparsity.topology import Topology

from .pair import check_pair, require
from .short_run import OPTIMIZERS, SHORT, MakeOptimizer

FAMILIES = ("PaI", "DtS", "DST", "dense")


def check_topology(
    cls: type[Topology],
    options: Mapping[str, Any] | None = None,
    *,
    optimizers: Mapping[str, MakeOptimizer] = OPTIMIZERS,
) -> None:
    """Check a topology with every representation that it may be combined with.

    Example:
        >>> from sparsity import registry, testing
        >>> testing.check_topology(registry.topology("random"))  # doctest: +SKIP

    Args:
        cls: The class, registered or not.
        options: Options under which it acts within 20 steps, in epochs of 5; the others have their defaults.
        optimizers: Name to a function from parameter groups to an optimizer. The first one is tried with every
            representation, each other one with plain weights.

    Raises:
        AssertionError: saying what was stated and what happened, for the first difference.
    """
    with _registered(registry._TOPOLOGIES, cls):
        given = {cls.name: dict(options or SHORT.get(cls.name, {}))}
        check_declaration(cls)
        partners = [name for name in registry.representations() if registry.refusal(cls.name, name) is None]
        first, *others = optimizers.values()
        for representation in sorted(partners, key=lambda name: name != "plain"):  # the simplest first
            check_pair(cls.name, representation, first, given)
        for make in others:
            check_pair(cls.name, "plain", make, given)
        if issubclass(cls.Options, DenseLayers):
            for dense in ({"dense": "first"}, {"dense": "last", "rebudget": False}):
                check_pair(cls.name, "plain", OPTIMIZERS["SGD"], {cls.name: {**given[cls.name], **dense}})


def check_representation(
    cls: type[Representation],
    options: Mapping[str, Any] | None = None,
    *,
    optimizers: Mapping[str, MakeOptimizer] = OPTIMIZERS,
) -> None:
    """Check a representation with every topology that it may be combined with.

    Example:
        >>> from sparsity import registry, testing
        >>> testing.check_representation(registry.representation("plain"))  # doctest: +SKIP

    Args:
        cls: The class, registered or not.
        options: Options under which it acts within 20 steps, in epochs of 5; the others have their defaults.
        optimizers: Name to a function from parameter groups to an optimizer. The first one is tried with every
            topology, each other one with a random mask.

    Raises:
        AssertionError: saying what was stated and what happened, for the first difference.
    """
    with _registered(registry._REPRESENTATIONS, cls):
        given = {cls.name: dict(options or SHORT.get(cls.name, {}))}
        check_declaration(cls)
        check_algebra(cls, given[cls.name])
        partners = [name for name in registry.topologies() if registry.refusal(name, cls.name) is None]
        first, *others = optimizers.values()
        for topology in sorted(partners, key=lambda name: name != "dense"):  # the simplest first
            check_pair(topology, cls.name, first, given)
        for make in others:
            check_pair("random", cls.name, make, given)


def check_declaration(cls: type[Topology] | type[Representation]) -> None:
    """Check what a class says about itself: docstring, family and options.

    Example:
        >>> from sparsity import registry, testing
        >>> testing.check_declaration(registry.topology("rigl"))

    Args:
        cls: A topology or a representation.

    Raises:
        AssertionError: saying what is missing.
    """
    name = cls.__name__
    require(bool(cls.__doc__), f"{name} has no docstring: say which paper it follows and where it deviates")
    if issubclass(cls, Topology):
        require(cls.family in FAMILIES, f"{name}.family is {cls.family!r}, not one of {', '.join(FAMILIES)}")
    require(
        dataclasses.is_dataclass(cls.Options) and cls.Options.__dataclass_params__.frozen,  # pyright: ignore
        f"{name}.Options must be a frozen dataclass: write @dataclass(frozen=True) above it",
    )
    for field in dataclasses.fields(cls.Options):
        require(
            bool(field.metadata.get("doc")), f"{name}.Options.{field.name} has no description: declare it by option()"
        )


def check_algebra(cls: type[Representation], options: Mapping[str, Any] | None = None) -> None:
    """Check a representation's functions on tensors: shapes, dL/dθ, and weights that are pruned.

    Example:
        >>> from sparsity import registry, testing
        >>> testing.check_algebra(registry.representation("product"))

    Args:
        cls: The representation.
        options: Its options by name; the others have their defaults.

    Raises:
        AssertionError: saying which function is wrong, and where.
    """
    rep = cls(build_options(cls.Options, options or {}))
    theta = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(3, 4)
    factors = tuple(nn.Parameter(factor.clone()) for factor in rep.factorise(theta))
    require(
        len(factors) == len(cls.factor_names),
        f"{cls.__name__}.factorise returns {len(factors)} tensors, factor_names has {len(cls.factor_names)}",
    )
    slope = torch.linspace(0.5, 2.0, 12, dtype=torch.float64).view(3, 4)
    made, grad = _backward(rep, factors, slope)
    require(made.shape == theta.shape, f"{cls.__name__}.materialise returns shape {tuple(made.shape)}, not that of θ")
    require(bool(torch.isfinite(made).all()), f"{cls.__name__}.materialise(factorise(θ)) is not finite")
    moves = made != 0
    require(torch.allclose(grad[moves], slope[moves]), f"{cls.__name__}.grad is not dL/dθ where θ is not zero")
    with torch.no_grad():
        rep.zero_pruned(factors, torch.ones_like(theta, dtype=torch.bool))
    made, grad = _backward(rep, factors, slope)
    require(not bool(made.any()), f"{cls.__name__}.zero_pruned leaves θ at other values than 0")
    if cls.grad_at_zero:
        require(
            torch.allclose(grad, slope),
            f"{cls.__name__}.grad is not dL/dθ of pruned weights, so they could not regrow: set grad_at_zero = False, "
            "or let zero_pruned leave them where a gradient reaches them",
        )


def _backward(rep: Representation, factors: tuple[nn.Parameter, ...], slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return θ and `grad` for the loss Σ slope · θ."""
    for factor in factors:
        factor.grad = None
    theta = rep.materialise(*factors)
    (theta * slope).sum().backward()
    grad = rep.grad(*factors)
    require(grad is not None, f"{type(rep).__name__}.grad returns None after a backward pass")
    assert grad is not None
    return theta.detach(), grad.detach()


@contextmanager
def _registered(table: dict[str, Any], cls: Any) -> Iterator[None]:
    """Register a class for the time of a check, unless it is registered."""
    registry.topologies()  # imports the built-in methods
    before, name = dict(table), cls.name
    if table.get(name) is not cls:
        cls.name = name if name and name not in table else cls.__name__.lower()
        require(cls.name not in table, f"{cls.__name__} needs another name: {cls.name!r} is registered")
        table[cls.name] = cls
    try:
        yield
    finally:
        cls.name = name
        table.clear()
        table.update(before)
