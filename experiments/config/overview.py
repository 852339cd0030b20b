"""What a configuration comes to: each key with its value and its place, and what each row of its table changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from experiments.rundir.names import below

from .choices import read_choices, stored_paths
from .files import configs_folder
from .keys import lookup
from .resolve import Loaded, resolve
from .schema import Spec
from .sweep import grid_of, tuning_of
from .tuning import known
from .yaml_text import shown


@dataclass(frozen=True)
class ResolvedKey:
    """One key of a resolved configuration.

    Attributes:
        path: The dotted key.
        value: Its value.
        place: Where it is written, as ``FILE:LINE`` or ``command line``; None for the default of a method's option.
        own: Whether something other than the packaged base file sets it.
    """

    path: str
    value: Any
    place: str | None
    own: bool


@dataclass(frozen=True)
class RowChanges:
    """What a row changes in the configuration around it.

    Attributes:
        row: Its label.
        values: Key to value as the row writes them, in its first column; without keys that are tuned. A section that it
            switches on is empty where all of it is at its defaults.
        tried: Key to the values that the tuning tries.
        chosen: Key to the value that is chosen; empty where nothing is chosen yet.
    """

    row: str
    values: Mapping[str, Any]
    tried: Mapping[str, list[Any]]
    chosen: Mapping[str, Any]


def resolved(loaded: Loaded) -> list[ResolvedKey]:
    """Resolve a configuration without its table, and say where each key is set.

    Raises:
        UserError: with one line per problem.
    """
    base = f"{shown(configs_folder() / 'base.yaml')}:"
    found = []
    for path, value in flat(resolve(loaded, calibrate=False)).items():
        written, _ = lookup(loaded.tree, path.split("."))
        place = loaded.place(tuple(path.split("."))) if written else None
        found.append(ResolvedKey(path, value, place, place is not None and not place.startswith(base)))
    return found


def changes(loaded: Loaded) -> list[RowChanges]:
    """Return what each row of a configuration's table changes; nothing without a table.

    Raises:
        UserError: if a row is not valid.
    """
    if loaded.sweep is None:
        return []
    grid = grid_of(loaded)
    tuning, column = tuning_of(grid), next(grid.columns())
    choose = known(read_choices(stored_paths(loaded.files)))
    common, found = flat(resolve(loaded, calibrate=False)), []
    for row in grid.rows:
        tried = tuning.tried(row) if tuning else {}
        choice = choose(tuning, row, tuning.column(column)) if tuning and tried else None
        spec, tree = flat(grid.resolve(row, column, calibrate=False)), grid.tree_at(row, column)
        differing = {key: value for key, value in spec.items() if key not in common or common[key] != value}
        values: dict[str, Any] = {}
        for key, value in differing.items():
            if lookup(tree, key.split("."))[0]:
                values |= {} if below(key, (*column, *tried)) else {key: value}
            elif (section := key.rpartition(".")[0]) in common:  # switched on, and this key left at its default
                values.setdefault(section, {})
        found.append(RowChanges(row, values, tried, choice.chosen if choice else {}))
    return found


def flat(spec: Spec) -> dict[str, Any]:
    """Return the dotted keys of a specification with their values, options of its methods included."""
    return dict(_leaves(spec, ""))


def _leaves(section: BaseModel, above: str) -> Iterator[tuple[str, Any]]:
    for key, value in section:
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value.model_dump() if isinstance(value, BaseModel) else value
