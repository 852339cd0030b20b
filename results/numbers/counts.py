"""Comparison of two networks over the same images: McNemar's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class McNemar:
    """Images on which two networks disagree.

    Attributes:
        both: Images that both classify correctly.
        first: Images that the first alone classifies correctly.
        second: Images that the second alone classifies correctly.
        neither: Images that neither does.
        exact: Two-sided p-value of the binomial test of `first` against `second`.
        corrected: That of the chi-squared approximation with Edwards' correction; 1.0 without a disagreement.
    """

    both: int
    first: int
    second: int
    neither: int
    exact: float
    corrected: float


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> McNemar:
    """Compare two networks by which images each classifies correctly.

    The test speaks about these two trained networks on such images, not about their methods: another seed is another
    network.

    Example:
        >>> from results.numbers import counts
        >>> found = counts.mcnemar([True, True, False, True], [True, False, False, False])
        >>> found.first, found.second, found.exact
        (2, 0, 0.5)

    Args:
        one: Whether the first network classifies each image correctly.
        other: The same of the second network, in the same order.

    Raises:
        ValueError: if the numbers of images differ.
    """
    from scipy.special import bdtr, chdtrc

    pairs = list(zip(map(bool, one), map(bool, other), strict=True))
    both, first = pairs.count((True, True)), pairs.count((True, False))
    second, neither = pairs.count((False, True)), pairs.count((False, False))
    total = first + second
    exact = min(1.0, 2 * float(bdtr(min(first, second), total, 0.5))) if total else 1.0
    distance = max(abs(first - second) - 1, 0)
    corrected = float(chdtrc(1, distance**2 / total)) if total else 1.0
    return McNemar(both, first, second, neither, exact, corrected)
