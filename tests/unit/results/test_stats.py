"""Statistics against closed forms worked out by hand and against scipy.stats."""

from __future__ import annotations

import math

import pytest
from scipy import stats as scipy_stats

from results.numbers.stats import paired, summarise

PLAIN = {0: 0.80, 1: 0.82, 2: 0.84}
ADDED = {0: 0.81, 1: 0.82, 2: 0.86}  # differences .01, 0, .02: mean .01, sample std .01


def test_mean_and_sample_std_by_hand():
    sample = summarise([0.80, 0.82, 0.84])
    assert sample is not None
    assert (sample.n, sample.low, sample.high) == (3, 0.80, 0.84)
    assert sample.mean == pytest.approx(0.82, abs=1e-15)
    assert sample.std == pytest.approx(0.02, rel=1e-12)  # (4 + 0 + 4)e-4 / 2, not / 3


def test_a_single_value_has_no_spread_and_none_no_summary():
    one = summarise([0.5])
    assert one is not None
    assert (one.n, one.mean, one.std) == (1, 0.5, None)
    assert summarise([]) is None


def test_spread_of_equal_values_is_exactly_zero():
    sample = summarise([0.1 + 0.2, 0.3, 0.3])  # 0.30000000000000004: rounding, not spread
    assert sample is not None
    assert sample.std == 0.0


def test_paired_difference_by_hand():
    difference = paired(ADDED, PLAIN)
    assert difference is not None
    assert (difference.n, difference.wins, difference.side) == (3, 2, 0)
    assert difference.mean == pytest.approx(0.01, rel=1e-9)
    assert difference.se == pytest.approx(0.01 / math.sqrt(3), rel=1e-9)
    # t quantile at 2 degrees of freedom in closed form: 2p - 1 = .95 = t / sqrt(t^2 + 2)
    quantile = math.sqrt(2 * 0.95**2 / (1 - 0.95**2))
    assert quantile == pytest.approx(4.302653, abs=1e-6)
    assert difference.low == pytest.approx(0.01 - quantile * 0.01 / math.sqrt(3), rel=1e-9)
    assert difference.high == pytest.approx(0.01 + quantile * 0.01 / math.sqrt(3), rel=1e-9)
    # t = sqrt(3), so p = 1 - sqrt(3) / sqrt(5)
    assert difference.p == pytest.approx(1 - math.sqrt(3 / 5), rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_paired_difference_agrees_with_scipy(n):
    plain = {seed: 0.8 + 0.01 * math.sin(seed) for seed in range(n)}
    added = {seed: plain[seed] + 0.004 + 0.003 * math.cos(3 * seed) for seed in range(n)}
    expected = scipy_stats.ttest_rel([added[s] for s in range(n)], [plain[s] for s in range(n)])
    interval = expected.confidence_interval(0.95)
    difference = paired(added, plain)
    assert difference is not None
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert difference.low == pytest.approx(interval.low, rel=1e-6)
    assert difference.high == pytest.approx(interval.high, rel=1e-6)


def test_only_common_seeds_are_paired():
    difference = paired({0: 0.9, 2: 0.9, 7: 0.1}, {0: 0.8, 1: 0.1, 2: 0.7})
    assert difference is not None
    assert difference.n == 2
    assert difference.mean == pytest.approx(0.15)
    assert paired({0: 0.9}, {1: 0.8}) is None


def test_one_seed_has_a_difference_and_nothing_else():
    difference = paired({4: 0.9}, {4: 0.8})
    assert difference is not None
    assert difference.mean == pytest.approx(0.1)
    assert (difference.n, difference.wins) == (1, 1)
    assert difference.se is difference.low is difference.high is difference.p is None
    assert difference.side == 0


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_equal_differences_have_no_p_value_and_judge_nothing(shift):
    difference = paired({seed: value + shift for seed, value in PLAIN.items()}, PLAIN)
    assert difference is not None
    assert difference.se == 0.0
    assert difference.low == difference.high == difference.mean == pytest.approx(shift)
    assert difference.p is None
    assert difference.side == 0
    assert difference.wins == (3 if shift else 0)


def test_side_says_where_the_interval_lies():
    up = paired({0: 0.91, 1: 0.92, 2: 0.93}, {0: 0.80, 1: 0.82, 2: 0.81})
    down = paired({0: 0.80, 1: 0.82, 2: 0.81}, {0: 0.91, 1: 0.92, 2: 0.93})
    assert up is not None
    assert down is not None
    assert (up.side, down.side) == (1, -1)
    assert (up.wins, down.wins) == (3, 0)
