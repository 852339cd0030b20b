"""`ham theory`: right rules meet the bars, wrong ones miss them; and what the command says, writes and returns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Ham, one_message
from matplotlib.figure import Figure

import ham as ham_package
from experiments.config.files import THEORY, configs_folder, known_configs
from experiments.theory import NAMES, command, experiment, flow, metric, one_step, rate
from experiments.theory.base import Bound, Check, TheoryOutcome, order, worst

# settings with which an experiment takes a second; its bars stay
SMALL = {
    "one_step": ["problems=[regression]", "seeds=[0]", "width=8", "samples=16"],
    "metric": ["seeds=[0]", "sizes=[0.0, 0.01, 0.3, 2.0]", "outputs=2", "alphas=[2.0, 200.0]", "gaps=[0.0, 1.0]"],
    "flow": ["seeds=[1]", "steps=[32, 64, 128]", "signs=[after]", "distance.high=2.0e-2"],
    "rate": ["seeds=[0]", "alphas=[2.0, 200.0]", "until=1.0e-4", "step=0.2"],
}


def measured(name: str, *overrides: str) -> TheoryOutcome:
    return experiment(name).run(command.settings(name, [*SMALL[name], *overrides]))


def missed(outcome: TheoryOutcome) -> list[str]:
    return [bar.quantity for bar in outcome.bars if not bar.met]


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_meets_its_bars_and_can_be_drawn(name: str) -> None:
    outcome = measured(name)
    assert missed(outcome) == []
    assert [bar for bar in outcome.bars if bar.bound is not None]
    assert all(math.isfinite(bar.value) for bar in outcome.bars)
    json.dumps(outcome.records, allow_nan=False)
    figure = Figure(layout="constrained")
    outcome.draw(figure)
    figure.draw_without_rendering()
    assert figure.axes


# ---- wrong rules ----------------------------------------------------------------------------------------------------


def wrong_step(**changed: float) -> Callable[..., None]:
    def step(weights: Any, grads: Any, *, alpha: float, beta: float, **options: Any) -> None:
        alpha, beta = changed.get("alpha", 1.0) * alpha, changed.get("beta", 1.0) * beta
        ham_package.hyperbolic_step_(weights, grads, alpha=alpha, beta=beta, **options)

    return step


def wrong_ham(**changed: float) -> Callable[..., ham_package.HAM]:
    def build(base: Any, alpha: float, beta: float, **options: Any) -> ham_package.HAM:
        alpha, beta = changed.get("alpha", 1.0) * alpha, changed.get("beta", 1.0) * beta
        return ham_package.HAM(base, alpha=alpha, beta=beta, **options)

    return build


@pytest.mark.parametrize("changed", [{"alpha": 0.5}, {"alpha": -1.0}, {"beta": 0.5}, {"beta": -1.0}], ids=str)
def test_a_wrong_factor_is_not_the_step_of_the_product(
    changed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_step, "hyperbolic_step_", wrong_step(**changed))
    assert "regression, α = 2, β = 2λ, balanced: order" in missed(measured("one_step"))


def test_controls_that_agree_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that is blind to what differs."""
    right = {name: one_step.Variant() for name in one_step.VARIANTS}
    monkeypatch.setattr(one_step, "VARIANTS", right)
    assert len([name for name in missed(measured("one_step")) if "control" in name]) == 3


@pytest.mark.parametrize("changed", [{"alpha": 0.5}, {"alpha": -1.0}, {"alpha": 1.03}], ids=str)
def test_a_wrong_alpha_has_another_metric(changed: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "HAM", wrong_ham(**changed))
    assert [name.partition(":")[0] for name in missed(measured("metric"))] == ["HAM, α = 2", "HAM, α = 200"]


def test_a_decay_is_no_part_of_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    build = ham_package.HAM
    monkeypatch.setattr(metric, "HAM", lambda base, alpha, beta: build(base, alpha=alpha, beta=0.1))
    assert len(missed(measured("metric"))) == 2


def test_a_product_of_another_gap_has_another_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    represent = metric.sparsity.represent
    monkeypatch.setattr(
        metric.sparsity, "represent", lambda layer, name, beta: represent(layer, name, beta=beta + 0.05)
    )
    assert [name.partition(":")[0] for name in missed(measured("metric"))] == ["m⊙w, m² − w² = 0", "m⊙w, m² − w² = 1"]


@pytest.mark.parametrize("changed", [{"alpha": 0.5}, {"alpha": -1.0}, {"alpha": 0.97}, {"beta": 0.0}], ids=str)
def test_a_wrong_rule_follows_another_flow(changed: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HAM", wrong_ham(**changed))
    orders = [f"{case}, sign after the step: order" for case in flow.CASES]
    assert set(orders) <= set(missed(measured("flow")))


def test_a_flow_without_its_kinks_is_noticed() -> None:
    """The second case is one of sign changes, the first has none."""
    counts = {one["case"]: one["crossings"] for one in measured("flow").records}
    assert counts["no sign changes"] == 0 < counts["sign changes"]


@pytest.mark.parametrize("changed", [{"alpha": 0.5}, {"alpha": -0.01}], ids=str)
def test_a_wrong_rule_is_slower_than_the_bound(changed: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "HAM", wrong_ham(**changed))
    found = missed(measured("rate"))
    assert f"{rate.CASES[0]}, HAM, α = 200: fitted rate / bound" in found
    assert not [name for name in found if "GD: fitted" in name]


# ---- bars -----------------------------------------------------------------------------------------------------------


def test_bars() -> None:
    both, below, above = Bound(low=1.0, high=2.0), Bound(high=2.0), Bound(low=1.0)
    for value, met in ((1.0, True), (2.0, True), (0.999, False), (2.001, False), (math.nan, False)):
        assert Check("x", value, both).met == met
    assert not Check("x", math.nan, below).met
    assert not Check("x", math.nan, above).met
    assert Check("x", math.nan).met
    assert [str(bound) for bound in (both, below, above)] == ["1 to 2", "≤ 2", "≥ 1"]
    assert (worst([1.4, 1.9], both), worst([1.05, 1.9], both)) == (1.9, 1.05)
    assert (worst([1.0, 3.0], below), worst([1.0, 3.0], above)) == (3.0, 1.0)
    assert math.isnan(worst([1.0, math.nan], above))


def test_order() -> None:
    rates = [0.1, 0.01, 0.001]
    assert order(rates, [3 * rate**2 for rate in rates]) == pytest.approx(2)
    assert math.isnan(order(rates, [1.0, 0.1, 0.0]))


# ---- the command ----------------------------------------------------------------------------------------------------


def test_every_experiment_has_its_settings_and_every_file_its_experiment() -> None:
    files = {path.stem for path in (configs_folder() / THEORY).glob("*.yaml")}
    assert files == set(NAMES)
    assert not [name for name in known_configs() if name.startswith(THEORY)]
    for name in NAMES:
        command.settings(name)
        assert experiment(name).title
        assert experiment(name).source


def test_it_measures_prints_and_writes(ham: Ham, tmp_path: Path) -> None:
    called = ham("theory", "one_step", *SMALL["one_step"], "--out", tmp_path)
    assert (called.code, called.err) == (0, "")
    head, *rows = called.out.splitlines()
    assert head.split() == ["experiment", "quantity", "value", "bar", "met"]
    assert len(rows) == 5
    assert all(row.startswith("one_step ") and row.endswith(" yes") for row in rows)
    written = json.loads((tmp_path / "one_step.json").read_text())
    assert written["met"] is True
    assert written["settings"]["seeds"] == [0]
    assert written["environment"]["torch"] == torch.__version__
    assert len(written["records"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"one_step.json", "one_step.svg", "one_step.png"}
    assert ham("theory", "one_step", *SMALL["one_step"], "--out", tmp_path / "again").out == called.out
    for name in ("one_step.json", "one_step.svg"):  # the same numbers give the same bytes
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_missed_bar_is_an_exit_code(ham: Ham, tmp_path: Path) -> None:
    called = ham("theory", "one_step", *SMALL["one_step"], "equal.high=1.95", "--json", "--out", tmp_path)
    assert called.code == 1
    assert called.err == "error: theory: 1 missed: one_step: regression, α = 2, β = 2λ, balanced: order\n"
    found = json.loads(called.out)["one_step"]
    assert found["met"] is False
    assert found["bars"][0]["bound"] == {"low": 1.9, "high": 1.95}
    assert [bar["met"] for bar in found["bars"]] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["one_stp"], ["no experiment 'one_stp'", "allowed: one_step, metric", "did you mean 'one_step'?"]),
        (["one_step", "widht=3"], ["one_step: widht: unknown key", "did you mean 'width'?"]),
        (["one_step", "width=0"], ["command line: one_step: width: 0 is out of range: must be >= 1"]),
        (["one_step", "equal.low=3.0"], ["one_step.yaml:", "equal: low (3) is above high (2.1)"]),
        (["one_step", "equal={}"], ["equal: needs low, high or both"]),
        (["one_step", "problems=[mnist]"], ["'mnist' is not one of classification, regression"]),
        (["width=3"], ["of which experiment? Name one, or write NAME.KEY=VALUE"]),
        (["one_step", "metric", "width=3"], ["of which experiment?", "allowed: one_step, metric"]),
        (["rate", "samples=20"], ["samples (20) must be fewer than weights (20)"]),
    ],
    ids=lambda words: "_".join(words)[:30],
)
def test_what_is_wrong_is_said_in_one_message(words: list[str], parts: list[str], ham: Ham, tmp_path: Path) -> None:
    one_message(ham("theory", *words, "--out", tmp_path), 2, *parts)
    assert not list(tmp_path.iterdir())


def test_its_settings_describe_no_run(ham: Ham, tmp_path: Path) -> None:
    one_message(ham("run", "theory/flow", "--out", tmp_path), 2, "flow.yaml", "the settings of `ham theory flow`")


def test_settings_of_several_experiments() -> None:
    planned = command.plan(["metric", "one_step", "one_step.width=3", "metric.outputs=2"])
    assert [one.name for one in planned] == ["one_step", "metric"]
    assert (planned[0].settings.model_dump()["width"], planned[1].settings.model_dump()["outputs"]) == (3, 2)
    assert [one.name for one in command.plan([])] == list(NAMES)
    assert command.plan(["rate.step=0.2"])[list(NAMES).index("rate")].settings.model_dump()["step"] == 0.2
