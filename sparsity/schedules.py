"""When things happen: pure functions of progress, with no counters to save."""

from __future__ import annotations

import math

# Peste et al. 2021, 100-epoch recipe (0-based epoch at whose start the phase begins), from the authors' configurations.
_ACDC_COMPRESS = (10, 20, 30, 40, 50, 60, 70, 85)
_ACDC_DECOMPRESS = (15, 25, 35, 45, 55, 65, 75)


def acdc_phases(total_steps: int) -> list[tuple[int, bool]]:
    """AC/DC's phase table, scaled to a run of any length.

    The authors' 100 epochs: dense 0–10; then sparse and dense in turn, 5 epochs each, up to 75; dense 75–85; sparse
    85–100. Each boundary is put at the same share of training.

    Args:
        total_steps: Length of training in optimizer steps, at least 1.

    Returns:
        ``(step, sparse)`` pairs in order: once `step` steps are done, the network is sparse or dense. Boundaries
        that fall on the same step in a very short run are merged; the last phase is always sparse.
    """
    table = [(0, False)]
    table += sorted([(epoch, True) for epoch in _ACDC_COMPRESS] + [(epoch, False) for epoch in _ACDC_DECOMPRESS])
    by_step: dict[int, bool] = {}
    for epoch, sparse in table:
        # training starts dense, however short it is
        by_step[max(round(epoch / 100 * total_steps), min(epoch, 1))] = sparse
    phases: list[tuple[int, bool]] = []
    for step, sparse in by_step.items():
        if not phases or phases[-1][1] != sparse:
            phases.append((step, sparse))
    return phases


def cosine_fraction(initial: float, step: int, end: int) -> float:
    """RigL's drop fraction a/2 · (1 + cos(π t / T_end)); zero from T_end on (Evci et al. 2020, section 3 (2))."""
    return initial / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0
