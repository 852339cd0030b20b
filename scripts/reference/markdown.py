"""Pieces of Markdown that several pages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar inside a cell is escaped."""
    lines: list[Sequence[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return text as code, empty for empty text."""
    return f"`{text}`" if text else ""


def from_docstring(text: str) -> str:
    """Turn a docstring into Markdown: ``::`` before an indented block ends as a colon."""
    return re.sub(r"::\n\n", ":\n\n", text)
