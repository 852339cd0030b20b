"""A table as records, one for each row and column, and their writers: comma-separated values and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.numbers.measure import Measured
from results.numbers.unpaired import mann_whitney
from results.runs.schema import column_id

from .values import Table

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would compute; csv puts an apostrophe before it."""


def tidy(tables: Sequence[Table]) -> str:
    """Write tables as comma-separated values, with one line per row and column of a table.

    Accuracies and sparsities are fractions, not per cent; unknown values are empty. Of several tables, each line begins
    with the name of its own.
    """
    several = len(tables) > 1
    rows = [{**({"table": table.name} if several else {}), **each} for table in tables for each in records(table)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=_fields(rows), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        joined = {key: " ".join(map(_csv, value)) if isinstance(value, list) else value for key, value in row.items()}
        writer.writerow({key: _csv(value) for key, value in joined.items()})
    return out.getvalue()


def _fields(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of all columns; one that only some rows have is where these have it."""
    fields: list[str] = []
    for row in rows:
        place = 0
        for name in row:
            if name in fields:
                place = fields.index(name) + 1
            else:
                fields.insert(place, name)
                place += 1
    return fields


def as_json(tables: Sequence[Table]) -> str:
    """Write a table as one JSON object: title, caption, warnings, tuning, and one object per row and column in `cells`.

    Several tables are a list of such objects.
    """
    written = [
        {
            **{"name": table.name, "title": table.title, "caption": table.caption, "warnings": table.warnings},
            **({"tuning": table.tuning} if table.tuning else {}),
            "cells": list(records(table)),
        }
        for table in tables
    ]
    return json.dumps(written if len(written) > 1 else written[0], indent=1, default=str) + "\n"


def records(table: Table) -> Iterator[Mapping[str, Any]]:
    """Yield a record for each row and column: those that a table brings, or those of its measurements."""
    if table.records is not None:
        yield from table.records
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
        "mask_updates": cell.updates,
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
