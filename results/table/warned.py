"""Warnings of a table: what is missing from it, and numbers that are not comparable."""

from __future__ import annotations

from results.numbers.measure import TOLERANCE, Measured, Measurements
from results.numbers.stats import FEW
from results.runs.schema import SweepResults, column_id, place

from .notes import DAGGER, points
from .origin import mixed, unnamed


def warnings(sweep: SweepResults, measurements: Measurements) -> tuple[str, ...]:
    """Return warnings about rows that are not comparable.

    Reasons are few seeds, missed targets, unfinished runs, emptied layers, evaluation on different parts, seeds of
    other versions or devices, different versions of the suite, and runs that no row names.
    """
    cells = [measurements[row, column_id(column)] for row, column in sweep.first_cells()]
    found = [_few_seeds(sweep, cells), *_off_targets(sweep, cells), _unfinished(sweep, cells)]
    found += [
        _emptied(sweep),
        _idle(sweep),
        _lost_at_cut(sweep),
        _mixed(sweep),
        mixed(sweep),
        _versions(sweep),
        unnamed(sweep),
    ]
    return tuple(text for text in found if text)


def _few_seeds(sweep: SweepResults, cells: list[Measured]) -> str:
    few = [cell for cell in cells if 0 < cell.done < FEW]
    if not few:
        return ""
    if len(few) == sum(cell.done > 0 for cell in cells):
        where = "in every cell"
    else:
        where = "in " + ", ".join(f"{place(sweep, cell.row, cell.column)} ({cell.done})" for cell in few)
    return f"Fewer than {FEW} seeds {where}: spread and intervals say little."


def _off_targets(sweep: SweepResults, cells: list[Measured]) -> list[str]:
    texts = []
    for cell in cells:
        if cell.off_target is not None and cell.target is not None:
            where = place(sweep, cell.row, cell.column)
            texts.append(
                f"{DAGGER} {where}: not comparable, off target by {points(cell.off_target)} points"
                f" (asked for {100 * cell.target:.2f} % sparse; up to {100 * TOLERANCE:g} points are allowed)."
            )
    return texts


def _unfinished(sweep: SweepResults, cells: list[Measured]) -> str:
    texts = []
    for cell in cells:
        if cell.done < cell.planned:
            counts = [
                f"{number} {word}" for number, word in ((cell.failed, "failed"), (cell.missing, "missing")) if number
            ]
            texts.append(
                f"{place(sweep, cell.row, cell.column)}: {cell.done} of {cell.planned} seeds ({', '.join(counts)})"
            )
    return f"Unfinished: {'; '.join(texts)}." if texts else ""


def _emptied(sweep: SweepResults) -> str:
    """Name the runs in which a layer had no active weights at some time, so that no signal passed through it."""
    seeds: dict[str, list[int]] = {}
    for run in sweep.runs:
        if run.result.get("empty_layers"):
            seeds.setdefault(place(sweep, run.row, run.column), []).append(run.seed)
    texts = []
    for name, found in seeds.items():
        noun = "seed" if len(found) == 1 else "seeds"
        texts.append(f"{name} ({noun} {', '.join(map(str, found))})")
    return f"A layer had no weights left for a while or to the end: {', '.join(texts)}." if texts else ""


def _idle(sweep: SweepResults) -> str:
    """Name the cells in which all mask events of a kind changed nothing, so that the method did not act by them."""
    found: dict[str, None] = {}
    for run in sweep.runs:
        events = run.result.get("events") or {}
        for kind, number in (run.result.get("idle_events") or {}).items():
            if number and number == events.get(kind):
                found[f"{place(sweep, run.row, run.column)} ({number} × {kind})"] = None
    return f"Mask events that changed nothing at all: {', '.join(found)}." if found else ""


def _lost_at_cut(sweep: SweepResults) -> str:
    """Name the cells in which the cut at the last step took most of what the network knew."""
    falls: dict[str, tuple[float, float]] = {}
    for run in sweep.runs:
        before, after = run.number("accuracy_before_cut"), run.number("accuracy")
        if before is not None and after is not None:
            falls.setdefault(place(sweep, run.row, run.column), (before, after))
    named = ", ".join(f"{where} (from {100 * a:.1f} to {100 * b:.1f} %)" for where, (a, b) in falls.items())
    return f"The cut at the last step took the network near chance: {named}." if falls else ""


def _mixed(sweep: SweepResults) -> str:
    parts = {
        str(e.result.get("accuracy_on")) for e in sweep.entries if e.status == "done" and "accuracy_on" in e.result
    }
    return "Some runs were evaluated on the test part, others on the validation part." if len(parts) > 1 else ""


def _versions(sweep: SweepResults) -> str:
    """Name the versions of the suite's code with which the runs were trained, if there are several."""
    rows: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        codes = run.result.get("code") or ()
        text = " then ".join(map(str, codes)) if isinstance(codes, (list, tuple)) else str(codes)
        if run.status == "done":
            rows.setdefault(text or "unknown", {})[run.row] = None
    if len(rows) < 2 and not any(" then " in text for text in rows):
        return ""
    named = "; ".join(f"{text} ({', '.join(names)})" for text, names in rows.items())
    return f"Trained by different versions of the suite's code: {named}."
