"""Writers of a `Table` as text, markdown or csv (`markup` has LaTeX and HTML); equal tables give equal bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError, nearest
from results.numbers.measure import Measured
from results.numbers.unpaired import mann_whitney
from results.runs.schema import column_id
from results.runs.store import read

from .markup import html, latex
from .notes import BOLD, STARRED
from .tables import SHOWN, table
from .values import FIGURE_SPACE, Table, TableCell, TableGrid, spans

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would compute; csv puts an apostrophe before it."""

WIDTH = 100
"""Number of characters at which the captions of text tables are wrapped."""


def render(directory: str | Path, format: str = "text", shown: Sequence[str] = SHOWN) -> str:
    """Read a directory of runs and return its table as text.

    Args:
        directory: A directory as for `results.load`.
        format: "text", "markdown", "csv", "json", "latex" or "html".
        shown: The kinds of number, as for `table`; csv and json have all of them.

    Raises:
        UserError: for an unknown format or kind, and as for `results.load`.
    """
    return renderer(format)(table(read(directory), shown))


def renderer(format: str) -> Callable[[Table], str]:
    """Return the function that writes a format.

    Raises:
        UserError: for an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"unknown table format {format!r}; allowed: {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    return FORMATS[format]


def text(table: Table) -> str:
    """Write a table as aligned plain text."""
    blocks = [table.title]
    blocks += ["\n".join(([grid.heading, ""] if grid.heading else []) + _text_grid(grid)) for grid in table.grids]
    notes = [f"! {warning}" for warning in table.warnings]
    notes += [paragraph.replace(BOLD, STARRED) for paragraph in table.caption]
    blocks += [_wrapped(note) for note in notes]
    return "\n\n".join(blocks) + "\n"


def _wrapped(note: str) -> str:
    whole = note.replace(" %", "\u00a0%")  # a number and its unit stay on one line
    return textwrap.fill(whole, WIDTH, subsequent_indent="  ", break_on_hyphens=False).replace("\u00a0", " ")


def _text_grid(grid: TableGrid) -> list[str]:
    body = [
        [cell.text.replace(FIGURE_SPACE, " ") + (" *" if cell.side else "") for cell in line.cells]
        for line in grid.rows
    ]
    heads = [head.label for head in grid.header]
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    above = _text_spans(grid, widths)
    lines = [above] if above.strip() else []
    lines += [_joined(heads, widths), "  ".join("-" * width for width in widths)]
    for line, cells in zip(grid.rows, body, strict=True):
        if line.opens_group and line is not grid.rows[0] and not all(row.opens_group for row in grid.rows):
            lines.append("")
        lines.append(_joined(cells, widths))
    return lines


def _text_spans(grid: TableGrid, widths: list[int]) -> str:
    """Return the line of group headings; widen the last column of a group that is narrower than its heading."""
    parts, first = [], 0
    for group, number in spans(grid):
        last = first + number - 1
        room = sum(widths[first : last + 1]) + 2 * (number - 1)
        widths[last] += max(0, len(group) - room)
        parts.append(group.ljust(max(room, len(group))))
        first = last + 1
    return "  ".join(parts).rstrip()


def _joined(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def markdown(table: Table) -> str:
    """Write a table as GitHub-flavoured markdown."""
    blocks = [f"**{_md(table.title)}**"]
    for grid in table.grids:
        heads = [_md(" ".join(filter(None, (head.group, head.label)))) for head in grid.header]
        lines = ["| " + " | ".join(heads) + " |", "|" + "|".join(_md_rules(grid)) + "|"]
        lines += ["| " + " | ".join(map(_md_cell, line.cells)) + " |" for line in grid.rows]
        blocks += ([_md_paragraph(grid.heading)] if grid.heading else []) + ["\n".join(lines)]
    blocks += [f"⚠ {_md(warning)}" for warning in table.warnings] + [
        _md_paragraph(paragraph) for paragraph in table.caption
    ]
    return "\n\n".join(blocks) + "\n"


def _md_rules(grid: TableGrid) -> list[str]:
    """Return the alignment of each column: plain numbers to the right, text and compound cells to the left."""
    columns = list(zip(*(line.cells for line in grid.rows), strict=True)) or [()] * len(grid.header)
    plain = [place > 0 and all(len(cell.parts) < 2 for cell in cells) for place, cells in enumerate(columns)]
    return [" ---: " if right else " --- " for right in plain]


def _md(value: str) -> str:
    """Escape what markdown, and mathematics in it, would read as their own."""
    for char in "\\`*_|<>&~$":
        value = value.replace(char, f"\\{char}")
    return value.replace("](", "]\\(").replace("]:", "]\\:")


def _md_paragraph(value: str) -> str:
    """Escape a paragraph, which must not begin as a heading or an item of a list, numbered or not."""
    return re.sub(r"^(\d+)(?=[.)])", r"\1\\", re.sub(r"^(?=[#+=-])", r"\\", _md(value)))


def _md_cell(cell: TableCell) -> str:
    value = _md(cell.text.replace(FIGURE_SPACE, ""))
    return f"**{value}**" if cell.side else value


def tidy(table: Table) -> str:
    """Write a table as comma-separated values, with one line per row and column of the table.

    Accuracies and sparsities are fractions, not per cent; unknown values are empty.
    """
    out = io.StringIO()
    writer: Any = None
    for record in _records(table):
        record = {
            key: " ".join(map(_csv, value)) if isinstance(value, list) else value for key, value in record.items()
        }
        if writer is None:
            writer = csv.DictWriter(out, fieldnames=list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: _csv(value) for key, value in record.items()})
    return out.getvalue()


def as_json(table: Table) -> str:
    """Write a table as one JSON object: title, caption, warnings, and one object per row and column in `cells`."""
    head = {"name": table.name, "title": table.title, "caption": table.caption, "warnings": table.warnings}
    return json.dumps({**head, "cells": list(_records(table))}, indent=1, default=str) + "\n"


def _records(table: Table) -> Iterator[dict[str, Any]]:
    for cell in table.measurements.values():
        yield _record(table, cell) | _unpaired(table, cell)


def _unpaired(table: Table, cell: Measured) -> dict[str, Any]:
    """Return the comparison with the plain row that does not use that seeds are shared."""
    plain = table.measurements.get((cell.plain, column_id(cell.column))) if cell.plain is not None else None
    found = {f"welch_{key}": getattr(cell.unpaired, key, None) for key in ("t", "freedom", "p", "low", "high")}
    ranks = mann_whitney(cell.accuracies.values(), plain.accuracies.values()) if plain else None
    return {**found, "hedges_g": cell.unpaired and cell.unpaired.g, "mann_whitney_p": ranks}


def _record(table: Table, cell: Measured) -> dict[str, Any]:
    difference = cell.difference
    samples = {
        "sparsity": cell.sparsity,
        "inference_flops_fraction": cell.inference,
        "training_flops_fraction": cell.training,
    }
    return {
        "row": cell.row,
        **{key: cell.column.get(key) for key in table.column_keys},
        "planned": cell.planned,
        "n": cell.done,
        "failed": cell.failed,
        "missing": cell.missing,
        "accuracy_mean": cell.accuracy and cell.accuracy.mean,
        "accuracy_std": cell.accuracy and cell.accuracy.std,
        "train_accuracy_mean": cell.train and cell.train.mean,
        "target_sparsity": cell.target,
        **{name: sample and sample.mean for name, sample in samples.items()},
        "comparable": cell.comparable,
        "plain_row": cell.plain,
        **{
            f"difference_{key}": getattr(difference, key, None)
            for key in ("n", "mean", "se", "low", "high", "wins", "p", "p_holm")
        },
        "seeds": list(cell.accuracies),
        "accuracies": list(cell.accuracies.values()),
    }


def _csv(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return json.dumps(value, default=str)


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": tidy,
    "json": as_json,
    "latex": latex,
    "html": html,
}
