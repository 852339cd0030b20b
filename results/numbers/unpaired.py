"""Comparison of two rows that share no seeds: Welch's t, Hedges' g, and the rank test of Mann and Whitney."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .stats import Summary
from .student import two_sided, upper


@dataclass(frozen=True)
class Unpaired:
    """One sample minus another.

    Attributes:
        mean: Difference of the means.
        t: Welch's t.
        freedom: Its degrees of freedom (Welch and Satterthwaite), in general no whole number.
        p: Two-sided p-value.
        low: Lower end of the 95 % confidence interval of the difference.
        high: Upper end.
        g: Hedges' g, the difference in units of the pooled standard deviation, corrected for small samples; of samples
            of different spread it says less than the interval.
    """

    mean: float
    t: float
    freedom: float
    p: float
    low: float
    high: float
    g: float


def welch(one: Summary | None, other: Summary | None) -> Unpaired | None:
    """Compare two samples by Welch's t-test.

    Example:
        >>> from results.numbers import stats, unpaired
        >>> one, other = stats.summarise([0.81, 0.82, 0.84]), stats.summarise([0.80, 0.80, 0.81])
        >>> round(unpaired.welch(one, other).p, 3)
        0.139

    Args:
        one: The first sample, as `stats.summarise` returns it.
        other: The second one.

    Returns:
        The first minus the second; None unless both have two values, and one of them a spread.
    """
    if one is None or other is None or one.std is None or other.std is None:
        return None
    return from_published(one.mean, one.std, one.n, other.mean, other.std, other.n)


def from_published(mean1: float, std1: float, n1: int, mean2: float, std2: float, n2: int) -> Unpaired | None:
    """Compare two samples of which only means, sample standard deviations and sizes are known.

    Example:
        >>> from results.numbers import unpaired
        >>> found = unpaired.from_published(76.2, 0.1, 3, 75.0, 0.2, 3)
        >>> round(found.p, 4), round(found.low, 2), round(found.high, 2)
        (0.0029, 0.78, 1.62)

    Args:
        mean1: Mean of the first sample, in any unit.
        std1: Its sample standard deviation, at least 0, in the same unit.
        n1: Its size.
        mean2: Mean of the second sample.
        std2: Its sample standard deviation.
        n2: Its size.

    Returns:
        The first minus the second, or None where t is undefined: fewer than two values, or no spread in either.
    """
    if min(n1, n2) < 2 or (std1 == 0 and std2 == 0):
        return None
    part1, part2 = std1**2 / n1, std2**2 / n2
    se = math.sqrt(part1 + part2)
    freedom = (part1 + part2) ** 2 / (part1**2 / (n1 - 1) + part2**2 / (n2 - 1))
    mean = mean1 - mean2
    half = upper(freedom) * se
    g = hedges_g(mean, std1, n1, std2, n2)
    return Unpaired(mean, mean / se, freedom, two_sided(mean / se, freedom), mean - half, mean + half, g)


def hedges_g(difference: float, std1: float, n1: int, std2: float, n2: int) -> float:
    """Return a difference in units of the pooled standard deviation, with Hedges' exact correction of its bias.

    Example:
        >>> from results.numbers import unpaired
        >>> round(unpaired.hedges_g(1.2, 0.1, 3, 0.2, 3), 2)
        6.06

    Args:
        difference: Difference of the means.
        std1: Sample standard deviation of the first sample, in the same unit.
        n1: Its size.
        std2: Sample standard deviation of the second sample.
        n2: Its size.
    """
    freedom = n1 + n2 - 2
    std = math.sqrt(((n1 - 1) * std1**2 + (n2 - 1) * std2**2) / freedom)
    log = math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2) - math.log(freedom / 2) / 2
    return difference / std * math.exp(log)


def mann_whitney(one: Iterable[float], other: Iterable[float]) -> float | None:
    """Return the two-sided p-value of the rank test (exact for small samples without ties).

    Example:
        >>> from results.numbers import unpaired
        >>> round(unpaired.mann_whitney([1, 2, 3, 4], [5, 6, 7, 8]), 3)
        0.029

    Args:
        one: The first sample.
        other: The second one.

    Returns:
        The p-value; None if a sample is empty.
    """
    one, other = list(one), list(other)
    if not one or not other:
        return None
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(one, other).pvalue)
