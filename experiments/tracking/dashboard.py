"""What the dashboard of a table shows, in words of ours; `workspace` says it in W&B's.

A panel has no filter of its own at W&B and follows the grouping of its view. So each view groups by all that its runs
differ in but the seed: one line, bar or colour is one cell of the table, and no average runs over columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .content import JOBS, name_of
from .panels import PanelGroup, sections

GROUP = "Group"
"""W&B's own word for a run's group, where keys of the configuration cannot be grouped by."""


@dataclass(frozen=True)
class CellLabel:
    """A row in a column of a table.

    Attributes:
        row: Its label.
        base_row: The row that it is compared with, or itself.
        column: The column's values by key.
        values: Those that its runs have, and W&B groups by: the sparsity of a dense row is 0 in every column.
        group: W&B's group of its runs.
        color: As hexadecimal number.
    """

    row: str
    base_row: str
    column: Mapping[str, Any]
    values: Mapping[str, Any]
    group: str
    color: str


@dataclass(frozen=True)
class Shown:
    """A table, as far as its dashboard depends on it.

    Attributes:
        table: Its name.
        part: What its runs are evaluated on, ``test`` or ``validation``.
        answer: The table and its caption in markdown.
        cells: In table order, at least one.
    """

    table: str
    part: str
    answer: str
    cells: Sequence[CellLabel]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """What to group by besides the row: keys of W&B's configuration, or its group where a value is not plain."""
        plain = all(isinstance(value, (str, int, float)) for cell in self.cells for value in cell.column.values())
        return tuple(map(name_of, self.cells[0].column)) if plain else (GROUP,)


@dataclass(frozen=True)
class View:
    """A saved view.

    Attributes:
        key: Tells the views of a table apart.
        name: What it is called.
        filters: Which runs it shows, in the language of wandb-workspaces.
        groups: What its runs are grouped by: keys of W&B's configuration, or `GROUP`.
        sections: What it shows of them.
        columns: Columns of its list of runs.
        colors: Colour of each group, by its values in the order of `groups`.
        most: Number of groups, all of which panels show.
    """

    key: str
    name: str
    filters: str
    groups: tuple[str, ...]
    sections: tuple[PanelGroup, ...]
    columns: tuple[str, ...]
    colors: Mapping[tuple[str, ...], str]
    most: int


def views(shown: Shown) -> list[View]:
    """Return the three views of a table: all of it, all rows of its last column, and one method in all columns."""
    column, family = shown.cells[-1].column, _family(shown.cells)
    of_column = [cell for cell in shown.cells if cell.column == column]
    of_family = [cell for cell in shown.cells if cell.base_row == family]
    where = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in column.items()) or "all rows"
    plain = () if shown.keys == (GROUP,) else shown.keys
    return [
        _view(shown, "table", shown.table, (*shown.keys, "row"), shown.cells),
        _view(shown, "column", f"{shown.table}: {where}", ("row",), of_column, *_within(of_column, plain)),
        _view(shown, "method", f"{shown.table}: {family}", ("row", *shown.keys), of_family, _is("base_row", family)),
    ]


def _family(cells: Sequence[CellLabel]) -> str:
    """Return a method that columns change, with an addition if there is one."""
    changed = [cell for cell in cells if cell.values == cell.column] or cells
    return next((cell.base_row for cell in changed if cell.base_row != cell.row), changed[0].base_row)


def _view(
    shown: Shown, key: str, name: str, groups: tuple[str, ...], cells: Sequence[CellLabel], *conditions: str
) -> View:
    accuracy = f"{'test' if shown.part == 'test' else 'tune'}/accuracy"
    job = f"Metric('JobType') == {_literal(JOBS[shown.part])}"
    return View(
        key=key,
        name=name,
        filters=" and ".join([_is("table", shown.table), job, *conditions]),
        groups=groups,
        sections=sections(accuracy, shown.answer),
        columns=(
            *(f"summary:{metric}" for metric in (accuracy, "sparsity/realised", "cost/training_flops")),
            *("config:seed", "run:state"),
        ),
        colors={tuple(_of(cell, group) for group in groups): cell.color for cell in cells},
        most=len(cells),
    )


def _within(cells: Sequence[CellLabel], keys: Sequence[str]) -> Iterable[str]:
    """Yield the conditions that keep the runs of a column: by its values, which a click changes, or by groups."""
    if not keys and cells[0].column:
        yield _in(f"Metric('{GROUP}')", [cell.group for cell in cells])
        return
    for key, own in zip(keys, cells[0].column, strict=True):
        value = cells[0].column[own]
        others = dict.fromkeys(cell.row for cell in cells if cell.values.get(own) != value)
        condition = _is(key, value)
        yield f"({condition} or {_in(_config('row'), others)})" if others else condition


def _of(cell: CellLabel, group: str) -> str:
    """Return the value by which W&B groups the runs of a cell, as it writes it."""
    if group in ("row", GROUP):
        return cell.row if group == "row" else cell.group
    value = next(value for key, value in cell.values.items() if name_of(key) == group)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _is(key: str, value: Any) -> str:
    return f"{_config(key)} == {_literal(value)}"


def _in(subject: str, values: Iterable[str]) -> str:
    return f"{subject} in [{', '.join(map(_literal, values))}]"


def _config(key: str) -> str:
    return f"Config('{key}')"


def _literal(value: Any) -> str:
    """Write a value for a filter, whose reader changes ``=``, ``<`` and ``>`` also in quotes."""
    if not isinstance(value, str):
        return repr(value)
    safe = (char if char.isascii() and (char.isalnum() or char in " _-.") else f"\\U{ord(char):08x}" for char in value)
    return f"'{''.join(safe)}'"
