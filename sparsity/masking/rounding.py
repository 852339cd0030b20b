"""Whole numbers of weights from computed ones, without the error of binary arithmetic.

(1 − 0.9) · 1000 is 99.99… in floating point and means 100; 10 · (1 − 0.7) is a little more than 3 and means 3. A number
within `TOLERANCE` of a whole number is therefore taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

TOLERANCE = 1e-6


def floor_count(number: float) -> int:
    """Round down, unless the next whole number is within the tolerance."""
    return math.floor(number + TOLERANCE)


def ceil_count(number: float) -> int:
    """Round up, unless the whole number below is within the tolerance."""
    return math.ceil(number - TOLERANCE)


def rounded(rule: str) -> Callable[[float], int]:
    """Return the function that turns a fraction of a layer into a number of weights: ``floor`` or ``ceil``."""
    return {"floor": int, "ceil": ceil_count}[rule]


def share_out(number: int, shares: list[float], room: list[int]) -> list[int]:
    """Distribute `number` in proportion to `shares`, giving no one more than it has room for.

    What does not fit goes in equal parts to those with room left; then fractions are rounded by the largest remainder
    (the first among equals), so that the parts sum to `number`.

    ::

        10 among shares .6 .3 .1 with room 4 9 9:  6 3 1, of which 2 do not fit: 4 4 2

    Args:
        number: What to distribute, at most the sum of `room`.
        shares: Non-negative fractions that sum to 1.
        room: The largest part that each can take.
    """
    wanted = [share * number for share in shares]
    while True:
        surplus = sum(max(0.0, want - limit) for want, limit in zip(wanted, room, strict=True))
        wanted = [min(want, float(limit)) for want, limit in zip(wanted, room, strict=True)]
        with_room = [i for i, limit in enumerate(room) if wanted[i] < limit]
        if surplus < 1e-6 or not with_room:
            break
        for i in with_room:
            wanted[i] += surplus / len(with_room)
    given = [floor_count(want) for want in wanted]
    order = sorted(range(len(room)), key=lambda i: (given[i] - wanted[i], i))
    while sum(given) < number:
        for i in order:
            if given[i] < room[i] and sum(given) < number:
                given[i] += 1
    return given
