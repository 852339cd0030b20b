"""Time spans in words."""

from __future__ import annotations

import pytest

from experiments.durations import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "less than a second"), (0.2, "less than a second"), (59, "59 s"), (89.6, "90 s"), (90, "2 min")]
    + [(3599, "1 h 0 min"), (12000, "3 h 20 min"), (90000, "25 h 0 min"), (5 * 86400 + 7200.0, "5 days 2 h")],
)
def test_the_two_largest_units_are_said(seconds: float, said: str) -> None:
    assert words(seconds) == said
