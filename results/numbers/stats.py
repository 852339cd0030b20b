"""Means, standard deviations, and seed-paired differences with Student's t and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .student import LEVEL, two_sided, upper

# Accuracies are counts over thousands of images; a spread below this is a rounding error of equal numbers.
ROUNDING = 1e-12
FEW = 3
"""Number of seeds below which nothing is judged, and a cell gets a warning."""


@dataclass(frozen=True)
class Summary:
    """A sample of one number over seeds.

    Attributes:
        n: Sample size.
        mean: Sample mean.
        std: Sample standard deviation (divisor n - 1); None for n = 1.
        low: Smallest value.
        high: Largest value.
    """

    n: int
    mean: float
    std: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """An addition minus its plain row, paired by seed.

    Attributes:
        n: Number of common seeds.
        mean: Mean difference.
        se: Standard error of the mean, sample std / sqrt(n); None for n = 1.
        low: Lower end of the 95 % confidence interval of the mean (Student's t, n - 1 degrees of freedom); None for
            n = 1. If all differences are equal, the interval has zero width.
        high: Upper end of the interval.
        wins: Number of seeds with a difference above zero.
        p: Two-sided p-value of the paired t-test; None for n = 1 and if all differences are equal (t is undefined).
        p_holm: The same corrected for all differences that are judged together (Holm); None if it is not one of them.
    """

    n: int
    mean: float
    se: float | None
    low: float | None
    high: float | None
    wins: int
    p: float | None
    p_holm: float | None = None

    @property
    def side(self) -> int:
        """+1 if the interval lies above zero, -1 if below, 0 if it contains zero, has zero width or does not exist."""
        if self.low is None or self.high is None or not self.se:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    @property
    def verdict(self) -> int:
        """+1 or -1 for a gain or a loss that holds after Holm's correction, otherwise 0."""
        return self.side if self.p_holm is not None and self.p_holm < LEVEL else 0

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the differences."""
        return None if self.se is None else self.se * math.sqrt(self.n)


def summarise(values: Iterable[float]) -> Summary | None:
    """Summarise a sample by mean and sample standard deviation; return None for an empty one."""
    values = list(values)
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return Summary(len(values), mean, _std(values, mean), min(values), max(values))


def paired(addition: Mapping[int, float], plain: Mapping[int, float]) -> Difference | None:
    """Compare two rows over the seeds that both have.

    Example:
        >>> from results.numbers import stats
        >>> found = stats.paired({0: 0.81, 1: 0.82, 2: 0.84}, {0: 0.80, 1: 0.80, 2: 0.81})
        >>> found.n, round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3)
        (3, 0.02, -0.005, 0.045, 0.074)

    Args:
        addition: Values of the row with the addition, by seed.
        plain: Values of the plain row, by seed.

    Returns:
        The difference, or None without a common seed.
    """
    differences = [addition[seed] - plain[seed] for seed in sorted(addition.keys() & plain.keys())]
    if not differences:
        return None
    n = len(differences)
    mean = math.fsum(differences) / n
    wins = sum(difference > ROUNDING for difference in differences)
    std = _std(differences, mean)
    if std is None:
        return Difference(n, mean, None, None, None, wins, None)
    se = std / math.sqrt(n)
    if se == 0.0:
        return Difference(n, mean, se, mean, mean, wins, None)
    half = upper(n - 1) * se
    return Difference(n, mean, se, mean - half, mean + half, wins, two_sided(mean / se, n - 1))


def holm(values: Iterable[float]) -> list[float]:
    """Correct p-values that are judged together (Holm 1979), in their order.

    The chance that any of them falls below a level by chance alone is at most that level, however they depend.

    Example:
        >>> from results.numbers import stats
        >>> stats.holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Args:
        values: The p-values, in [0, 1].
    """
    values = list(values)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def pooled(spreads: Iterable[tuple[int, float]]) -> float | None:
    """Pool standard deviations of samples, given as (n, standard deviation); return None without a pair of values."""
    weighed = [((n - 1) * std**2, n - 1) for n, std in spreads if n > 1]
    freedom = sum(each for _, each in weighed)
    return math.sqrt(math.fsum(square for square, _ in weighed) / freedom) if freedom else None


def _std(values: list[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return std if std > ROUNDING else 0.0
