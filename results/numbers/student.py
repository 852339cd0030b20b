"""Student's t distribution and its relatives, from scipy.special (scipy.stats would load four times as much)."""

from __future__ import annotations

LEVEL = 0.05
"""Two-sided level of all tests; intervals have one minus it."""


def upper(freedom: float, level: float = LEVEL) -> float:
    """Return the t that is exceeded in size with probability `level`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - level / 2))


def two_sided(t: float, freedom: float) -> float:
    """Return the probability of a t at least as large in size."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))


def beyond(freedom: float, shift: float, level: float) -> float:
    """Return the probability that a t around `shift` (noncentral) is beyond what `level` allows, on either side."""
    from scipy.special import nctdtr

    edge = upper(freedom, level)
    below, above = (float(nctdtr(freedom, abs(shift), side * edge)) for side in (-1, 1))
    # far out in the lower tail, where the probability is 0 in double precision, scipy returns NaN
    return (1 - above if above == above else 1.0) + (below if below == below else 0.0)
