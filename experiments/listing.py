"""What methods there are, as text for the terminal."""

from __future__ import annotations

import inspect

from sparsity import registry
from sparsity.options import MISSING, describe_options

from .errors import UserError, nearest


def overview() -> str:
    """One line a method."""
    lines = ["topologies: which weights exist"]
    for name, cls in registry.topologies().items():
        lines.append(f"  {name:<14}{cls.family:<7}{cls.title:<12}{cls.paper}")
    lines.append("representations: how an existing weight is parametrised")
    for name, cls in registry.representations().items():
        lines.append(f"  {name:<14}{'':<7}{cls.title:<12}{cls.paper}")
    lines.append("optimizers: any of optimizer.name, with optimizer.ham around it")
    return "\n".join(lines)


def describe(name: str) -> str:
    """Docstring and options of one method.

    Raises:
        UserError: if there is no such method.
    """
    known = {**registry.representations(), **registry.topologies()}
    if name not in known:
        raise UserError(f"{name!r} is not a method; allowed: {', '.join(sorted(known))}{nearest(name, sorted(known))}")
    cls = known[name]
    lines = [f"{name}: {inspect.cleandoc(cls.__doc__ or '')}", "", "options:"]
    for row in describe_options(cls.Options):
        default = "required" if row["default"] is MISSING else f"default {row['default']}"
        allowed = f"; {row['allowed']}" if row["allowed"] else ""
        lines.append(f"  {row['name']} ({row['type']}, {default}{allowed}): {row['doc']}")
    return "\n".join(lines if len(lines) > 3 else [*lines[:-1], "no options"])
