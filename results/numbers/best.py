"""The best setting of each row of a tuning sweep, whose columns are the settings tried."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from results.runs.schema import RunEntry, SweepResults, is_number
from results.runs.store import read

from .measure import TOLERANCE
from .stats import summarise


def render(directory: str | Path) -> str:
    """Name the best column of each row by mean accuracy over seeds.

    Only settings for which every seed is done and met the target sparsity are candidates. A value at the end of its
    tried range is marked, since the best value may lie beyond.

    Args:
        directory: The folder of a sweep whose runs were evaluated on the validation part.

    Returns:
        One line per row.

    Raises:
        UserError: if the sweep has no columns, or was evaluated on the test part, on which nothing may be selected.
    """
    sweep = read(directory)
    if not sweep.column_keys:
        raise UserError("there are no columns to choose among", where=str(directory))
    if any(entry.result.get("accuracy_on") == "test" for entry in sweep.entries):
        text = "evaluated on the test part, on which nothing may be chosen; use data.evaluate_on=validation"
        raise UserError(text, where=str(directory))
    lines = [_line(sweep, row) for row in dict.fromkeys(entry.row for entry in sweep.entries)]
    return "\n".join([*lines, "(<: smallest value tried, >: largest)"])


def _line(sweep: SweepResults, row: str) -> str:
    settings: dict[tuple[Any, ...], list[RunEntry]] = {}
    for entry in sweep.entries:
        if entry.row == row:
            settings.setdefault(tuple(entry.column.values()), []).append(entry)
    fit = {values: entries for values, entries in settings.items() if all(map(_candidate, entries))}
    if not fit:
        return f"{row}: none of {len(settings)} settings is complete and on target"
    summaries = {}
    for values, entries in fit.items():
        summary = summarise(_accuracy(entry) for entry in entries)
        if summary is not None:
            summaries[values] = summary
    best = max(summaries, key=lambda values: summaries[values].mean)
    named = ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        f"{_edge({values[place] for values in settings}, value)}"
        for place, (key, value) in enumerate(zip(sweep.column_keys, best, strict=True))
    )
    top = summaries[best]
    spread = "" if top.std is None else f" ± {top.std:.2%}"
    usable = f"{len(fit)} of {len(settings)} settings complete and on target"
    return f"{row}: {named}  {top.mean:.2%}{spread} ({top.n}), {usable}"


def _accuracy(entry: RunEntry) -> float:
    return entry.number("accuracy") or 0.0


def _candidate(entry: RunEntry) -> bool:
    target, reached = entry.number("target_sparsity"), entry.number("sparsity")
    off = 0.0 if target is None or reached is None else abs(reached - target)
    return entry.status == "done" and off <= TOLERANCE + 1e-9


def _edge(tried: Iterable[Any], value: Any) -> str:
    """Mark a number at an end of the numbers tried; what has no order, such as null, has no end."""
    values = sorted({number for number in tried if is_number(number)})
    if len(values) < 3 or not is_number(value):
        return ""
    return "<" if value == values[0] else ">" if value == values[-1] else ""
