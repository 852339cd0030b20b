"""What is wrong with a configuration, in one line each: place, key path, fault, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from experiments.errors import UserError, nearest

from .keys import KeyPath, dotted, place_of
from .yaml_text import FLOAT, INT

M = TypeVar("M", bound=BaseModel)

_KINDS = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}
_SPOKEN_BOOL = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


class Problem(NamedTuple):
    """A fault and the key it is about."""

    path: KeyPath
    text: str


def show(value: Any) -> str:
    """Write a value as messages print it: as YAML does, cut to a readable length."""
    names = {None: "null", True: "true", False: "false"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def complain(problems: Iterable[Problem], tree: Any, context: str = "") -> UserError:
    """Make one error of several problems, one per line.

    Args:
        problems: At least one.
        tree: The `Located` mapping the key paths refer to.
        context: What was being resolved, such as a row, or an empty string.
    """
    lines = []
    for problem in problems:
        place = place_of(tree, problem.path)
        parts = [place, context, dotted(problem.path), problem.text]
        lines.append(": ".join(part for part in parts if part))
    return UserError("\n".join(lines))


def validate(
    model: type[M], values: Any, above: KeyPath = (), also: Sequence[str] = ()
) -> tuple[M | None, list[Problem]]:
    """Check a mapping against a model.

    Args:
        model: The model of the mapping.
        values: The mapping.
        above: Key path of the mapping.
        also: Keys that are allowed beside the model's, in files.

    Returns:
        The model's instance, or None and every problem.
    """
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    missing: dict[KeyPath, list[str]] = {}
    for detail in details:
        if detail["type"] == "missing":
            missing.setdefault(detail["loc"][:-1], []).append(str(detail["loc"][-1]))
    problems = [_missing(above + path, keys) for path, keys in missing.items()]
    wrong: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in details:
        if detail["type"] != "missing":
            wrong.setdefault(_within(values, detail["loc"]), []).append(detail)
    return None, problems + [_translate(model, path, found, above, also) for path, found in wrong.items()]


def _within(values: Any, path: KeyPath) -> KeyPath:
    """Return a path without what pydantic adds for the kinds that a value may have: those are no keys."""
    for depth, part in enumerate(path):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return path[:depth]
    return path


def _missing(path: KeyPath, keys: list[str]) -> Problem:
    text = f"{', '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing"
    if len(path) == 1:
        name = dotted(path)
        text += f"; a mapping in an override replaces all of {name}, write {name}.KEY to set one key"
    return Problem(path, text)


def _translate(
    model: type[BaseModel], path: KeyPath, found: Sequence[ErrorDetails], above: KeyPath, also: Sequence[str]
) -> Problem:
    """Write the message about one key; there are several errors if it may have values of several kinds."""
    error = next((one for one in found if one["type"] not in _KINDS), found[0])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = keys_at(model, path[:-1]) + (list(also) if len(path) == 1 else [])
        text = unknown_key(str(path[-1]), allowed, model=None if above else model)
    elif kind == "literal_error":
        allowed = [str(option) for option in _literals(keys_hint(model, path))]
        text = f"{show(value)} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"
    elif kind in _BOUNDS:
        symbol, name = _BOUNDS[kind]
        text = f"{show(value)} is out of range: must be {symbol} {context[name]:g}"
    elif kind in _KINDS:
        kinds = " or ".join(dict.fromkeys(_KINDS[one["type"]] for one in found))
        text = f"{show(value)} is not {kinds}{_type_hint(kind, value)}"
    elif kind in ("too_short", "string_too_short"):
        text = "is empty; write at least one entry" if kind == "too_short" else "is empty text; write null for none"
    elif kind == "value_error":
        text = str(context["error"])
    else:
        text = f"{show(value)}: {error['msg']}"
    return Problem(above + path, text + _sparsity_hint(path, value))


def unknown_key(key: str, allowed: list[str], of: str = "", model: type[BaseModel] | None = None) -> str:
    """Write the message about an unknown key.

    Args:
        key: Its name.
        allowed: Names of its possible neighbours.
        of: What does not know it, such as a method.
        model: The whole tree, to look for the same name in other sections where no neighbour is near.
    """
    hint = nearest(key, allowed)
    if not hint and model is not None:
        elsewhere = [dotted(path) for path in _leaves(model) if path[-1] == key]
        hint = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""
    return f"unknown key{of}; allowed: {', '.join(allowed) or 'none'}{hint}"


def _type_hint(kind: str, value: Any) -> str:
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _SPOKEN_BOOL:
        return f"; write {_SPOKEN_BOOL[value.lower()]}"
    if kind in ("float_type", "int_type") and isinstance(value, str) and (FLOAT.match(value) or INT.match(value)):
        return "; remove the quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    return "; write {} for its defaults" if kind == "model_type" and value is True else ""


def _sparsity_hint(path: KeyPath, value: Any) -> str:
    """Add a hint for people who write 95 or "95%" where a fraction is meant."""
    if path[-1:] != ("sparsity",):
        return ""
    text = str(value).removesuffix("%").strip()
    number = float(text) if FLOAT.match(text) or INT.match(text) else 0.0
    write = f": write {number / 100:g}" if 1 < number < 100 else ""
    return f"; sparsity is the fraction of zeros{write}"


def keys_hint(model: type[BaseModel], path: KeyPath) -> Any:
    """Return the annotation of the field at a path; list indices and keys of a free mapping lead to their values."""
    hint: Any = model
    for part in path:
        inner = _model_in(hint)
        if inner is not None and part in inner.model_fields:
            hint = inner.model_fields[str(part)].annotation
    return hint


def keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the allowed keys of the mapping at a path."""
    inner = _model_in(keys_hint(model, path))
    return list(inner.model_fields) if inner else []


def _model_in(hint: Any) -> type[BaseModel] | None:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for arg in get_args(hint) if (found := _model_in(arg))), None)


def _literals(hint: Any) -> Iterator[Any]:
    for arg in get_args(hint):
        if isinstance(arg, str):
            yield arg
        else:
            yield from _literals(arg)


def _leaves(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None:
            yield (*above, name)
        else:
            yield from _leaves(inner, (*above, name))
