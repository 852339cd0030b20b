"""Whole numbers of weights from computed ones, without the error of binary arithmetic.

(1 − 0.9) · 1000 is 99.99… in floating point and means 100; 10 · (1 − 0.7) is a little more than 3 and means 3. A number
within `TOLERANCE` of a whole number is therefore taken for it.
"""

from __future__ import annotations

import math

TOLERANCE = 1e-6


def floor_count(number: float) -> int:
    """Round down, unless the next whole number is within the tolerance."""
    return math.floor(number + TOLERANCE)


def ceil_count(number: float) -> int:
    """Round up, unless the whole number below is within the tolerance."""
    return math.ceil(number - TOLERANCE)
