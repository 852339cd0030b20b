"""Learning rates against closed forms and the published points."""

from __future__ import annotations

import math
from typing import Any

import pytest

from experiments.config.schema import ScheduleSpec
from experiments.run.schedule import lr_multiplier


def schedule(name: Any, epochs: int, warmup: float = 0, **keys: Any) -> ScheduleSpec:
    """A schedule with the neutral values of what is not said."""
    keys = {"per": "step", "milestones": [], "gamma": 0.1, **keys}
    return ScheduleSpec(name=name, epochs=epochs, warmup_epochs=warmup, **keys)


def rates(name: Any, epochs: int, warmup: float = 0, *, steps: int = 1, **keys: Any) -> list[float]:
    """All rates of a run with so many steps an epoch."""
    spec = schedule(name, epochs, warmup, **keys)
    return [lr_multiplier(spec, step, steps) for step in range(epochs * steps)]


def released(name: str, step: int, total: int, warmup: int) -> float:
    """What the first release computed."""
    if name == "triangular":
        peak = 0.2 * total
        return 0.2 + 0.8 * step / peak if step < peak else (total - step) / (total - peak)
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if name == "constant" else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def test_cosine_starts_at_the_peak_falls_and_ends_next_to_zero() -> None:
    found = rates("cosine", 10, steps=10)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert found[99] == pytest.approx(math.sin(math.pi / 200) ** 2)


def test_warm_up_is_linear_and_part_of_the_run() -> None:
    assert rates("cosine", 20, 5)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates("cosine", 20, 5)[5:] == rates("cosine", 15)
    assert rates("constant", 6, 2) == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_warm_up_may_be_a_fraction_of_an_epoch() -> None:
    assert rates("constant", 2, 0.5, steps=8)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_constant() -> None:
    assert rates("constant", 7) == [1.0] * 7


def test_triangular_is_turboprunes() -> None:
    """np.interp over (0, 0.2, 1) of training and (0.2, 1, 0) of the peak."""
    found = rates("triangular", 5, steps=10)
    assert found[0] == pytest.approx(0.2)
    assert found[5] == pytest.approx(0.6)
    assert found[10] == pytest.approx(1.0)
    assert found[30] == pytest.approx(0.5)
    assert found[49] == pytest.approx(1 / 40)


@pytest.mark.parametrize("name", ["cosine", "constant", "triangular"])
@pytest.mark.parametrize("warmup", [0, 0.3, 1.5, 5])
def test_rates_of_the_release_have_not_changed_by_a_bit(name: str, warmup: float) -> None:
    epochs, steps = 6, 31
    whole = round(warmup * steps)
    found = rates(name, epochs, warmup, steps=steps)
    assert found == [released(name, step, epochs * steps, whole) for step in range(epochs * steps)]


def test_cosine_per_epoch_is_that_of_acdc_and_str() -> None:
    """Their code: base · (e + 1) / 5 for e < 5, then base / 2 · (1 + cos(π (e - 5) / 95)), set once an epoch."""
    found = rates("cosine", 100, 5, steps=3, per="epoch")
    for epoch in range(100):
        expected = (epoch + 1) / 5 if epoch < 5 else 0.5 * (1 + math.cos(math.pi * (epoch - 5) / 95))
        assert found[3 * epoch : 3 * epoch + 3] == [expected] * 3


def test_multistep_is_that_of_rigl() -> None:
    """Linear over the steps of five epochs, then a tenth after epochs 30, 70 and 90."""
    found = rates("multistep", 100, 5, steps=7, milestones=[30.0, 70.0, 90.0])
    assert found[:35] == pytest.approx([(step + 1) / 35 for step in range(35)])
    for start, end, expected in ((5, 30, 1.0), (30, 70, 0.1), (70, 90, 0.01), (90, 100, 0.001)):
        assert found[7 * start : 7 * end] == pytest.approx([expected] * 7 * (end - start))


def test_multistep_with_another_factor_and_a_milestone_within_an_epoch() -> None:
    assert rates("multistep", 2, steps=4, milestones=[0.5, 1.75], gamma=0.5) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert rates("multistep", 3, steps=2, milestones=[1.5], per="epoch") == [1, 1, 1, 1, 0.1, 0.1]


@pytest.mark.parametrize("name", ["cosine", "constant", "triangular", "multistep"])
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_every_length_stays_within_bounds(name: str, per: str) -> None:
    for epochs in range(1, 30):
        for warmup in range(epochs):
            assert all(0 < rate <= 1 for rate in rates(name, epochs, warmup, per=per, milestones=[epochs / 2]))
            assert all(0 < rate <= 1 for rate in rates(name, epochs, warmup, steps=3, per=per))
