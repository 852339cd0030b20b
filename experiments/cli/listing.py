"""The list of methods as text for the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError, nearest
from sparsity import registry
from sparsity.options import MISSING, describe_options

if TYPE_CHECKING:
    from results.numbers.paper import Figure

KINDS = {
    "topology": "topologies: which weights are active",
    "representation": "representations: how an active weight is parametrised",
}
HEAD = ("name", "family", "title", "options", "paper")
FIGURES = ("row", "data", "sparsity %: top-1 %", "epochs", "layers", "source", "known", "to compare")


@dataclass(frozen=True)
class ListedMethod:
    """One registered method.

    Attributes:
        kind: ``topology`` or ``representation``.
        name: Its registered name.
        cls: Its class.
    """

    kind: str
    name: str
    cls: Any

    @property
    def head(self) -> tuple[str, ...]:
        """The method's row of the overview, see `HEAD`."""
        family = getattr(self.cls, "family", "")
        return (self.name, family, self.cls.title, str(len(fields(self.cls.Options))), self.cls.paper)

    @property
    def text(self) -> str:
        """The docstring of the class: paper, rule and deviations."""
        return inspect.cleandoc(self.cls.__doc__ or "")

    @property
    def facts(self) -> list[str]:
        """Facts that the attributes of the class state, so that its docstring need not."""
        if self.kind == "representation":
            return ["weights can regrow at zero" if self.cls.grad_at_zero else "refused with topologies that regrow"]
        stated = {
            "regrows": "weights can regrow",
            "needs_probe": "reads data before training",
            "repeats": "a run consists of several trainings",
        }
        return [text for attribute, text in stated.items() if getattr(self.cls, attribute)]

    def options(self) -> list[tuple[str, ...]]:
        """Return name, type, default, range and meaning of each option."""
        return [
            (row["name"], row["type"], _default(row["default"]), row["allowed"], row["doc"])
            for row in describe_options(self.cls.Options)
        ]


def methods() -> list[ListedMethod]:
    """Return all registered methods."""
    tables = {"topology": registry.topologies(), "representation": registry.representations()}
    return [ListedMethod(kind, name, cls) for kind, table in tables.items() for name, cls in table.items()]


def overview(columns: int | None = None) -> str:
    """Return the overview, with one line per method.

    Args:
        columns: Width of the terminal; the last facts of a line are left out where it is too narrow. None: any width.
    """
    known = methods()
    rows, kept = [HEAD, *(method.head for method in known)], len(HEAD)
    while columns is not None and kept > 2 and max(len(_line(row[:kept], rows)) for row in rows) > columns:
        kept -= 1
    lines = []
    for kind, group in groupby(known, lambda method: method.kind):
        lines += [KINDS[kind], _line(HEAD[:kept], rows)]
        lines += [_line(method.head[:kept], rows) for method in group]
    if kept < len(HEAD):
        lines.append(f"({' and '.join(HEAD[kept:])} left out to fit {columns} columns; --json has all)")
    lines.append("optimizers: any optimizer.name; optimizer.ham wraps it, and optimizer.sam both")
    lines.append("`ham methods NAME` says what one does, its options and published figures")
    return "\n".join(lines)


def find(name: str) -> ListedMethod:
    """Return a method by its name, or by the title that tables and papers give it.

    Raises:
        UserError: if there is no such method.
    """
    known = {method.name: method for method in methods()}
    titles = {method.cls.title.lower(): method.name for method in methods()}
    found = known.get(name) or known.get(titles.get(name.lower(), ""))
    if found is not None:
        return found
    if name.lower() in ("ham", "sam"):
        text = f"is an optimizer, not a method: `ham config optimizer.{name.lower()}` has its keys, and help(ham."
        raise UserError(f"{text}{name.upper()}) in Python its rule", name)
    raise UserError(f"{name!r} is not a method; allowed: {', '.join(sorted(known))}{nearest(name, sorted(known))}")


def as_dict(method: ListedMethod, figures: Sequence[Figure] = ()) -> dict[str, Any]:
    """Return a method as JSON has it."""
    return {
        **{"kind": method.kind, "name": method.name, "title": method.cls.title, "paper": method.cls.paper},
        **{"family": getattr(method.cls, "family", None), "text": method.text, "facts": method.facts},
        "options": [
            dict(zip(("name", "type", "default", "allowed", "doc"), one, strict=True)) for one in method.options()
        ],
        "published": [asdict(figure) for figure in figures],
    }


def describe(name: str, figures: Sequence[Figure] = ()) -> str:
    """Return docstring, options and published figures of one method, as text.

    Args:
        name: A topology or representation.
        figures: Published figures of the method.

    Raises:
        UserError: if there is no such method.
    """
    method = find(name)
    lines = [f"{method.name}: {method.text}", ""]
    lines += [f"{method.kind}; {'; '.join(method.facts)}" if method.facts else method.kind, ""]
    options = method.options()
    lines.append("options:" if options else "no options")
    for option, kind, default, allowed, doc in options:
        stated = default if default == "required" else f"default {default}"
        lines.append(f"  {option} ({kind}, {stated}{f'; {allowed}' if allowed else ''}): {doc}")
    if figures:
        lines += ["", "published figures (top-1 in %; none of them was computed here):"]
        table = [FIGURES, *figure_rows(figures)]
        lines += [f"  {_aligned(row, _widths(table))}" for row in table]
    return "\n".join(lines)


def figure_rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return published figures as text, see `FIGURES`: all sparsities of a source's row share one line."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for figure in figures:
        head = (figure.row, f"{figure.dataset}, {figure.model}")
        epochs = "" if figure.epochs is None else str(figure.epochs)
        rest = (epochs, figure.layers or "", figure.source, figure.known, figure.note)
        spread = "" if figure.spread is None else f" ± {figure.spread:.2f}"
        number = (
            f"{figure.top1:.2f}{spread}" if round(figure.top1, 1) != figure.top1 or spread else f"{figure.top1:.1f}"
        )
        lines.setdefault((*head, *rest), []).append(f"{round(100 * figure.sparsity, 2):g}: {number}")
    return [(*key[:2], ", ".join(found), *key[2:]) for key, found in lines.items()]


def _default(value: Any) -> str:
    """Return a default value as it is written in a configuration."""
    if value is MISSING:
        return "required"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]) - 1)]


def _line(cells: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the first cells of one of some rows, in columns."""
    return f"  {_aligned(cells, _widths(rows)[: len(cells) - 1])}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    *first, last = cells
    return "".join(f"{cell:<{width}}" for cell, width in zip(first, widths, strict=True)) + last
