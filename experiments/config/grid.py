"""The section ``sweep``: its parts checked against each other, and the overrides of one cell applied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from experiments.errors import UserError, nearest
from experiments.rundir.names import identifies

from .keys import apply, assign, dotted, lookup, place_of, split_key
from .problems import complain, show, validate
from .resolve import Loaded, resolve
from .schema import Spec, SweepSpec
from .yaml_text import Located

MOST_CELLS = 100_000
NOT_IN_OVERRIDES = ("extends", "imports", "label", "seed", "sweep")


class SweepGrid:
    """Rows, columns, seeds and rules of one configuration.

    Attributes:
        rows: Label to overrides, in order.
        seeds: In order.
        section: The typed section.

    Raises:
        UserError: if the section is not valid by itself.
    """

    def __init__(self, loaded: Loaded, base: Spec):
        self.loaded = loaded
        self.tree: Any = loaded.sweep
        section, problems = validate(SweepSpec, self.tree, above=("sweep",))
        if section is None:
            raise complain(problems, Located({"sweep": self.tree}))
        self.section = section
        written = self.tree.get("rows") or {base.label or loaded.path.stem: None}
        self.rows: dict[str, Located] = {label: row if row is not None else Located() for label, row in written.items()}
        self.seeds = section.seeds if section.seeds is not None else [base.seed]
        self._check()

    def fail(self, message: str, *path: str | int) -> UserError:
        """Return the error for a key path below ``sweep``."""
        return UserError(f"{dotted(('sweep', *path))}: {message}", place_of(self.tree, path))

    def columns(self) -> Iterator[dict[str, Any]]:
        """Yield the product of the columns' values, in order; one empty mapping if there are no columns."""
        keys = list(self.section.columns)
        for values in itertools.product(*self.section.columns.values()):
            yield dict(zip(keys, values, strict=True))

    def _check(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise self.fail(f"{self.seeds} has a seed twice", "seeds")
        cells = len(self.rows) * len(self.seeds) * math.prod(map(len, self.section.columns.values()))
        if cells > MOST_CELLS:
            raise self.fail(f"rows × columns × seeds are {cells:,} cells; at most {MOST_CELLS:,} are taken", "columns")
        for label, row in self.rows.items():
            self._check_overrides(row, "rows", label)
        for key, values in self.section.columns.items():
            self._check_column(key, values)
        for index, rule in enumerate(self.section.cells):
            self._check_overrides(self.tree["cells"][index]["set"], "cells", index, "set")
            for key, value in rule.when.items():
                self._check_when(key, value, index)
        for row, other in self.section.baselines.items():
            for label in (row, other):
                if label not in self.rows:
                    raise self.fail(f"{label!r} is not a row; {self._labels(label)}", "baselines", row)
            if row == other:
                raise self.fail("a row cannot be its own baseline", "baselines", row)

    def _labels(self, label: str) -> str:
        return f"rows: {', '.join(self.rows)}{nearest(label, self.rows)}"

    def _check_overrides(self, overrides: Located, *path: str | int) -> None:
        for key in overrides:
            top = split_key(key, overrides.places[key])[0]
            if top in NOT_IN_OVERRIDES:
                why = "seeds are listed in sweep.seeds" if top == "seed" else "it belongs to the whole configuration"
                raise self.fail(f"cannot be set in a row or cell: {why}", *path, key)

    def _check_column(self, key: str, values: list[Any]) -> None:
        place = ("columns", key)
        if split_key(key, place_of(self.tree, place))[0] in NOT_IN_OVERRIDES or not identifies(key):
            hint = "; seeds are listed in sweep.seeds" if key == "seed" else ""
            raise self.fail(f"does not change what a run computes, so it cannot be a column{hint}", *place)
        for index, value in enumerate(values):
            if isinstance(value, dict | list):
                raise self.fail("a column's values are numbers, text, true, false or null; use rows for more", *place)
            if value in values[:index]:
                raise self.fail(f"{show(value)} stands there twice", *place)

    def _check_when(self, key: str, value: Any, index: int) -> None:
        path = ("cells", index, "when", key)
        columns = self.section.columns
        if key != "row" and key not in columns:
            known = ["row", *columns]
            raise self.fail(f"is neither row nor a column; allowed: {', '.join(known)}{nearest(key, known)}", *path)
        for one in value if isinstance(value, list) else [value]:
            if key == "row" and one not in list(self.rows):
                raise self.fail(f"{show(one)} is not a row; {self._labels(str(one))}", *path)
            if key != "row" and one not in columns[key]:
                listed = ", ".join(show(other) for other in columns[key])
                raise self.fail(f"{show(one)} is not a value of that column; values: {listed}", *path)
        if value == []:
            raise self.fail("an empty list matches no cell", *path)

    def tree_at(self, row: str, column: dict[str, Any]) -> Located:
        """Return the configuration of a cell: the row applied, then the column, then every rule that matches."""
        context = f"row {row!r}{at(column)}"
        tree = apply(self.loaded.tree, self.rows[row], context)
        for key, value in column.items():
            place = self.tree["columns"].places[key]
            path = split_key(key, place)
            # a key of a section that this row has switched off (optimizer.ham: null) would switch it on
            if lookup(tree, path[:-1]) != (True, None):
                tree = assign(tree, path, value, place)
        for index, rule in enumerate(self.section.cells):
            if all(_matches(value, {"row": row, **column}[key]) for key, value in rule.when.items()):
                tree = apply(tree, self.tree["cells"][index]["set"], f"{context}, sweep.cells.{index}")
        return tree

    def resolve(
        self,
        row: str,
        column: dict[str, Any],
        calibrate: bool,
        overrides: Located | None = None,
        tree: Located | None = None,
    ) -> Spec:
        """Resolve the specification of a cell, with overrides applied last; its tree is `tree_at` unless given."""
        overrides = overrides or Located()
        tree = self.tree_at(row, column) if tree is None else tree
        for key, value in overrides.items():
            tree = assign(tree, split_key(key, overrides.places[key]), value, overrides.places[key])
        context = f"row {row!r}{at({**column, **overrides})}"
        return resolve(self.loaded, tree, calibrate=calibrate, context=context)


def at(column: dict[str, Any]) -> str:
    """Name a column as messages do; return an empty string for none."""
    return f" at {', '.join(f'{key}={show(value)}' for key, value in column.items())}" if column else ""


def _matches(wanted: Any, value: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted
