"""Where a table's numbers come from: what was trained, on what, and what a reader would not expect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from experiments.rundir.result import REUSED_FROM
from results.runs.facts import Settings, conditions, distribution
from results.runs.kinds import one_line
from results.runs.schema import RunEntry, SweepResults, is_number, place

MOST = 3
"""Cells that a warning names; the others are counted."""


def title(sweep: SweepResults) -> str:
    """Return a table's title, which is its author's and so marked where the command line changed what it speaks of."""
    return f"{sweep.title} (with {', '.join(sweep.overrides)})" if sweep.overrides else sweep.title


def joint_title(sweeps: Sequence[SweepResults]) -> str:
    """Say what titles have in common once: "A, B, one" and "A, B, two" become "A, B: one; two"."""
    parts = [title(sweep).split(", ") for sweep in {title(sweep): sweep for sweep in sweeps}.values()]
    same = 0
    while len(parts) > 1 and all(len(each) > same + 1 and each[same] == parts[0][same] for each in parts):
        same += 1
    rest = "; ".join(", ".join(each[same:]) for each in parts)
    return f"{', '.join(parts[0][:same])}: {rest}" if same else rest


def notes(sweep: SweepResults) -> list[str]:
    """Return the author's notes, marked where the command line changed what they may speak of."""
    if not sweep.notes:
        return []
    text = " ".join(sweep.notes.split())
    if not sweep.overrides:
        return [text]
    return [f"Notes written for other settings, without {', '.join(sweep.overrides)}: {text}"]


def trained(sweep: SweepResults, settings: Settings) -> list[str]:
    """Say what the runs trained on what and for how long, from their own configurations, and which were reused."""
    facts: tuple[tuple[str, Callable[[Mapping[str, Any]], str | None]], ...] = (
        ("model.name", lambda spec: _text(spec.get("model.name"))),
        ("data.name", _data),
        ("schedule.epochs", lambda spec: _counted(spec.get("schedule.epochs"), "epoch", "epochs")),
        ("data.batch_size", lambda spec: _counted(spec.get("data.batch_size"), "image a step", "images a step")),
    )
    parts = []
    for key, fact in facts:
        rows = _by_value(sweep, lambda run, fact=fact: fact(settings[run.path]) if settings[run.path] else None)
        if key not in sweep.column_keys and rows:
            parts.append(_grouped(rows))
    layers = _by_value(sweep, lambda run: distribution(settings[run.path], run.result))
    words = f" Layers' densities: {_grouped(layers)}." if layers else ""
    told = [f"Trained, by the runs' own configurations: {', '.join(parts)}.{words}"] if parts else []
    return told + _reused(sweep)


def distributions(sweep: SweepResults, settings: Settings) -> dict[str, str]:
    """Return how each row distributes its density over layers; "" for a dense row, "?" where nothing is known."""
    layers = _by_value(sweep, lambda run: distribution(settings[run.path], run.result))
    found: dict[str, list[str]] = {}
    for word, rows in layers.items():
        for row in rows:
            found.setdefault(row, []).append(word)
    return {row: ", ".join(found.get(row, ())) for row in sweep.rows}


def mixed(sweep: SweepResults) -> str:
    """Name the cells whose seeds differ in versions, device, or what was trained and evaluated."""
    texts = []
    for row, column in sweep.first_cells():
        done = [entry for entry in sweep.cell(row, column) if entry.status == "done"]
        known = {entry.seed: conditions(entry.path, entry.result) for entry in done}
        differing = [
            _seeds_by_value(key, {seed: found[key] for seed, found in known.items() if key in found})
            for key in dict.fromkeys(key for found in known.values() for key in found)
        ]
        if any(differing):
            texts.append(f"{place(sweep, row, column)} ({', '.join(filter(None, differing))})")
    more = f"; and {len(texts) - MOST} more cells" if len(texts) > MOST else ""
    return f"Seeds of one cell differ in more than their seed: {'; '.join(texts[:MOST])}{more}." if texts else ""


def unnamed(sweep: SweepResults) -> str:
    """Count the runs in the folder that no row of the table names."""
    if not sweep.strays:
        return ""
    number = len(sweep.strays)
    shown = ", ".join(sweep.strays[:MOST]) + (" …" if number > MOST else "")
    runs = "1 further run lies" if number == 1 else f"{number} further runs lie"
    return f"{runs} in this folder and in no row, such as those of an earlier version of the sweep: {shown}."


def _reused(sweep: SweepResults) -> list[str]:
    """Say which runs were trained for another sweep, and taken over from its folder."""
    found: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        if run.result.get(REUSED_FROM):
            parent = PurePosixPath(one_line(str(run.result[REUSED_FROM]))).parent
            found.setdefault(str(parent), {})[place(sweep, run.row, run.column)] = None
    named = "; ".join(f"{parent} ({', '.join(cells)})" for parent, cells in found.items())
    return [f"Trained for another sweep and reused from its folder, not trained again: {named}."] if named else []


def _data(spec: Mapping[str, Any]) -> str | None:
    name, limit, size = spec.get("data.name"), spec.get("data.train_limit"), spec.get("data.image_size")
    limits = [f"{limit:,} training images"] if is_number(limit) else []
    sizes = [f"{size} pixels"] if is_number(size) else []
    more = f" ({', '.join(limits + sizes)})" if limits + sizes else ""
    return f"{name}{more}" if name else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _counted(value: Any, one: str, many: str) -> str | None:
    return f"{value:,} {one if value == 1 else many}" if is_number(value) else None


def _by_value(sweep: SweepResults, value: Callable[[RunEntry], str | None]) -> dict[str, list[str]]:
    """Group the rows by a value of their runs, in table order; a row with several values is in several groups."""
    found: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        if (text := value(run)) is not None:
            found.setdefault(text, {})[run.row] = None
    return {text: list(rows) for text, rows in found.items()}


def _grouped(rows: Mapping[str, Iterable[str]]) -> str:
    if len(rows) == 1:
        return next(iter(rows))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in rows.items())


def _seeds_by_value(key: str, values: Mapping[int, str]) -> str:
    """Say which seeds have which value of a key; empty if all have the same."""
    seeds: dict[str, list[str]] = {}
    for seed, value in values.items():
        seeds.setdefault(value, []).append(str(seed))
    if len(seeds) < 2:
        return ""
    named = "; ".join(
        f"{value}: seed{'s' if len(found) > 1 else ''} {', '.join(found)}" for value, found in seeds.items()
    )
    return f"{key} {named}"
