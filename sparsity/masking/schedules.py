"""Schedules: pure functions of the step or of progress, without counters that would have to be saved."""

from __future__ import annotations

import math

# Peste et al. 2021: lengths in epochs of the runs that the authors' configurations give phases for
ACDC_TABLES = {"100ep": 100, "150ep": 150, "200ep": 200}


def acdc_table(table: str = "100ep") -> list[tuple[int, bool]]:
    """Return the authors' phases: ``(epoch, sparse)`` in order; a phase begins at the start of that 0-based epoch.

    The network is compressed at 10, 20, 30, … and decompressed 5 epochs later each time; the last decompression is 25
    epochs before the end and the last compression 15. For 100 epochs: compressed at 10, 20, …, 70 and 85.

    Raises:
        KeyError: if there is no such table.
    """
    epochs = ACDC_TABLES[table]
    compress = [*range(10, epochs - 29, 10), epochs - 15]
    decompress = range(15, epochs - 24, 10)
    return [(0, False), *sorted([(epoch, True) for epoch in compress] + [(epoch, False) for epoch in decompress])]


def acdc_phases(total_steps: int, table: str = "100ep") -> list[tuple[int, bool]]:
    """Scale a phase table of AC/DC to a run of any length: each boundary stays at the same fraction of training.

    Args:
        total_steps: Length of training in optimizer steps, at least 1.
        table: A key of `ACDC_TABLES`.

    Returns:
        ``(step, sparse)`` pairs in order: from the time `step` steps are done, the network is sparse or dense.
        Boundaries that fall on the same step in a very short run are merged; the last phase is always sparse.
    """
    by_step: dict[int, bool] = {}
    for epoch, sparse in acdc_table(table):
        step = round(epoch / ACDC_TABLES[table] * total_steps)
        # training starts dense, however short it is
        by_step[step if epoch == 0 else max(step, 1)] = sparse
    phases: list[tuple[int, bool]] = []
    for step, sparse in by_step.items():
        if not phases or phases[-1][1] != sparse:
            phases.append((step, sparse))
    return phases


def cubic(progress: float) -> float:
    """Return 1 − (1 − progress)³: the fraction of the final sparsity along a ramp (Zhu & Gupta 2018, eq. 1)."""
    return 1 - (1 - min(max(progress, 0.0), 1.0)) ** 3


def cosine_fraction(initial: float, step: int, end: int) -> float:
    """Return RigL's drop fraction a/2 · (1 + cos(π t / T_end)), 0 from T_end on (Evci et al. 2020, section 3 (2))."""
    return initial / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0


def annealed_fraction(initial: float, final: float, step: int, end: int) -> float:
    """Return a fraction that falls from `initial` to `final` by a cosine, as in SNFS and GraNet."""
    return final + cosine_fraction(initial - final, step, end)


def prunings(sparsity: float, fraction: float) -> int:
    """Count the prunings of a fixed fraction that reach a target: ⌈log(1 − sparsity) / log(1 − fraction)⌉."""
    # the small constant undoes binary rounding if the target is a power of 1 − fraction
    return math.ceil(math.log(1 - sparsity) / math.log1p(-fraction) - 1e-9)


def pruning_densities(sparsity: float, fraction: float) -> list[float]:
    """Return the density after each pruning of a fixed fraction: (1 − fraction)^k, and after the last one the target.

    Args:
        sparsity: Target fraction of zeros, in [0, 1).
        fraction: Fraction of the active weights that each pruning removes, in (0, 1).

    Returns:
        ⌈log(1 − sparsity) / log(1 − fraction)⌉ densities, descending; none for a sparsity of 0.
    """
    count = prunings(sparsity, fraction)
    if count == 0:
        return []
    return [*((1 - fraction) ** k for k in range(1, count)), 1 - sparsity]
