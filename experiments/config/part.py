"""A part of a table: some of its rows, some of its seeds. The table itself stays the whole one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.errors import UserError, nearest

from .sweep import Cell, Sweep


@dataclass(frozen=True)
class TablePart:
    """The runs of a table that a command is about.

    Attributes:
        runs: One cell for each different run, in table order.
        words: Which rows and seeds were asked for; empty for the whole table.
    """

    runs: list[Cell]
    words: str


def part(sweep: Sweep, rows: Sequence[str] | None, seeds: str | None) -> TablePart:
    """Return the part of a table that has some rows and seeds.

    Args:
        sweep: The table.
        rows: Labels of rows; none takes all.
        seeds: Seeds and ranges of seeds, such as ``0,2-4``; None takes all.

    Raises:
        UserError: if the table has no such row or seed, or the seeds cannot be read.
    """
    known = list(dict.fromkeys(cell.row for cell in sweep.cells))
    for row in rows or ():
        if row not in known:
            raise UserError(f"{row!r} is not a row; rows: {', '.join(known)}{nearest(row, known)}", "--rows")
    chosen = _seeds(seeds, sorted({cell.seed for cell in sweep.cells}))
    first: dict[str, Cell] = {}
    for cell in sweep.cells:
        if (not rows or cell.row in rows) and cell.seed in chosen:
            first.setdefault(cell.path, cell)
    asked = [f"rows {', '.join(rows)}"] if rows else []
    return TablePart(list(first.values()), "; ".join(asked + ([f"seeds {seeds}"] if seeds is not None else [])))


def _seeds(text: str | None, known: Sequence[int]) -> set[int]:
    if text is None:
        return set(known)
    found: set[int] = set()
    for one in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", one)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"{one.strip()!r} is neither a seed nor a range; write them as in 0,2-4", "--seeds")
        low, high = int(match[1]), int(match[2] or match[1])
        absent = next((seed for seed in range(low, high + 1) if seed not in known), None)
        if absent is not None:
            listed = ", ".join(map(str, known))
            raise UserError(f"{absent} is not a seed; seeds: {listed} (sweep.seeds has them)", "--seeds")
        found.update(range(low, high + 1))
    return found
