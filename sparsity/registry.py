"""Names to classes: one table for topologies, one for representations.

The listing feeds the command line, the docs and the uniform tests; a method outside the package joins by being
imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from .options import nearest
from .representation import Representation
from .topology import Topology

C = TypeVar("C", bound=type)

_TOPOLOGIES: dict[str, type[Topology]] = {}
_REPRESENTATIONS: dict[str, type[Representation]] = {}


class UnknownMethodError(ValueError):
    """A name that no registered topology or representation has.

    Attributes:
        reason: What is wrong and what is allowed.
    """

    def __init__(self, kind: str, name: str, allowed: list[str]):
        self.reason = f"{name!r} is not a {kind}; allowed: {', '.join(allowed)}{nearest(name, allowed)}"
        super().__init__(self.reason)


def _register(table: dict, kind: str, name: str) -> Callable[[C], C]:
    def add(cls: C) -> C:
        base = Topology if kind == "topology" else Representation
        if not name or not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(f"{kind} {name!r} must be a named subclass of sparsity.{base.__name__}: {cls!r}")
        if not cls.__module__.startswith(f"{__package__}."):
            _import_builtin()  # so that a clash is the newcomer's
        known = table.get(name)
        # the same class again is a module imported twice (a reload), not a clash
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{kind} {name!r} is registered already, by {known.__module__}.{known.__qualname__}")
        cls.name = name
        table[name] = cls
        return cls  # pyright: ignore[reportReturnType]

    return add


def register_topology(name: str) -> Callable[[C], C]:
    """Class decorator: make a `Topology` selectable as ``topology.name``.

    Example:
        >>> import sparsity
        >>> @sparsity.register_topology("mine")
        ... class Mine(sparsity.Topology):
        ...     title = "My method"
        >>> sparsity.registry.topology("mine") is Mine
        True

    Args:
        name: Name in configurations, command line and tables; not empty.

    Raises:
        TypeError: if what it decorates is no subclass of `Topology`, or the name is empty.
        ValueError: if another class has the name.
    """
    return _register(_TOPOLOGIES, "topology", name)


def register_representation(name: str) -> Callable[[C], C]:
    """Class decorator: make a `Representation` selectable as ``representation.name``.

    Example:
        >>> import sparsity
        >>> @sparsity.register_representation("mine")
        ... class Mine(sparsity.Representation):
        ...     title = "My method"
        >>> sparsity.registry.representation("mine") is Mine
        True

    Args:
        name: Name in configurations, command line and tables; not empty.

    Raises:
        TypeError: if what it decorates is no subclass of `Representation`, or the name is empty.
        ValueError: if another class has the name.
    """
    return _register(_REPRESENTATIONS, "representation", name)


@cache
def _import_builtin() -> None:
    for kind in ("topologies", "representations"):
        package = importlib.import_module(f".{kind}", __package__)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def topologies() -> dict[str, type[Topology]]:
    """All registered topologies by name, sorted."""
    _import_builtin()
    return dict(sorted(_TOPOLOGIES.items()))


def representations() -> dict[str, type[Representation]]:
    """All registered representations by name, sorted."""
    _import_builtin()
    return dict(sorted(_REPRESENTATIONS.items()))


def topology(name: str) -> type[Topology]:
    """Look a topology up.

    Raises:
        UnknownMethodError: with the allowed names and the nearest one.
    """
    known = topologies()
    if name not in known:
        raise UnknownMethodError("topology", name, list(known))
    return known[name]


def representation(name: str) -> type[Representation]:
    """Look a representation up.

    Raises:
        UnknownMethodError: with the allowed names and the nearest one.
    """
    known = representations()
    if name not in known:
        raise UnknownMethodError("representation", name, list(known))
    return known[name]


def refusal(topology_name: str, representation_name: str) -> str | None:
    """Say why a topology and a representation cannot be combined, or None where they can.

    A weight that regrows at zero must be able to move; under a representation that is not `grad_at_zero` its
    gradient vanishes there, so the topology would slowly lose capacity without any error.
    """
    top, rep = topology(topology_name), representation(representation_name)
    if top.regrows and not rep.grad_at_zero:
        return (
            f"topology {topology_name!r} regrows weights at zero, where representation {representation_name!r} has no "
            f"gradient (d theta / d w = 0), so a regrown weight could never move; use representation plain or a product"
        )
    if top.repeats and rep.uses_sparsity:
        return (
            f"topology {topology_name!r} prunes to the target between trainings, and representation "
            f"{representation_name!r} aims at it itself in each of them, so neither would be what it is; use topology "
            "dense, or representation plain or a product"
        )
    return None
