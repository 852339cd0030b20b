"""The section ``sweep.tuning``: the settings tried for each row, and the identity of what is chosen among them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from typing import Any

from experiments.errors import UserError, nearest
from experiments.rundir import names

from .choices import Choice, Choices, combinations
from .grid import NOT_IN_OVERRIDES, SweepGrid, at
from .identity import identity
from .keys import COMMAND_LINE, assign, lookup, place_of, split_key
from .problems import show
from .schema import Spec, TuningSpec
from .yaml_text import Located

ContentHash = Callable[[Spec], str | None]


class Tuning:
    """What is tried for each row of a grid.

    Attributes:
        section: The typed section.
        keys: All keys that are tuned, in order.

    Raises:
        UserError: if the section is not valid by itself.
    """

    def __init__(self, grid: SweepGrid, section: TuningSpec):
        self.grid, self.section = grid, section
        self.tree: Located = grid.tree["tuning"]
        self._known: dict[str, list[tuple[dict[str, Any], Spec]]] = {}
        self._check()
        self.keys = list(dict.fromkeys(key for row in grid.rows for key in self.tried(row)))

    def tried(self, row: str) -> dict[str, list[Any]]:
        """Return what is tried of each key in a row; nothing for a row that stays as it stands."""
        rows = self.section.rows
        return (rows[row] or {}) if row in rows else self.section.grid

    def column(self, column: dict[str, Any]) -> dict[str, Any]:
        """Return the column at which the settings for a column are chosen."""
        return {**column, **self.section.at}

    def specs(self, row: str, column: dict[str, Any]) -> list[tuple[dict[str, Any], Spec]]:
        """Resolve all settings of a row, at the column where they are chosen; decays are not filled in.

        Raises:
            UserError: if a setting is not valid, or a key makes no difference.
        """
        column = self.column(column)
        place = json.dumps([row, column])
        if place not in self._known:
            self._known[place] = [
                (setting, self._spec(row, column, setting)) for setting in combinations(self.tried(row))
            ]
            self._check_effects(row, self._known[place])
        return self._known[place]

    def identity(self, row: str, column: dict[str, Any]) -> str:
        """Hash all that a choice depends on: the runs of its settings, seeds and the part that decides."""
        tried = [[setting, identity(spec)] for setting, spec in self.specs(row, column)]
        text = json.dumps({"tried": tried, "seeds": self.section.seeds, "on": self.section.on}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def places(self) -> list[tuple[str, dict[str, Any]]]:
        """Return each row and column for which a setting is chosen, once, in table order.

        Raises:
            UserError: if two rows would be chosen from the same runs.
        """
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for row in filter(self.tried, self.grid.rows):
            for column in map(self.column, self.grid.columns()):
                other, _ = found.setdefault(self.identity(row, column), (row, column))
                if other != row:
                    same = f"the rows {other!r} and {row!r} differ only in what is tuned, so they would be the same row"
                    raise self.grid.fail(f"{same}; drop one, or tune one of them otherwise", "rows", row)
        return list(found.values())

    def _spec(self, row: str, column: dict[str, Any], setting: dict[str, Any]) -> Spec:
        tree, path = self.grid.tree_at(row, column), self._path(row)
        overrides = Located(setting, {key: place_of(self.tree, (*path, key)) or COMMAND_LINE for key in setting})
        for key, where in overrides.places.items():
            above = split_key(key, where)[:-1]
            if lookup(tree, above) == (True, None):
                off = f"has no effect in the row {row!r}, where {'.'.join(above)} is null"
                raise self._fail(f"{off}; give this row a grid of its own in sweep.tuning.rows", *path, key)
        if self.section.on == "validation" and lookup(tree, ("data", "validation")) == (True, 0):
            text = "the validation part is to decide, and data.validation is 0: set it above 0 (or write on: test, to"
            raise self._fail(f"{text} choose on the test part, which the table then says)", "on")
        tree = assign(tree, ("data", "evaluate_on"), self.section.on, place_of(self.tree, ("on",)) or COMMAND_LINE)
        return self.grid.resolve(row, column, calibrate=False, overrides=overrides, tree=tree)

    def _path(self, row: str) -> tuple[str, ...]:
        return ("rows", row) if row in self.section.rows else ("grid",)

    def _fail(self, message: str, *path: str | int) -> UserError:
        return self.grid.fail(message, "tuning", *path)

    def _check(self) -> None:
        section, grid = self.section, self.grid
        if grid.section.tuning_cells is not None:
            raise grid.fail("sweep.tuning counts the settings itself; remove this key", "tuning_cells")
        if len(set(section.seeds)) < len(section.seeds):
            raise self._fail(f"{section.seeds} has a seed twice", "seeds")
        if shared := [seed for seed in section.seeds if seed in grid.seeds]:
            text = f"{', '.join(map(str, shared))} also in the table's own seeds, whose results would count twice"
            free = [max(100, *(seed + 1 for seed in grid.seeds)) + n for n in range(len(section.seeds))]
            raise self._fail(f"{text}; use others, such as {free}", "seeds")
        for row in section.rows:
            if row not in grid.rows:
                rows = ", ".join(grid.rows)
                raise self._fail(f"is not a row; rows: {rows}{nearest(row, grid.rows)}", "rows", row)
        for key, value in section.at.items():
            values = grid.section.columns.get(key)
            if values is None:
                keys = ", ".join(grid.section.columns) or "none"
                raise self._fail(f"is not a column; columns: {keys}{nearest(key, grid.section.columns)}", "at", key)
            if value not in values:
                listed = ", ".join(map(show, values))
                raise self._fail(f"{show(value)} is not a value of that column; values: {listed}", "at", key)
        if not any(map(self.tried, grid.rows)):
            text = "tries nothing: write the values of at least one key, such as {optimizer.lr: [0.1, 0.2]}"
            raise self._fail(text, "grid")
        for path in [("grid",), *(("rows", row) for row in section.rows)]:
            tried = section.grid if path == ("grid",) else section.rows[path[1]] or {}
            for key, values in tried.items():
                self._check_key(key, values, *path)

    def _check_key(self, key: str, values: list[Any], *path: str) -> None:
        parts = split_key(key, place_of(self.tree, (*path, key)))
        if parts[0] in NOT_IN_OVERRIDES or not names.identifies(key):
            raise self._fail("does not change what a run computes, so there is nothing to choose", *path, key)
        for column in self.grid.section.columns:
            if names.below(key, (column,)) or names.below(column, (key,)):
                raise self._fail(f"a column of the table ({column}) is never a setting; remove it here", *path, key)
        if names.below(key, names.COMPARED_AT) or any(names.below(one, (key,)) for one in names.COMPARED_AT):
            raise self._fail("says at what rows are compared, so no best value of it can be chosen", *path, key)
        for index, value in enumerate(values):
            if isinstance(value, dict | list):
                raise self._fail("what is tried are numbers, text, true, false or null", *path, key)
            if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values[:index]):
                raise self._fail(f"{show(value)} stands there twice", *path, key)

    def _check_effects(self, row: str, specs: list[tuple[dict[str, Any], Spec]]) -> None:
        seen: dict[str, dict[str, Any]] = {}
        for setting, spec in specs:
            other = seen.setdefault(identity(spec), setting)
            differing = [key for key in setting if setting[key] != other[key]]
            if differing:
                key = differing[0]
                same = f"has no effect in the row {row!r}: {show(other[key])} and {show(setting[key])} are the same run"
                raise self._fail(f"{same}; give this row a grid of its own in sweep.tuning.rows", *self._path(row), key)


Chooser = Callable[[Tuning, str, dict[str, Any]], Choice | None]


def known(choices: Choices, content_hash: ContentHash | None = None) -> Chooser:
    """Return what looks choices up."""

    def choose(tuning: Tuning, row: str, column: dict[str, Any]) -> Choice | None:
        spec = tuning.specs(row, column)[0][1]
        return choices.of(tuning.identity(row, column), content_hash(spec) if content_hash else None)

    return choose


def first(tuning: Tuning, row: str, column: dict[str, Any]) -> Choice:
    """Take the first setting of each row, to see what a table will consist of before anything is chosen."""
    tried, section = tuning.tried(row), tuning.section
    setting = combinations(tried)[0]
    return Choice(
        identity="first", row=row, chosen=setting, tried=tried, seeds=section.seeds, on=section.on, recorded=False
    )


def show_place(row: str, column: dict[str, Any]) -> str:
    """Name a row in a column as messages do."""
    return f"{row!r}{at(column)}"


def chosen_by(tuning: Tuning, choose: Chooser) -> dict[str, Choice]:
    """Return the choice of each row and column that is tuned, by its name.

    Raises:
        UserError: if there is none for some of them.
    """
    found: dict[str, Choice] = {}
    untuned = []
    for row in filter(tuning.tried, tuning.grid.rows):
        for column in map(tuning.column, tuning.grid.columns()):
            if (place := show_place(row, column)) not in found:
                choice = choose(tuning, row, column)
                if choice is None:
                    untuned.append(place)
                else:
                    found[place] = choice.model_copy(update={"row": row, "column": column})
    if untuned:
        more = f" and {len(untuned) - 3} more" if len(untuned) > 3 else ""
        config = shlex.quote(tuning.grid.loaded.config)
        command = f"`ham tune {config}` chooses them, and `ham sweep` does so before it trains"
        some = ", ".join(untuned[:3])
        raise tuning.grid.fail(f"no settings are chosen for {some}{more} as configured; {command}", "tuning")
    return found


def record(tuning: Tuning, chosen: dict[str, Choice]) -> dict[str, Any]:
    """Say for the manifest how rows were tuned: a choice for each row and column that has runs of its own."""
    first = {choice.identity: choice for choice in reversed(chosen.values())}
    return {
        "on": tuning.section.on,
        "seeds": tuning.section.seeds,
        "at": tuning.section.at,
        "choices": [choice.model_dump() for choice in chosen.values() if first[choice.identity] is choice],
        "untuned": [row for row in tuning.grid.rows if not tuning.tried(row)],
    }
