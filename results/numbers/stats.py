"""Means, standard deviations, and seed-paired differences with Student's t."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Accuracies are counts over thousands of images; a spread below this is a rounding error of equal numbers.
ROUNDING = 1e-12
CONFIDENCE = 0.95


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
    """

    n: int
    mean: float
    se: float | None
    low: float | None
    high: float | None
    wins: int
    p: float | None

    @property
    def side(self) -> int:
        """+1 if the interval lies above zero, -1 if below, 0 if it contains zero, has zero width or does not exist."""
        if self.low is None or self.high is None or not self.se:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def summarise(values: Iterable[float]) -> Summary | None:
    """Summarise a sample by mean and sample standard deviation; return None for an empty one."""
    values = list(values)
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    return Summary(len(values), mean, _std(values, mean), min(values), max(values))


def paired(addition: Mapping[int, float], plain: Mapping[int, float]) -> Difference | None:
    """Compare two rows over the seeds that both have.

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
    half = _t_quantile(n - 1) * se
    return Difference(n, mean, se, mean - half, mean + half, wins, _two_sided(mean / se, n - 1))


def _std(values: list[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return std if std > ROUNDING else 0.0


def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats would load four times as much

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _two_sided(t: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))
