"""`ham theory`: implicit bias and sign flips. Programs against solutions by hand, wrong rules against bars."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from small_runs import train
from torch import Tensor

import ham as ham_package
from experiments.theory import command, convex, experiment, neuron, regression, training_flips
from experiments.theory.base import TheoryOutcome
from ham import geometry

SMALL = {
    "projection": [
        "problem={weights: 30, equations: 12, nonzero: 2, seeds: [0, 1], start: 0.3}",
        "alphas=[1.0, 10.0]",
        "drawn_alphas=[1.0, 1.0e+6]",
        "training.steps=5000",
        "small_alpha.high=0.2",
        "large_alpha.low=0.1",
        "largest_alpha.low=0.97",
    ],
    "sign_flips": [
        "neuron.seeds=3",
        "neuron.lr=0.1",
        "neuron.steps=700",
        "runs.seeds=[0]",
        "runs.rows={Random: [topology.name=random], Random + HAM: [topology.name=random, 'optimizer.ham={}']}",
        "runs.overrides=[model.name=mlp_bn, schedule.epochs=1, tracking.wandb=disabled]",
    ],
}


def measured(name: str, *overrides: str) -> TheoryOutcome:
    return experiment(name).run(command.settings(name, [*SMALL[name], *overrides]))


@functools.cache
def as_it_is(name: str) -> TheoryOutcome:
    return measured(name)


def missed(outcome: TheoryOutcome) -> list[str]:
    return [bar.quantity for bar in outcome.bars if not bar.met]


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_meets_its_bars_and_can_be_drawn(name: str) -> None:
    outcome = as_it_is(name)
    assert missed(outcome) == []
    assert all(math.isfinite(bar.value) for bar in outcome.bars)
    json.dumps(outcome.records, allow_nan=False)
    figure = Figure(layout="constrained")
    outcome.draw(figure)
    figure.draw_without_rendering()
    assert figure.axes


# ---- implicit bias --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "start", "dual", "solution"),
    [
        # from 0: log(1 + b) = 2 log(1 + a) and a + 2b = 7
        (7.0, [0.0, 0.0], convex.OfHam(1.0), [1.0, 3.0]),
        (-7.0, [0.0, 0.0], convex.OfHam(1.0), [-1.0, -3.0]),
        # weights are measured in 1 / α
        (0.7, [0.0, 0.0], convex.OfHam(10.0), [0.1, 0.3]),
        # from (1, 0): log(1 + b) = 2 (log(1 + a) − log 2) and a + 2b = 9
        (9.0, [1.0, 0.0], convex.OfHam(1.0), [3.0, 3.0]),
        # from 0: arcsinh(b) = 2 arcsinh(a), so b = 2 a √(1 + a²)
        (4.5, [0.0, 0.0], convex.OfProduct(2.0), [0.75, 1.875]),
    ],
)
def test_bregman_projections(target: float, start: list[float], dual: convex.Dual, solution: list[float]) -> None:
    found = convex.bregman(np.array([[1.0, 2.0]]), np.array([target]), np.array(start), dual)
    assert found == pytest.approx(solution, abs=1e-6)


def test_the_other_programs() -> None:
    matrix, target = np.array([[1.0, 2.0]]), np.array([5.0])
    assert convex.least_squares(matrix, target, np.zeros(2)) == pytest.approx([1.0, 2.0])
    assert convex.least_squares(matrix, target, np.array([2.0, -1.0])) == pytest.approx([3.0, 1.0])
    assert convex.least_absolute(matrix, target) == pytest.approx([0.0, 2.5])
    with pytest.raises(ArithmeticError, match="no projection under OfHam"):
        convex.bregman(np.zeros((1, 2)), target, np.zeros(2), convex.OfHam(1.0))


@pytest.mark.parametrize("constant", [0.1, 2.0, 50.0])
def test_the_potentials_are_those_of_the_package(constant: float) -> None:
    theta = torch.linspace(-3, 3, 13, dtype=torch.float64)
    pairs = ((convex.OfHam(constant), geometry.Ham(constant)), (convex.OfProduct(constant), geometry.Product(constant)))
    for dual, other in pairs:
        z = dual.mirror(theta.numpy())
        assert z == pytest.approx(other.mirror_map(theta).numpy(), rel=1e-12)
        value, first, second = dual.conjugate(z)
        assert first == pytest.approx(theta.numpy(), rel=1e-12)
        assert second == pytest.approx(other.inverse_metric(theta).numpy(), rel=1e-12)
        assert value == pytest.approx((theta * torch.from_numpy(z) - other.potential(theta)).numpy(), rel=1e-9)


@pytest.mark.parametrize("changed", [{"alpha": 0.9}, {"alpha": -1.0}, {"beta": 0.01}], ids=str)
def test_a_wrong_rule_ends_elsewhere(changed: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    def build(base: Any, alpha: float, beta: float, **options: Any) -> ham_package.HAM:
        return ham_package.HAM(base, alpha=changed.get("alpha", 1.0) * alpha, beta=changed.get("beta", beta), **options)

    monkeypatch.setattr(regression, "HAM", build)
    found = missed(measured("projection", "training.steps=800"))
    assert {"HAM from 0: distance to projection", "HAM from θ₀ ≠ 0: distance to projection"} <= set(found)
    assert not [name for name in found if name.startswith(("GD", "m⊙w"))]


def test_the_sign_before_the_step_has_the_same_limit() -> None:
    assert missed(measured("projection", "training.sign=before")) == []


def test_training_that_ends_early_is_no_limit() -> None:
    found = missed(measured("projection", "training.steps=50"))
    assert "HAM from 0: distance to projection" in found


# ---- one neuron -----------------------------------------------------------------------------------------------------

BOTH, FIRST = {"a > 0, w > 0", "a < 0, w > 0"}, {"a > 0, w > 0"}
LISTED = {
    # published for the balanced start; for the others |w0| > |a0| decides, where the metric at 0 is not 0
    "GD": (FIRST, BOTH, FIRST),
    "m⊙w": (FIRST, FIRST, FIRST),
    "Sign-In": (BOTH, BOTH, FIRST),
    "Sign-In, equal gaps": (FIRST, BOTH, FIRST),
    "HAM": (FIRST, BOTH, FIRST),
    "HAM, larger α for a": (BOTH, BOTH, BOTH),
}


def test_each_method_solves_what_is_listed() -> None:
    records = as_it_is("sign_flips").records
    for method, sets in LISTED.items():
        found = [one for one in records if one.get("method") == method]
        assert [set(one["predicted"]) for one in found] == list(sets)
        assert [{case for case, share in one["solved"].items() if share == 1} for one in found] == list(sets)
        assert all(share in (0, 1) for one in found for share in one["solved"].values())


@pytest.mark.parametrize(
    "other",
    [geometry.Euclidean(), geometry.Ham(2.0), geometry.Ham(20.0), geometry.Product(1.0), geometry.Product(0.0)],
    ids=repr,
)
def test_the_invariant_is_an_integral(other: geometry.Geometry) -> None:
    """The integral of θ / G(θ) from 0 to 2, by the midpoint rule."""
    theta = (torch.arange(20000, dtype=torch.float64) + 0.5) * 1e-4
    integral = float((theta / other.inverse_metric(theta)).sum() * 1e-4)
    assert float(neuron._invariant(other, torch.tensor(2.0).double())) == pytest.approx(integral, rel=1e-6)


def test_a_wrong_prediction_misses_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    right = neuron._invariant
    monkeypatch.setattr(neuron, "_invariant", lambda geometry, theta: -right(geometry, theta))
    assert "GD, |w| = 2|a|: seeds that solve ++" in missed(
        measured("sign_flips", "runs.rows={}", "neuron.methods={GD: {}}")
    )


# ---- sign changes in runs -------------------------------------------------------------------------------------------


def kept(weights: list[float], mask: list[int]) -> training_flips.Kept:
    return training_flips.Kept({"layer": Tensor(weights)}, {"layer": Tensor(mask).bool()})


def test_flips_are_those_of_weights_that_exist_both_times() -> None:
    before, now = (
        kept([1.0, -1.0, 1.0, 0.0, 2.0], [1, 1, 0, 1, 1]),
        kept([-1.0, -2.0, -1.0, 3.0, -4.0], [1, 1, 1, 1, 0]),
    )
    assert training_flips.flips(before, now) == pytest.approx(1 / 3)


def test_each_epoch_is_compared_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([kept([1.0, 1.0], [1, 1]), kept([-1.0, 1.0], [1, 1]), kept([-1.0, -1.0], [1, 1])])
    watched = training_flips._Watched.__new__(training_flips._Watched)
    monkeypatch.setattr(watched, "_keep", lambda: next(ends), raising=False)
    data = type("Data", (), {"steps_per_epoch": 2})
    objects = type("Run", (), {"data": data})
    watched._training = type("Training", (), {"objects": objects})  # pyright: ignore[reportAttributeAccessIssue]
    watched._flips, watched._last = [], next(ends)
    for step in range(1, 5):
        watched._look(step, 4)
    assert watched._flips == [0.5, 0.5]


def test_watching_changes_nothing(tmp_path: Path) -> None:
    settings = command.settings("sign_flips", SMALL["sign_flips"]).model_dump()["runs"]
    _, spec = training_flips.specs(training_flips.RunsSettings(**settings))[1]
    found = training_flips.count(spec)
    with torch.random.fork_rng(devices=[]):
        assert train(spec, tmp_path / "run")["accuracy"] == found["accuracy"]
    assert len(found["flips"]) == 1
    assert 0 < found["flips"][0] < 0.5
