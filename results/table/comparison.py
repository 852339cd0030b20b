"""Two runs beside each other: what differs in their configurations, where their curves part, and a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.rundir import names
from experiments.rundir.reading import Unreadable
from results.numbers.counts import mcnemar
from results.runs.discover import compared, read_spec
from results.runs.predictions import read_predictions
from results.runs.schema import RunEntry
from results.runs.store import read, read_metrics

from .notes import points

CURVE = ("validation_accuracy", "train_accuracy", "loss")
WANT = "evaluate.predictions=true keeps the classes of a new run"


def compare(one: Path, other: Path) -> str:
    """Compare two runs in words.

    Args:
        one: Folder of a finished run.
        other: Folder of another one.

    Raises:
        UserError: if a folder is not that of one finished run.
    """
    runs = _finished(one), _finished(other)
    heads = [f"{mark}: {run.path.name}, {_outcome(run)}" for mark, run in zip("AB", runs, strict=True)]
    blocks = ["\n".join(heads), "\n".join(_differences(*runs)), _curves(*runs), _test(*runs)]
    return "\n\n".join(blocks) + "\n"


def _finished(path: Path) -> RunEntry:
    runs = read(path).runs
    if len(runs) != 1:
        raise UserError(f"holds {len(runs)} runs; give the folder of one", where=str(path))
    if runs[0].status != "done":
        raise UserError(runs[0].error or "has no result yet", where=str(path))
    return runs[0]


def _outcome(run: RunEntry) -> str:
    return f"accuracy {run.number('accuracy'):.2%} on {run.result.get('accuracy_on')}, seed {run.seed}"


def _differences(one: RunEntry, other: RunEntry) -> Iterator[str]:
    """List the keys in which the configurations differ, A's value first."""
    first, second = compared(read_spec(one.path)), compared(read_spec(other.path))
    keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
    yield "Configuration: the same." if not keys else "Configuration (A -> B):"
    for key in keys:
        yield f"  {key}: {_value(first, key)} -> {_value(second, key)}"


def _value(spec: Mapping[str, Any], key: str) -> str:
    return json.dumps(spec[key], default=str) if key in spec else "not set"


def _curves(one: RunEntry, other: RunEntry) -> str:
    """Say until which epoch the curves are the same, and how far apart they are at its quarters."""
    first, second = (
        {line["epoch"]: line for line in read_metrics(run.path, run.result) if line.get("kind") == "epoch"}
        for run in (one, other)
    )
    shared = sorted(first.keys() & second.keys())
    found = [key for key in CURVE if any(first[epoch].get(key) is not None for epoch in shared)]
    if not shared or not found:
        return "Curves: no epoch that both have."
    key = found[0]
    apart = [epoch for epoch in shared if any(first[epoch].get(each) != second[epoch].get(each) for each in CURVE)]
    begin = f"the same to the end ({shared[-1]} epochs)" if not apart else f"they part in epoch {apart[0]}"
    shown = sorted({shared[len(shared) * quarter // 4 - 1] for quarter in (1, 2, 3, 4) if len(shared) * quarter >= 4})
    lines = [
        f"  epoch {epoch}: {_number(first[epoch].get(key))} and {_number(second[epoch].get(key))}" for epoch in shown
    ]
    lengths = "" if len(first) == len(second) else f" A has {len(first)} epochs, B {len(second)}."
    return "\n".join([f"Curves of {key}: {begin}.{lengths}", *(lines if apart else [])])


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "none"


def _test(one: RunEntry, other: RunEntry) -> str:
    """Test whether the two networks differ on the images that both were evaluated on."""
    kept = []
    for mark, run in zip("AB", (one, other), strict=True):
        try:
            kept.append(read_predictions(run.path, run.result))
        except FileNotFoundError:
            return f"Test: {mark} kept no {names.PREDICTIONS}; {WANT}."
        except Unreadable as error:
            return f"Test: {mark}'s {names.PREDICTIONS} {error}; nothing is tested."
    first, second = kept
    if first.shape != second.shape or (first[1] != second[1]).any():
        return "Test: the two were evaluated on different images; nothing is tested."
    found = mcnemar((first[0] == first[1]).tolist(), (second[0] == second[1]).tolist())
    images = first.shape[1]
    apart = points((found.second - found.first) / images)
    return (
        f"Test (McNemar, {images:,} images): B - A is {apart} points; right in A alone {found.first}, in B alone"
        f" {found.second}, in both {found.both}, in neither {found.neither}; p = {found.exact:.3g} exact,"
        f" {found.corrected:.3g} by chi squared with continuity correction. It speaks about these two networks, not"
        " about their methods: another seed is another network."
    )
