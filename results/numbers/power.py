"""How many seeds a difference needs: power of the t-tests, for one test and within a table."""

from __future__ import annotations

import math
from collections.abc import Callable

from .student import LEVEL, beyond, upper

POWER = 0.8
MOST = 10_000
"""Number of seeds beyond which none is looked for."""

Power = Callable[[float, float, int, float], float]


def paired_power(difference: float, std: float, n: int, level: float = LEVEL) -> float:
    """Return the chance that the paired t-test finds a difference.

    Example:
        >>> from results.numbers import power
        >>> round(power.paired_power(difference=0.3, std=0.5, n=26), 2)
        0.84

    Args:
        difference: True mean difference, not 0.
        std: Standard deviation of the differences between pairs, > 0, in the same unit.
        n: Number of pairs, >= 2.
        level: Two-sided level.
    """
    return beyond(n - 1, abs(difference) / std * math.sqrt(n), level)


def unpaired_power(difference: float, std: float, n: int, level: float = LEVEL) -> float:
    """Return the chance that the t-test of two samples of equal size and spread finds a difference.

    Example:
        >>> from results.numbers import power
        >>> round(power.unpaired_power(difference=0.3, std=0.5, n=26), 2)
        0.56

    Args:
        difference: True difference of the means, not 0.
        std: Standard deviation of each sample, > 0, in the same unit.
        n: Size of each sample, >= 2.
        level: Two-sided level, in (0, 1).
    """
    return beyond(2 * n - 2, abs(difference) / std * math.sqrt(n / 2), level)


def needed(power: Power, difference: float, std: float, level: float = LEVEL, wanted: float = POWER) -> int | None:
    """Return the smallest number of seeds with which a test has the power wanted.

    Example:
        >>> from results.numbers import power
        >>> power.needed(power.paired_power, difference=0.3, std=0.5)
        24

    Args:
        power: `paired_power` or `unpaired_power`.
        difference: True difference, not 0.
        std: Standard deviation, > 0, in the same unit; of pairs' differences, or of each sample.
        level: Two-sided level, in (0, 1).
        wanted: The power, in (0, 1).

    Returns:
        The number; None beyond `MOST`.
    """
    low, high = 2, MOST
    if power(difference, std, high, level) < wanted:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, std, middle, level) >= wanted else (middle + 1, high)
    return low


def reach(std: float, n: int, family: int) -> float:
    """Return the paired difference that is just significant as the first of `family` in Holm's order.

    Args:
        std: Standard deviation of the differences between pairs.
        n: Number of pairs, >= 2.
        family: Number of differences that are judged together, >= 1.
    """
    return upper(n - 1, LEVEL / family) * std / math.sqrt(n)
