"""Dotted keys, merging of files and setting of single keys, on mappings that remember where each key was written.

Two rules, one for files and one for overrides (rows, columns, cells, ``key=value``): files merge mappings level by
level; in an override a dotted path sets one leaf, and a mapping replaces the whole value at its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.errors import UserError

from .yaml_text import Located, parse_value

COMMAND_LINE = "command line"
KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """Write a key path as messages print it."""
    parts = (str(part) for part in path)
    return ".".join(part if part.isprintable() else repr(part)[1:-1] for part in parts)


def split_key(key: str, place: str | None, above: Sequence[str] = ()) -> tuple[str, ...]:
    """Split a dotted key into its parts.

    Below ``sweep`` the third part is a row's label or a column's key and keeps its dots, and so do the keys below it.

    Args:
        key: Such as ``"topology.name"`` or ``"sweep.columns.topology.sparsity"``.
        place: Where it is written.
        above: The path of the mapping it is in.

    Raises:
        UserError: if a part is empty.
    """
    sweeping = (*above, key.partition(".")[0])[0] == "sweep"
    parts = tuple(key.split(".", max(0, 2 - len(above))) if sweeping else key.split("."))
    if not all(parts):
        raise UserError(f"the key {key!r} has an empty part between its dots", place)
    return parts


def unfold(tree: Located, above: tuple[str, ...] = ()) -> Located:
    """Turn the dotted keys of a file into nested mappings, at every level.

    Raises:
        UserError: if two spellings set the same key, with both places.
    """
    result = Located()
    for key, value in tree.items():
        place = tree.places[key]
        parts = split_key(key, place, above)
        if isinstance(value, Located):
            value = unfold(value, above + parts)
        for part in reversed(parts[1:]):
            value = Located({part: value}, {part: place})
        result = _join(result, Located({parts[0]: value}, {parts[0]: place}), above)
    return result


def _join(tree: Located, new: Located, above: tuple[str, ...]) -> Located:
    result = Located(tree, tree.places)
    for key, value in new.items():
        old = tree.get(key)
        if key not in tree:
            result[key], result.places[key] = value, new.places[key]
        elif isinstance(old, Located) and isinstance(value, Located):
            result[key] = _join(old, value, (*above, key))
        else:
            name = dotted((*above, key))
            raise UserError(f"{name} is set twice, here and at {tree.places[key]}", new.places[key])
    return result


def merge(below: Located, above: Located) -> Located:
    """Lay one file over another: mappings merge level by level, anything else is replaced."""
    result = Located(below, below.places)
    for key, value in above.items():
        old = below.get(key)
        result[key] = merge(old, value) if isinstance(old, Located) and isinstance(value, Located) else value
        result.places[key] = above.places[key]
    return result


def assign(tree: Located, path: Sequence[str], value: Any, place: str) -> Located:
    """Return the tree with one key set; a mapping replaces what was there, absent or null levels are created.

    Raises:
        UserError: if a level above the key is a value without keys of its own.
    """
    result = Located(tree, tree.places)
    key, rest = path[0], path[1:]
    if rest:
        inner = tree.get(key)
        if inner is not None and not isinstance(inner, Located):
            raise UserError(f"cannot set {dotted((key, *rest))}: {key} is {inner!r}, which has no keys", place)
        value = assign(Located() if inner is None else inner, rest, value, place)
        # setting one key of a section does not move the section
        place = place if inner is None else tree.places[key]
    result[key], result.places[key] = value, place
    return result


def apply(tree: Located, overrides: Located, where: str) -> Located:
    """Apply the overrides of a row or a cell.

    Args:
        tree: The configuration so far.
        overrides: Dotted key to value.
        where: The override as messages name it.

    Raises:
        UserError: if two keys of one override overlap, since their order would decide.
    """
    seen: dict[tuple[str, ...], str] = {}
    for key, value in overrides.items():
        place = overrides.places[key]
        path = split_key(key, place)
        for other in seen:
            if path[: len(other)] == other or other[: len(path)] == path:
                raise UserError(f"{where}: the keys {seen[other]} and {key} overlap; write one of them", place)
        seen[path] = key
        tree = assign(tree, path, unfold(value, path) if isinstance(value, Located) else value, place)
    return tree


def assign_text(tree: Located, text: str) -> Located:
    """Apply one ``key=value`` of the command line.

    Raises:
        UserError: if it is not of that form, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not key.isprintable():
        raise UserError(f"{text!r} is not of the form key=value, such as optimizer.lr=0.05", COMMAND_LINE)
    if key.partition(".")[0] == "extends":
        raise UserError("extends cannot be set here; write a configuration file that extends others", COMMAND_LINE)
    path = split_key(key, COMMAND_LINE)
    try:
        parsed = parse_value(value, COMMAND_LINE)
    except UserError as error:
        raise UserError(f"{key}: {error.message}", COMMAND_LINE) from None
    return assign(tree, path, unfold(parsed, path) if isinstance(parsed, Located) else parsed, COMMAND_LINE)


def lookup(tree: Mapping[str, Any], path: Sequence[str]) -> tuple[bool, Any]:
    """Look a key path up in a nested mapping: whether it is there, and its value."""
    value: Any = tree
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def place_of(tree: Any, path: KeyPath) -> str | None:
    """Say where a key path was written; for an absent key, where the mapping that lacks it was."""
    place = None
    for part in path:
        if isinstance(tree, Located) and part in tree:
            place = tree.places.get(str(part), place)
            tree = tree[str(part)]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            break
    return place
