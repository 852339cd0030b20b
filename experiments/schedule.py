"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math


def factor(name: str, step: int, total: int, warmup: int) -> float:
    """The rate of one step as a share of the peak rate.

    Args:
        name: ``cosine`` (to 0), ``constant``, or ``triangular`` (TurboPrune: 0.2 at the first step, 1 at 20 % of
            training, 0 at its end, linear in between).
        step: Index of the step, from 0.
        total: Number of steps.
        warmup: Steps of linear warm-up before it (not for triangular, which has its own).

    Returns:
        A number in [0, 1].
    """
    if name == "triangular":
        peak = 0.2 * total
        return 0.2 + 0.8 * step / peak if step < peak else (total - step) / (total - peak)
    if step < warmup:
        return (step + 1) / warmup
    if name == "constant":
        return 1.0
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    raise ValueError(f"{name!r} is not a schedule; allowed: cosine, constant, triangular")
