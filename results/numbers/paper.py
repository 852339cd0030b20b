"""Published figures of others, as data: ``results/published/figures.csv`` and the sources it names.

A figure is a number that a source states, not a result of this suite. Each comes with a note on how reliably it is
known.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.errors import UserError, nearest

FOLDER = Path(__file__).parents[1] / "published"

# how a figure is known -> the words of a table for it
PROVENANCE: Mapping[str, str] = {
    "repo": "in its repository",
    "paper": "in the paper",
    "note": "second-hand",  # from a note about the paper, not the paper
    "review": "second-hand, a review",
    "memory": "unconfirmed",  # recalled from the literature
    "untagged": "unconfirmed",  # written down without saying where it was read
}

SPREADS = ("std",)
"""Kinds of ± that enter a comparison: the sample standard deviation over seeds."""


@dataclass(frozen=True)
class Figure:
    """One published accuracy.

    Attributes:
        method: Name in the source's table.
        topology: The suite's topology for this method, or None if it has none.
        representation: The suite's representation for this method, or None if it has none.
        addition: What the row adds to the method, such as ``HAM`` or ``Sign-In``; empty for none.
        dataset: Data set, as in ``data.name``.
        model: Network.
        layers: How the density is distributed over layers, or None if it is not stated.
        sparsity: Fraction of zeros in [0, 1), as the source counts them.
        top1: Accuracy in per cent.
        spread: Half-width that the source gives, in per cent, or None.
        spread_of: What the half-width is, a key of `SPREADS`, or None if the source does not state it.
        seeds: Number of runs behind the figure, or None if it is not stated.
        epochs: Length of training, or None if it is not stated.
        provenance: A key of `PROVENANCE`.
        key: Key of the source in ``sources.csv``.
        source: Its citation.
        note: What must be known for a comparison.
    """

    method: str
    topology: str | None
    representation: str | None
    addition: str
    dataset: str
    model: str
    layers: str | None
    sparsity: float
    top1: float
    spread: float | None
    spread_of: str | None
    seeds: int | None
    epochs: int | None
    provenance: str
    key: str
    source: str
    note: str

    @property
    def confirmed(self) -> bool:
        """Whether the figure was read in the source itself."""
        return self.provenance in ("repo", "paper")

    @property
    def known(self) -> str:
        """How the figure is known, in the words of a table."""
        return PROVENANCE[self.provenance]

    @property
    def row(self) -> str:
        """Name of the figure's row: the method and its addition."""
        return f"{self.method} + {self.addition}" if self.addition else self.method


@cache
def figures() -> tuple[Figure, ...]:
    """Return all published figures, in the order of the file."""
    sources = {row["key"]: row["citation"] for row in _rows("sources.csv")}
    return tuple(_figure(row, sources) for row in _rows("figures.csv"))


def of_sources(keys: Sequence[str]) -> tuple[Figure, ...]:
    """Return the figures of sources, keys of ``sources.csv``, in the order given and each once.

    Raises:
        UserError: for a source that does not exist.
    """
    known = dict.fromkeys(figure.key for figure in figures())
    for key in keys:
        if key not in known:
            raise UserError(f"unknown source {key!r}; allowed: {', '.join(known)}{nearest(key, known)}", "--against")
    return tuple(figure for key in dict.fromkeys(keys) for figure in figures() if figure.key == key)


def of_method(name: str) -> tuple[Figure, ...]:
    """Return the figures of one topology or representation.

    Those of ``dense`` are of plain dense training, since dense training with a representation is that representation's
    row.
    """
    return tuple(figure for figure in figures() if name != "plain" and _is_of(figure, name))


def _is_of(figure: Figure, name: str) -> bool:
    if name == "dense":
        return figure.topology == "dense" and figure.representation == "plain"
    return name in (figure.topology, figure.representation)


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _figure(row: dict[str, str], sources: Mapping[str, str]) -> Figure:
    if row["provenance"] not in PROVENANCE:
        raise ValueError(f"{row['provenance']!r} is not one of {', '.join(PROVENANCE)}")
    if row["spread_of"] not in ("", *SPREADS):
        raise ValueError(f"{row['spread_of']!r} is not one of {', '.join(SPREADS)}")
    return Figure(
        method=row["method"],
        topology=row["topology"] or None,
        representation=row["representation"] or None,
        addition=row["addition"],
        dataset=row["dataset"],
        model=row["model"],
        layers=row["layers"] or None,
        sparsity=float(row["sparsity"]),
        top1=float(row["top1"]),
        spread=float(row["spread"]) if row["spread"] else None,
        spread_of=row["spread_of"] or None,
        seeds=int(row["seeds"]) if row["seeds"] else None,
        epochs=int(row["epochs"]) if row["epochs"] else None,
        provenance=row["provenance"],
        key=row["source"],
        source=sources[row["source"]],
        note=row["note"],
    )
