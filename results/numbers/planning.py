"""How many seeds a table needs: the spread from finished runs or published figures, power with and without Holm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from results.runs.schema import SweepResults, column_id

from .measure import family, measure
from .paper import figures
from .power import POWER, needed, paired_power, reach, unpaired_power
from .stats import pooled
from .student import LEVEL

SEEDS = (3, 5, 8, 16)
"""Numbers of seeds for which the smallest detectable difference is stated."""


@dataclass(frozen=True)
class Spread:
    """How much seeds scatter, in percentage points.

    Attributes:
        source: Where it comes from, in words.
        row: Standard deviation of a row over its seeds.
        difference: That of the difference of two rows at equal seeds.
    """

    source: str
    row: float
    difference: float


@dataclass(frozen=True)
class SeedPlan:
    """Seeds a row for a power of 80 %; None beyond `power.MOST`.

    Attributes:
        difference: The true difference that shall be found, in percentage points.
        spread: How much seeds scatter.
        family: Number of differences that the table judges together.
        paired: Seeds for one difference alone, paired by seed as tables do.
        paired_holm: Seeds for the first of all differences in Holm's order, which are enough for the others too.
        unpaired: Seeds for one difference alone between rows that share none.
        unpaired_holm: The same for the first of all differences.
        reach: For each of `SEEDS`, the paired difference that is just significant over the table.
    """

    difference: float
    spread: Spread
    family: int
    paired: int | None
    paired_holm: int | None
    unpaired: int | None
    unpaired_holm: int | None
    reach: Mapping[int, float]


def plan(difference: float, judged: int, spread: Spread) -> SeedPlan:
    """Compute how many seeds a difference needs."""
    first = LEVEL / judged
    return SeedPlan(
        difference=difference,
        spread=spread,
        family=judged,
        paired=needed(paired_power, difference, spread.difference),
        paired_holm=needed(paired_power, difference, spread.difference, first),
        unpaired=needed(unpaired_power, difference, spread.row),
        unpaired_holm=needed(unpaired_power, difference, spread.row, first),
        reach={n: reach(spread.difference, n, judged) for n in SEEDS},
    )


def spread_of(sweep: SweepResults) -> Spread | None:
    """Pool the spreads of a sweep's rows and differences; None without a difference of three seeds."""
    measurements = measure(sweep)
    found = family(sweep, measurements)
    apart = pooled((each.n, each.std or 0.0) for each in found)
    cells = (measurements[row, column_id(column)] for row, column in sweep.first_cells())
    alone = pooled((cell.accuracy.n, cell.accuracy.std or 0.0) for cell in cells if cell.accuracy)
    if not apart or not alone:
        return None
    return Spread(f"{len(found)} differences at equal seeds in {sweep.name}", 100 * alone, 100 * apart)


def planned(sweep: SweepResults) -> int:
    """Count the differences that a sweep's table will have once all of its runs are finished."""
    pairs = set()
    for row, column in sweep.first_cells():
        if (plain := sweep.baselines.get(row)) is not None and sweep.cell(plain, column):
            own, beside = (frozenset(entry.path for entry in sweep.cell(name, column)) for name in (row, plain))
            pairs.add((own, beside))
    return len(pairs)


def published(wanted: Iterable[tuple[str, str, str, str]]) -> Spread | None:
    """Pool the published spreads of (data set, network, topology, representation) of the source that has most."""
    keys = set(wanted)
    found: dict[str, list[float]] = {}
    for figure in figures():
        if figure.spread and (figure.dataset, figure.model, figure.topology, figure.representation) in keys:
            found.setdefault(figure.source, []).append(figure.spread)
    if not found:
        return None
    source, used = max(found.items(), key=lambda item: len(item[1]))
    std = math.sqrt(math.fsum(spread**2 for spread in used) / len(used))
    text = f"{len(used)} published spreads ({source}), taken for standard deviations, and rows for unrelated"
    return Spread(text, std, math.sqrt(2) * std)


def words(found: SeedPlan) -> str:
    """Return a plan as text."""
    spread, judged = found.spread, found.family
    together = f"if {judged} differences are judged together (Holm)"
    seen = ", ".join(f"{value:.1f} at {n} seeds" for n, value in found.reach.items())
    return "\n".join(
        [
            f"Spread: {spread.row:.2f} points of a row, {spread.difference:.2f} of a difference, from {spread.source}.",
            f"A true difference of {found.difference:g} points is found with {POWER:.0%} power from",
            f"  {_seeds(found.paired)} a row, if it is the only one judged; {_seeds(found.paired_holm)}, {together}",
            f"  without pairs by seed: {_seeds(found.unpaired)}, and {_seeds(found.unpaired_holm)}",
            f"Paired, over {judged}, one cannot reach .05 unless |Δ| exceeds {seen} (points).",
        ]
    )


def _seeds(number: int | None) -> str:
    return "more than 10,000 seeds" if number is None else f"{number} seeds"


def as_dict(found: SeedPlan) -> dict[str, Any]:
    """Return a plan for JSON."""
    return {**asdict(found), "power": POWER, "level": LEVEL}
