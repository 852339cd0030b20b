"""Writers of tables as text and markdown; `markup` has LaTeX and HTML, `records` csv and JSON.

Equal tables give equal bytes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.errors import UserError, nearest
from results.runs.store import read

from .markup import html, latex
from .notes import BOLD, STARRED
from .records import as_json, tidy
from .tables import SHOWN, table
from .values import FIGURE_SPACE, Table, TableCell, TableGrid, spans

WIDTH = 100
"""Number of characters at which the captions of text tables are wrapped."""


def render(directory: str | Path, format: str = "text", shown: Sequence[str] = SHOWN) -> str:
    """Read a directory of runs and return its table as text.

    Args:
        directory: A directory as for `results.load`.
        format: One of `FORMATS`.
        shown: The kinds of number, as for `table`; csv and json have all of them.

    Raises:
        UserError: for an unknown format or kind, and as for `results.load`.
    """
    return write([table(read(directory), shown)], format)


def write(tables: Sequence[Table], format: str = "text") -> str:
    """Write tables below each other in one of `FORMATS`.

    Raises:
        UserError: for an unknown format.
    """
    if format in RECORDS:
        return RECORDS[format](tables)
    if format not in PROSE:
        raise UserError(f"unknown table format {format!r}; allowed: {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    return "\n".join(map(PROSE[format], tables))


def text(table: Table, width: int = WIDTH) -> str:
    """Write a table as aligned plain text.

    Args:
        table: The table.
        width: Number of characters at which warnings and captions are wrapped.
    """
    blocks = [table.title]
    blocks += ["\n".join(([grid.heading, ""] if grid.heading else []) + _text_grid(grid)) for grid in table.grids]
    notes = [f"! {warning}" for warning in table.warnings]
    notes += [paragraph.replace(BOLD, STARRED) for paragraph in table.caption]
    blocks += [_wrapped(note, width) for note in notes]
    return "\n\n".join(blocks) + "\n"


def grid_width(table: Table) -> int:
    """Return the number of characters that the widest line of a table has as plain text, without its captions."""
    return max((len(line) for grid in table.grids for line in _text_grid(grid)), default=0)


def _wrapped(note: str, width: int) -> str:
    whole = note.replace(" %", "\u00a0%")  # a number and its unit stay on one line
    return textwrap.fill(whole, width, subsequent_indent="  ", break_on_hyphens=False).replace("\u00a0", " ")


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


PROSE: dict[str, Callable[[Table], str]] = {"text": text, "markdown": markdown, "latex": latex, "html": html}
RECORDS: dict[str, Callable[[Sequence[Table]], str]] = {"csv": tidy, "json": as_json}
FORMATS = ("text", "markdown", "csv", "json", "latex", "html")
