"""Learning rates against closed forms and the published points."""

from __future__ import annotations

import math

import pytest

from experiments.schedule import factor


def rates(name: str, total: int, warmup: int = 0) -> list[float]:
    return [factor(name, step, total, warmup) for step in range(total)]


def test_cosine_starts_at_the_peak_falls_and_ends_next_to_zero() -> None:
    found = rates("cosine", 100)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert found[99] == pytest.approx(math.sin(math.pi / 200) ** 2)


def test_warm_up_is_linear_and_part_of_the_run() -> None:
    assert rates("cosine", 20, 5)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates("cosine", 20, 5)[5:] == rates("cosine", 15)
    assert rates("constant", 6, 2) == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_warm_up_of_almost_the_whole_run() -> None:
    assert rates("cosine", 4, 4) == [0.25, 0.5, 0.75, 1.0]


def test_constant() -> None:
    assert rates("constant", 7) == [1.0] * 7


def test_triangular_is_turboprunes() -> None:
    """np.interp over (0, 0.2, 1) of training and (0.2, 1, 0) of the peak."""
    found = rates("triangular", 50, warmup=9)
    assert found[0] == pytest.approx(0.2)
    assert found[5] == pytest.approx(0.6)
    assert found[10] == pytest.approx(1.0)
    assert found[30] == pytest.approx(0.5)
    assert found[49] == pytest.approx(1 / 40)


@pytest.mark.parametrize("name", ["cosine", "constant", "triangular"])
def test_every_length_stays_within_bounds(name: str) -> None:
    for total in range(1, 40):
        for warmup in range(total + 1):
            assert all(0 < rate <= 1 for rate in rates(name, total, warmup))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'step' is not a schedule; allowed: cosine, constant, triangular"):
        factor("step", 0, 10, 0)
