"""The search for a decay, on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from experiments.errors import RunFailure
from experiments.launch import calibrate
from experiments.launch.calibrate import MAX_RUNS, TOLERANCE, solve

Curve = Callable[[float], float]
TARGETS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def logistic(middle: float, steepness: float) -> Curve:
    """Sparsity as a logistic of the logarithm of the decay."""
    return lambda decay: 1 / (1 + math.exp(-steepness * (math.log(decay) - math.log(middle))))


def saturating(middle: float, top: float) -> Curve:
    """Nothing below a point, then a rise that levels off."""
    return lambda decay: top * max(0.0, 1 - (middle / decay) ** 2)


def jumping(middle: float) -> Curve:
    """A smooth curve with a gap from 0.6 to 0.85."""
    smooth = logistic(middle, 2.0)
    return lambda decay: smooth(decay) if decay < middle else min(1.0, 0.85 + 0.15 * (smooth(decay) - 0.5) * 2)


def counted(curve: Curve) -> tuple[Curve, list[float]]:
    asked: list[float] = []

    def measure(decay: float) -> float:
        asked.append(decay)
        return curve(decay)

    return measure, asked


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("middle", [3e-4, 0.004, 0.01, 0.05, 2.0])
@pytest.mark.parametrize("steepness", [0.7, 2.0, 8.0])
def test_logistic_curves(target: float, middle: float, steepness: float) -> None:
    curve = logistic(middle, steepness)
    measure, asked = counted(curve)
    decay, reached, runs = solve(measure, target)
    assert abs(curve(decay) - target) <= TOLERANCE
    assert reached == curve(decay)
    assert runs == len(asked) <= MAX_RUNS
    assert decay in asked


@pytest.mark.parametrize("target", TARGETS[:-1])
@pytest.mark.parametrize("middle", [0.002, 0.03])
def test_saturating_curves(target: float, middle: float) -> None:
    curve = saturating(middle, top=0.99)
    decay, _, runs = solve(curve, target)
    assert abs(curve(decay) - target) <= TOLERANCE
    assert runs <= MAX_RUNS


def test_a_good_start_costs_one_run() -> None:
    measure, asked = counted(lambda decay: 0.9)
    assert solve(measure, 0.9) == (0.01, 0.9, 1)
    assert asked == [0.01]


def test_what_is_returned_is_what_was_measured_to_the_last_digit() -> None:
    """The stored number has six digits; measuring another one would not be what the table runs."""
    measure, asked = counted(logistic(0.0123456789, 3.0))
    decay, _, _ = solve(measure, 0.87)
    assert decay in asked
    assert float(f"{decay:.6g}") == decay


@pytest.mark.parametrize(
    ("curve", "target", "nearest"),
    [
        (lambda decay: 0.0, 0.9, 0.0),
        (lambda decay: 1.0, 0.9, 1.0),
        (lambda decay: 0.7, 0.9, 0.7),
        (jumping(0.02), 0.72, 0.85),
    ],
)
def test_what_cannot_be_reached_is_said(curve: Curve, target: float, nearest: float) -> None:
    measure, asked = counted(curve)
    with pytest.raises(RunFailure, match=rf"no threshold decay found for sparsity {target:g} in \d+ runs") as caught:
        solve(measure, target)
    assert f"in {len(asked)} runs" in caught.value.message
    assert 4 < len(asked) <= MAX_RUNS
    assert all(1e-30 < decay < 1e12 for decay in asked), "far beyond these single precision ends"
    assert f"nearest: {nearest:.2f}" in caught.value.message
    assert "initial_threshold" in caught.value.message


def test_the_limit_of_runs_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MAX_RUNS", 3)
    measure, asked = counted(logistic(40.0, 1.0))
    with pytest.raises(RunFailure, match="in 3 runs"):
        solve(measure, 0.95)
    assert len(asked) == 3


def test_a_training_that_fails_on_the_way_is_said_with_what_was_reached() -> None:
    def measure(decay: float) -> float:
        if decay > 1:
            raise RunFailure("the loss is not finite at step 3", where="scratch")
        return 0.4

    with pytest.raises(
        RunFailure, match=r"no threshold decay found for sparsity 0\.9: with .* the training fails"
    ) as caught:
        solve(measure, 0.9)
    assert "the loss is not finite at step 3" in caught.value.message
    assert "nearest of " in caught.value.message
    assert "runs: 0.4000 at " in caught.value.message
    assert "Another representation.initial_threshold may help" in caught.value.message
