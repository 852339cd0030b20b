"""Options of a method: a frozen dataclass whose fields carry a description and a range.

One declaration feeds the check of a configuration file, `attach(..., key=value)`, the command-line listing and the
docs.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

MISSING = dataclasses.MISSING
_NAMES = tuple[str, ...]  # the type of a list of names
LARGEST = 3e38  # of single precision, in which weights are held
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A method without options.

    Example:
        >>> import sparsity
        >>> sparsity.Topology.Options is sparsity.NoOptions
        True
    """


class Infeasible(ValueError):
    """A request that cannot be met with this network, these data or these weights.

    Example:
        >>> import sparsity, torch
        >>> rep = sparsity.represent(torch.nn.Linear(10, 10))
        >>> try:
        ...     sparsity.prepare("random", rep, sparsity=0.9, total_steps=10, dense="first")
        ... except sparsity.Infeasible as error:
        ...     print(error)
        dense: first leaves no layer to prune in a network of 1
    """


class TrainingError(RuntimeError):
    """A training does not do what its method needs: wrong number of steps, layers replaced, values not finite.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = sparsity.attach("imp", model, optimizer, sparsity=0.5, total_steps=1)
        >>> try:
        ...     sparse.finalize()
        ... except sparsity.TrainingError: print("too early")
        too early
    """


class MaskError(TrainingError, ValueError):
    """A method has set masks that do not fit the network: wrong type, names, shapes or layers.

    Example:
        >>> import sparsity
        >>> issubclass(sparsity.MaskError, sparsity.TrainingError)
        True
    """


class OptionError(ValueError):
    """A method's option is unknown, of the wrong type or out of range.

    Example:
        >>> import sparsity, torch
        >>> rep = sparsity.represent(torch.nn.Linear(10, 10))
        >>> try:
        ...     sparsity.prepare("random", rep, sparsity=0.9, total_steps=10, dence="first")
        ... except sparsity.OptionError as error:
        ...     print(error)
        dence: unknown key; allowed: dense, rebudget, allocation, counts; did you mean 'dense'?

    Attributes:
        key: Name of the offending option.
        section: Whose option it is, "topology" or "representation".
        reason: What is wrong and what is allowed, without the key.
    """

    def __init__(self, key: str, reason: str, section: str = "topology"):
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.section = section
        self.reason = reason


def option(
    default: Any = MISSING,
    doc: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[str] | None = None,
    neutral: Any = MISSING,
) -> Any:
    """Declare one option of a method (a `dataclasses.field` with a description and a range).

    Example:
        >>> from dataclasses import dataclass
        >>> import sparsity
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     update_every: int = sparsity.option(100, "steps between two updates", ge=1)
        >>> Options().update_every
        100

    Args:
        default: Value when the user says nothing.
        doc: One line, shown by `ham methods NAME`.
        ge: Smallest allowed value.
        gt: Exclusive lower bound.
        le: Largest allowed value.
        lt: Exclusive upper bound.
        choices: Allowed strings.
        neutral: What the code did before this option existed. A run at the neutral value keeps the identity
            it had before; leave it out for options that are as old as their method.

    Raises:
        OptionError: not here, but where options are built (`attach`, a configuration), for a value out of range.
    """
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "neutral": neutral}
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, allowed: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    same = [one for one in allowed if _bare(one) == _bare(name)]
    close = same or difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _bare(name: str) -> str:
    """Return the letters and digits of a name in lower case, so that AC/DC is acdc."""
    return "".join(char for char in name.lower() if char.isalnum())


def build_options(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build and check an options dataclass.

    Args:
        cls: The dataclass; its fields are declared with `option`.
        values: Option name to value.

    Returns:
        An instance of ``cls``; integers are widened to float where a float is declared.

    Raises:
        OptionError: for an unknown key, a missing one, a wrong type or a value out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            allowed = ", ".join(fields) or "none"
            raise OptionError(key, f"unknown key; allowed: {allowed}{nearest(key, list(fields))}")
    checked = {key: _check(key, value, hints[key], fields[key].metadata) for key, value in values.items()}
    for name, field in fields.items():
        if name not in checked and field.default is MISSING and field.default_factory is MISSING:
            raise OptionError(name, "is required")
    return cls(**checked)


def check_options(options: Any) -> None:
    """Check an options object that was not made by `build_options`.

    Raises:
        OptionError: for a value of the wrong type or out of range.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        _check(field.name, getattr(options, field.name), hints[field.name], field.metadata)


def _check(key: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, (list, tuple)) and _NAMES in kinds:
        if not value or not all(isinstance(one, str) and one for one in value):
            raise OptionError(key, f"{list(value)!r} is not a list of names")
        return tuple(value)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) not in kinds:
        names = " or ".join(_kind(kind) for kind in kinds)
        raise OptionError(key, f"{value!r} is not of type {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(key, f"{value!r} is not finite")
    if isinstance(value, float) and abs(value) > LARGEST:
        raise OptionError(key, f"{value!r} is out of range: must be <= {LARGEST:g} in size, for single precision")
    if isinstance(value, str):
        if meta.get("choices") and value not in meta["choices"]:
            allowed = ", ".join(meta["choices"])
            raise OptionError(key, f"{value!r} is not one of {allowed}{nearest(value, meta['choices'])}")
        return value
    tests = {
        "ge": lambda a, b: a >= b,
        "gt": lambda a, b: a > b,
        "le": lambda a, b: a <= b,
        "lt": lambda a, b: a < b,
    }
    symbols = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    for name, holds in tests.items():
        bound = meta.get(name)
        if bound is not None and not holds(value, bound):
            raise OptionError(key, f"{value!r} is out of range: must be {symbols[name]} {bound}")
    return value


def _kind(kind: Any) -> str:
    return {type(None): "null", _NAMES: "list of names"}.get(kind, getattr(kind, "__name__", str(kind)))


def describe_options(cls: type) -> list[dict[str, Any]]:
    """List a method's options: name, type, default, range and description, for listings and docs."""
    hints = typing.get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        meta = field.metadata
        hint = hints[field.name]
        kind = " | ".join(_kind(one) for one in typing.get_args(hint)) if typing.get_args(hint) else _kind(hint)
        bounds = [
            f"{s} {meta[n]}"
            for n, s in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
            if meta.get(n) is not None
        ]
        allowed = ", ".join(meta["choices"]) if meta.get("choices") else " and ".join(bounds)
        rows.append(
            {
                "name": field.name,
                "type": kind,
                "default": field.default,
                "allowed": allowed,
                "doc": meta.get("doc", ""),
            }
        )
    return rows
