"""Tests and power against scipy.stats, closed forms, and numbers that others print."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from results.numbers import power
from results.numbers.counts import mcnemar
from results.numbers.stats import FEW, holm, paired, pooled, summarise
from results.numbers.student import LEVEL, beyond, upper
from results.numbers.unpaired import from_published, mann_whitney, welch

P = st.floats(0, 1, allow_nan=False)


# ---- Holm -----------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # the example of Holm (1979): sorted .01 .02 .03, times 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(P, max_size=12))
@settings(max_examples=200, deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(values):
    """Corrected by the closure principle: the largest Bonferroni p over all families that contain the hypothesis."""
    values = values[:7]
    places = range(len(values))
    families = [f for size in range(1, len(values) + 1) for f in itertools.combinations(places, size)]
    for place, corrected in enumerate(holm(values)):
        expected = max(min(1.0, len(f) * min(values[i] for i in f)) for f in families if place in f)
        assert corrected == pytest.approx(expected, abs=1e-12)


def test_a_table_of_nothing_but_chance_has_a_winner_in_one_of_twenty():
    """Eight differences to shared plain rows, three seeds, all of one distribution, six hundred times."""
    drawn, tables, winners, uncorrected = random.Random(5), 600, 0, 0
    for _ in range(tables):
        rows = [{seed: drawn.gauss(0.82, 0.005) for seed in range(3)} for _ in range(12)]
        found = [paired(rows[i], rows[8 + i % 4]) for i in range(8)]
        values = [difference.p for difference in found if difference and difference.p is not None]
        winners += min(holm(values)) < LEVEL
        uncorrected += min(values) < LEVEL
    assert winners <= tables * LEVEL + 3 * math.sqrt(tables * LEVEL * (1 - LEVEL))
    assert uncorrected > tables / 5  # what the correction is for


# ---- two samples ----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(7000, 9000), min_size=2, max_size=8), st.lists(st.integers(7000, 9000), min_size=2, max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_welch_is_that_of_scipy(one, other):
    one, other = [[value / 10000 for value in values] for values in (one, other)]
    found = welch(summarise(one), summarise(other))
    if len(set(one)) == 1 and len(set(other)) == 1:
        assert found is None
        return
    expected = scipy_stats.ttest_ind(one, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found is not None
    for name, value in (
        ("t", expected.statistic),
        ("freedom", expected.df),
        ("p", expected.pvalue),
        ("low", interval.low),
        ("high", interval.high),
    ):
        assert getattr(found, name) == pytest.approx(value, rel=1e-7, abs=1e-9), name


def test_welch_of_published_numbers_is_that_of_scipy():
    found = from_published(75.45, 0.13, 3, 72.59, 0.11, 3)
    expected = scipy_stats.ttest_ind_from_stats(75.45, 0.13, 3, 72.59, 0.11, 3, equal_var=False)
    assert found is not None
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert from_published(75.45, 0.13, 1, 72.59, 0.11, 3) is None
    assert from_published(75.45, 0.0, 3, 72.59, 0.0, 3) is None


def test_hedges_g_by_hand():
    # d = 1/1, and for 4 degrees of freedom the exact factor is gamma(2) / (sqrt(2) gamma(1.5)) = 0.797885
    found = welch(summarise([1.0, 2.0, 3.0]), summarise([0.0, 1.0, 2.0]))
    assert found is not None
    assert found.g == pytest.approx(0.7978845608, rel=1e-9)


def test_rank_test_by_hand():
    assert mann_whitney([4, 5, 6], [1, 2, 3]) == pytest.approx(2 / 20)  # one of 20 orders on either side
    assert mann_whitney([], [1]) is None


def test_spreads_are_pooled_by_their_degrees_of_freedom():
    assert pooled([(3, 1.0), (2, 2.0)]) == pytest.approx(math.sqrt((2 * 1 + 1 * 4) / 3))
    assert pooled([(1, 0.0)]) is None


# ---- images ---------------------------------------------------------------------------------------------------------


def test_mcnemar_by_hand():
    found = mcnemar([True] * 15 + [False] * 15, [True] * 10 + [False] * 5 + [True] * 14 + [False])
    assert (found.both, found.first, found.second, found.neither) == (10, 5, 14, 1)
    assert found.exact == pytest.approx(scipy_stats.binomtest(5, 19).pvalue)
    assert found.corrected == pytest.approx(scipy_stats.chi2.sf((14 - 5 - 1) ** 2 / 19, 1))


def test_networks_that_agree_are_not_told_apart():
    found = mcnemar([True, False], [True, False])
    assert (found.exact, found.corrected) == (1.0, 1.0)
    with pytest.raises(ValueError, match="zip"):
        mcnemar([True], [])


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_mcnemar_is_the_binomial_test(first, second):
    found = mcnemar([True] * first + [False] * second, [False] * first + [True] * second)
    expected = scipy_stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.exact == pytest.approx(expected, rel=1e-9)


# ---- power ----------------------------------------------------------------------------------------------------------


def test_seeds_needed_are_those_of_the_textbooks():
    """Cohen's medium effect at 80 %: 34 pairs, 64 a group (G*Power 3.1)."""
    assert power.needed(power.paired_power, 0.5, 1.0) == 34
    assert power.needed(power.unpaired_power, 0.5, 1.0) == 64
    assert power.needed(power.paired_power, 1e-6, 1.0) is None


@pytest.mark.parametrize("freedom", [1, 2, 4, 15, 99, 499])
@pytest.mark.parametrize("level", [0.05, 0.05 / 8])
def test_power_is_that_of_the_noncentral_t(freedom, level):
    for shift in np.linspace(0, 6, 13):
        edge = upper(freedom, level)
        expected = scipy_stats.nct.sf(edge, freedom, shift) + scipy_stats.nct.cdf(-edge, freedom, shift)
        assert beyond(freedom, shift, level) == pytest.approx(expected, abs=1e-8)
    assert beyond(freedom, 0.0, level) == pytest.approx(level, rel=1e-9)


def test_power_never_falls_and_is_never_unknown():
    """Far out in its tails scipy returns NaN, in places that no rule tells."""
    for freedom in (1, 7, 499, 2999, 9999):
        values = [beyond(freedom, shift, LEVEL) for shift in np.linspace(0.01, 80, 120)]
        assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
        assert values[-1] <= 1


def test_reach_is_where_the_first_p_of_a_table_is_just_significant():
    for family in (1, 8, 27):
        edge = power.reach(0.52, 5, family)
        t = edge / (0.52 / math.sqrt(5))
        assert family * 2 * scipy_stats.t.sf(t, 4) == pytest.approx(LEVEL)


def test_two_seeds_are_few():
    assert FEW == 3
