"""What a report says first: how many runs, and what their differences show."""

from __future__ import annotations

from collections import Counter

from results.numbers.measure import Measurements, family
from results.runs.schema import SweepResults


def summary(sweep: SweepResults) -> str:
    """Say how many runs there are and in which states."""
    counts = Counter(run.status for run in sweep.runs)
    words = {"done": "finished", "failed": "failed", "missing": "missing"}
    states = [f"{counts[status]} {word}" for status, word in words.items() if counts[status] or status == "done"]
    shape = f"{len(sweep.rows)} rows" if len(sweep.rows) != 1 else "1 row"
    if len(sweep.columns) > 1:
        shape += f" × {len(sweep.columns)} columns"
    seeds = f"seed {sweep.seeds[0]}" if len(sweep.seeds) == 1 else f"seeds {', '.join(map(str, sweep.seeds))}"
    runs = "1 run" if len(sweep.runs) == 1 else f"{len(sweep.runs)} runs"
    return f"{runs}: {', '.join(states)} · {shape} · {seeds}"


def finding(sweep: SweepResults, measurements: Measurements) -> str:
    """Summarise on which side of zero the intervals lie, in one sentence; empty without differences."""
    judged = family(sweep, measurements)
    if not judged:
        return ""
    sides = Counter(difference.side for difference in judged)
    held = Counter(difference.verdict for difference in judged)
    return (
        f"95 % intervals of the differences to plain rows: {sides[1]} above zero, {sides[-1]} below, {sides[0]} with"
        " zero inside. By chance alone, one in 20 would miss zero."
        f" After Holm's correction over all {len(judged)}: {held[1]} above zero, {held[-1]} below."
    )
