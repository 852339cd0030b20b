"""The results of a sweep: a `SweepResults` holds a `RunEntry` per seed and cell of the table, in table order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from .kinds import Tunes

RunStatus = Literal["done", "failed", "missing"]
SPARSITY_KEY = "topology.sparsity"


@dataclass(frozen=True)
class RunEntry:
    """One run in one cell of the table; a run that is repeated over columns has one entry per column.

    Attributes:
        row: Label of the table row.
        column: Values of flattened configuration keys, such as ``{"topology.sparsity": 0.95}``; may be empty.
        seed: Seed of the run.
        identity: Hash of the resolved configuration, or "" if it is unknown.
        path: The run's folder.
        status: "done", "failed" or "missing" (not started, unfinished or unreadable).
        result: Content of ``result.json``; empty unless done.
        error: Why the run failed, or which file is unreadable; None if nothing is wrong.
        unexpected: Whether it failed by the machine's or the code's fault, and not by what was trained.
    """

    row: str
    column: Mapping[str, Any]
    seed: int
    identity: str
    path: Path
    status: RunStatus = "missing"
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    unexpected: bool = False

    @cached_property
    def column_id(self) -> str:
        """A hashable name of the column, equal for equal columns."""
        return column_id(self.column)

    def number(self, name: str) -> float | None:
        """Return a number of the result as float (a fraction, not per cent), or None if there is none."""
        value: Any = self.result.get(name)
        return float(value) if is_number(value) else None


@dataclass(frozen=True)
class SweepResults:
    """The results of a directory of runs.

    Attributes:
        directory: Path of the directory.
        name: Short name.
        title: Title of the table.
        column_keys: Configuration keys that vary between columns; empty for a single column.
        baselines: The plain row of each row that adds something to one, for seed-paired differences.
        tuning_cells: Number of configurations that were tried for each row, or None if unknown.
        notes: The author's remarks, or None.
        entries: One entry per element of rows × columns × seeds, in table order.
        overrides: Settings of the command line that change what the configuration's title and notes were written for.
        strays: Folders of runs in the directory that no row names, by name.
        specs: The flattened configuration of each identity, also of runs that have not begun; empty without a manifest.
        tuning: What the manifest says of how the rows' settings were chosen, see `tuning.tuning_of`; None: nothing.
        tunes: What is chosen from its runs, if it is a tuning stage.
    """

    directory: Path
    name: str
    title: str
    column_keys: tuple[str, ...]
    baselines: Mapping[str, str]
    tuning_cells: int | None
    notes: str | None
    entries: tuple[RunEntry, ...]
    overrides: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuning: Mapping[str, Any] | None = None
    tunes: Tunes | None = None

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Row labels in table order."""
        return tuple(dict.fromkeys(entry.row for entry in self.entries))

    @cached_property
    def columns(self) -> tuple[Mapping[str, Any], ...]:
        """Distinct columns in table order; a single empty one if the sweep has no columns."""
        return tuple({entry.column_id: entry.column for entry in self.entries}.values())

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Distinct seeds, ascending."""
        return tuple(sorted({entry.seed for entry in self.entries}))

    @cached_property
    def runs(self) -> tuple[RunEntry, ...]:
        """One entry per run folder; for a run that is repeated over columns, its first."""
        unique: dict[Path, RunEntry] = {}
        for entry in self.entries:
            unique.setdefault(entry.path, entry)
        return tuple(unique.values())

    @cached_property
    def _cells(self) -> dict[tuple[str, str], list[RunEntry]]:
        cells: dict[tuple[str, str], list[RunEntry]] = {}
        for entry in self.entries:
            cells.setdefault((entry.row, entry.column_id), []).append(entry)
        return cells

    def cell(self, row: str, column: Mapping[str, Any]) -> list[RunEntry]:
        """Return the entries of all seeds of one cell; empty if the sweep has no such cell."""
        return self._cells.get((row, column_id(column)), [])

    def base_of(self, row: str) -> str:
        """Return the plain row that a row adds to, or the row itself."""
        return self.baselines.get(row, row)

    def home(self, row: str, column: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the column keys on which a cell's runs depend.

        A dense row in a sweep over models and sparsities has one run per model: its cells share this run over the
        sparsities, so only the model's key is returned.
        """
        paths = {entry.path for entry in self.cell(row, column)}
        sharing = [entry.column for entry in self.entries if entry.row == row and entry.path in paths]
        return tuple(key for key in self.column_keys if len({column_id({key: c.get(key)}) for c in sharing}) == 1)

    def first_cells(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return (row, column) of every cell in table order, omitting cells that repeat the runs of an earlier one."""
        seen: set[tuple[str, frozenset[Path]]] = set()
        cells = []
        for (row, _), entries in self._cells.items():
            key = (row, frozenset(entry.path for entry in entries))
            if key not in seen:
                seen.add(key)
                cells.append((row, entries[0].column))
        return cells


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a finite number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0


def column_id(column: Mapping[str, Any]) -> str:
    """Return a hashable name of a column, equal for equal columns."""
    return json.dumps(dict(column), sort_keys=True, default=str)


def variant_of(sweep: SweepResults, row: str) -> str:
    """Return the addition of a row to its plain row: "plain", "+ HAM", or the row's label if it starts differently."""
    base = sweep.base_of(row)
    if base == row:
        return "plain"
    rest = row.removeprefix(base).strip(" +,")
    return f"+ {rest}" if row.startswith(base) and rest else row


def column_label(column: Mapping[str, Any], keys: tuple[str, ...] | None = None) -> str:
    """Return the label of a column in a heading, e.g. "resnet8, 95 % sparse".

    Args:
        column: Values by key.
        keys: The keys to mention, in this order; None mentions all.

    Returns:
        A short text; empty without keys.
    """
    keys = tuple(column) if keys is None else tuple(key for key in keys if key in column)
    ends = [key.rsplit(".", 1)[-1] for key in column]
    parts = []
    for key in keys:
        value, end = column[key], key.rsplit(".", 1)[-1]
        if key == SPARSITY_KEY and is_number(value):
            parts.append(f"{100 * value:g} % sparse")
        elif end == "name":
            parts.append(str(value))
        else:
            name = end if ends.count(end) == 1 else key
            parts.append(f"{name}={value if isinstance(value, str) else json.dumps(value, default=str)}")
    return ", ".join(parts)


def place(sweep: SweepResults, row: str, column: Mapping[str, Any]) -> str:
    """Return the name of a cell: its row and, in a sweep of several columns, the values of the keys it depends on."""
    label = column_label(column, sweep.home(row, column)) if len(sweep.columns) > 1 else ""
    return f"{row} at {label}" if label else row


def column_groups(sweep: SweepResults) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Group the columns so that only one key varies within a group.

    Returns:
        (heading, columns) of each group, in table order. The varying key is the sparsity if the sweep has it,
        otherwise the last key; the heading names the values of the other keys.
    """
    inner = inner_key(sweep)
    outer = tuple(key for key in sweep.column_keys if key != inner)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for column in sweep.columns:
        groups.setdefault(column_label(column, outer), []).append(column)
    return list(groups.items())


def inner_key(sweep: SweepResults) -> str | None:
    """Return the key that varies within a group of columns, or None for a sweep without columns."""
    if SPARSITY_KEY in sweep.column_keys:
        return SPARSITY_KEY
    return sweep.column_keys[-1] if sweep.column_keys else None
