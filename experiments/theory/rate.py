"""A lower bound for the convergence rate of HAM's flow, and the rate that is measured.

Let L satisfy the Polyak-Łojasiewicz inequality ‖∇L‖² ≥ 2μ (L − L*), as strongly convex functions and all least-squares
problems do (μ is the smallest non-zero eigenvalue of the Hessian). Along ``dθ = −G(θ) ∇L dt``, at β = 0,

    dL/dt = −Σ G(θᵢ) (∂ᵢL)² ≤ −minᵢ G(θᵢ) ‖∇L‖² ≤ −2μ minᵢ G(θᵢ) (L − L*),

so log(L − L*) falls at least at the rate 2μ min G, with the minimum over weights and time: 2μ (1 + α min |θ|) for HAM
and 2μ for gradient descent. The slope of a straight line fitted to log(L − L*) is an average of its derivatives with
positive weights, so the bound holds for it too. A single weight near zero would reduce HAM's bound to that of gradient
descent; therefore the problems here start farther from zero than their solution, and their weights stay away from zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from experiments.config.schema import Positive, Section
from ham import HAM
from ham.geometry import Euclidean, Geometry, Ham, Product

from . import drawing
from .base import Bound, Check, Experiment, TheoryOutcome, worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Above = Annotated[float, Field(gt=0)]
CASES = ("strongly convex quadratic", "underdetermined least squares")


class RateSettings(Section):
    """Settings of problems and methods; a run ends when its loss is `until` times the initial one."""

    weights: Positive
    samples: Positive
    curvatures: Annotated[float, Field(ge=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    alphas: Annotated[list[Above], Field(min_length=1)]
    gap: Above
    step: Annotated[float, Field(gt=0, lt=1)]
    until: Annotated[float, Field(gt=1e-20, lt=1)]
    fitted: Bound
    at_every_step: Bound

    @model_validator(mode="after")
    def _underdetermined(self) -> RateSettings:
        if self.samples >= self.weights:
            raise ValueError(f"samples ({self.samples}) must be fewer than weights ({self.weights})")
        return self


@dataclass(frozen=True)
class RateProblem:
    """L(θ) = ‖A (θ − solution)‖² / 2 with L* = 0; μ is the smallest squared singular value of A."""

    matrix: Tensor
    solution: Tensor
    start: Tensor
    mu: float

    def loss(self, theta: Tensor) -> Tensor:
        """Return L of weights of any shape."""
        return (self.matrix @ (theta.flatten() - self.solution)).square().sum() / 2


@dataclass(frozen=True)
class RateMethod:
    """An optimizer's geometry, and a function from start and rate to the optimizer and a function that returns θ."""

    name: str
    look: drawing.CurveStyle
    geometry: Geometry
    build: Callable[[Tensor, float], tuple[Optimizer, Callable[[], Tensor]]]


def run(settings: RateSettings) -> TheoryOutcome:
    """Measure the rates at which the loss decays, and compare each with its bound."""
    records = [
        _descend(_problem(case, seed, settings), method, settings) | {"case": case, "seed": seed, "method": method.name}
        for case in CASES
        for method in _methods(settings)
        for seed in settings.seeds
    ]
    return TheoryOutcome(tuple(_bars(settings, records)), records, partial(_draw, settings, records))


def _bars(settings: RateSettings, records: list[dict[str, Any]]) -> list[Check]:
    bars = []
    names = [method.name for method in _methods(settings)]
    for case in CASES:
        of_case = [one for one in records if one["case"] == case]
        found = {name: [one for one in of_case if one["method"] == name] for name in names}
        for name in names:
            share = worst([one["fitted"] / one["bound"] for one in found[name]], settings.fitted)
            bars.append(Check(f"{case}, {name}: fitted rate / bound", share, settings.fitted))
        share = worst([one["at_every_step"] for one in of_case], settings.at_every_step)
        bars.append(Check(f"{case}, all: rate / bound at any step", share, settings.at_every_step))
        pairs = list(zip(found[names[-1]], found["GD"], strict=True))
        gain = statistics.mean(one["fitted"] / plain["fitted"] for one, plain in pairs)
        bars.append(Check(f"{case}, {names[-1]}: decay in time / GD's", gain))
        gain = statistics.mean(one["per_step"] / plain["per_step"] for one, plain in pairs)
        bars.append(Check(f"{case}, {names[-1]}: decay per step / GD's", gain))
    return bars


def _problem(case: str, seed: int, settings: RateSettings) -> RateProblem:
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, dtype=torch.float64, generator=generator)
    rows = settings.weights if case == CASES[0] else settings.samples
    left, _, right = torch.linalg.svd(normal(rows, settings.weights), full_matrices=False)
    values = torch.linspace(1, 1 / settings.curvatures, rows, dtype=torch.float64).sqrt()
    uniform = partial(torch.rand, settings.weights, dtype=torch.float64, generator=generator)
    solution = normal(settings.weights).sign() * (1 + uniform() / 4)
    start = solution * (1.5 + uniform() / 2)
    return RateProblem(left @ torch.diag(values) @ right, solution, start, values[-1].item() ** 2)


def _methods(settings: RateSettings) -> list[RateMethod]:
    return [
        RateMethod("GD", drawing.GD, Euclidean(), _plain),
        RateMethod(
            f"m⊙w, m² − w² = {settings.gap:g}", drawing.PRODUCT, Product(settings.gap), partial(_product, settings.gap)
        ),
        *(
            RateMethod(f"HAM, α = {alpha:g}", drawing.HAM, Ham(alpha), partial(_ham, alpha))
            for alpha in settings.alphas
        ),
    ]


def _plain(start: Tensor, rate: float) -> tuple[Optimizer, Callable[[], Tensor]]:
    weight = Parameter(start.clone())
    return SGD([weight], lr=rate), lambda: weight


def _ham(alpha: float, start: Tensor, rate: float) -> tuple[Optimizer, Callable[[], Tensor]]:
    weight = Parameter(start[None].clone())  # HAM moves tensors of two dimensions
    return HAM(SGD([weight], lr=rate), alpha=alpha, beta=0.0), lambda: weight.flatten()


def _product(gap: float, start: Tensor, rate: float) -> tuple[Optimizer, Callable[[], Tensor]]:
    m = Parameter(((torch.hypot(2 * start, torch.full_like(start, gap)) + gap) / 2).sqrt())
    w = Parameter(start / m.detach())
    return SGD([m, w], lr=rate), lambda: m * w


def _descend(problem: RateProblem, method: RateMethod, settings: RateSettings) -> dict[str, Any]:
    """Train once; return the rates at which the loss falls, and their bound."""
    geometry = method.geometry
    largest = max(geometry.inverse_metric(theta).max().item() for theta in (problem.start, problem.solution))
    rate = settings.step / largest
    optimizer, weights = method.build(problem.start, rate)
    losses, smallest = [], []
    needed = math.inf
    while len(losses) < 2 * needed:  # after twice the steps that the bound allows, a run has clearly missed it
        optimizer.zero_grad()
        theta = weights()
        loss = problem.loss(theta)
        losses.append(loss.item())
        smallest.append(geometry.inverse_metric(theta.detach()).min().item())
        if not losses[-1] > settings.until * losses[0]:
            break
        needed = -math.log(settings.until) / (2 * problem.mu * min(smallest) * rate)
        loss.backward()
        optimizer.step()
    logs = [math.log(loss) for loss in losses] if min(losses) > 0 else [math.nan, math.nan]
    fitted = -statistics.linear_regression([rate * step for step in range(len(logs))], logs).slope
    steps = zip(logs, logs[1:], smallest, strict=False)
    return {
        "mu": problem.mu,
        "rate": rate,
        "steps": len(losses) - 1,
        "fitted": fitted,
        "per_step": fitted * rate,
        "bound": 2 * problem.mu * min(smallest),
        "at_every_step": min((a - b) / rate / (2 * problem.mu * metric) for a, b, metric in steps),
    }


def _draw(settings: RateSettings, records: list[dict[str, Any]], figure: Figure) -> None:
    axes = drawing.panels(figure, 3)
    for case, in_time, color in zip(CASES, axes, (drawing.HAM.color, drawing.FURTHER[0].color), strict=False):
        found = [one for one in records if one["case"] == case]
        ham = [(alpha, one) for alpha in settings.alphas for one in found if one["method"] == f"HAM, α = {alpha:g}"]
        gd, product = ([one for one in found if one["method"].startswith(name)] for name in ("GD", "m⊙w"))
        scale = 2 * found[0]["mu"]
        alphas = [alpha for alpha, _ in ham]
        in_time.plot(
            alphas, [one["fitted"] / scale for _, one in ham], ls="", markersize=4, label="HAM", **drawing.HAM._asdict()
        )
        in_time.plot(alphas, [one["bound"] / scale for _, one in ham], "_", color=drawing.HAM.color, label="HAM: bound")
        for label, others, look in (("GD", gd, drawing.GD), ("m⊙w", product, drawing.PRODUCT)):
            fitted = statistics.mean(one["fitted"] for one in others) / scale
            in_time.axhline(fitted, color=look.color, lw=0.9, label=label)
            bound = statistics.mean(one["bound"] for one in others) / scale
            in_time.axhline(bound, color=look.color, lw=0.9, ls=":", label=f"{label}: bound")
        in_time.set(title=case, xlabel="α", ylabel="decay of the loss in time / 2μ")
        drawing.logarithmic(in_time)
        plain = statistics.mean(one["per_step"] for one in gd)
        axes[2].plot(alphas, [one["per_step"] / plain for _, one in ham], "D", color=color, markersize=4, label=case)
    axes[2].set(
        title="per step, at equal rate × largest metric", xlabel="α", ylabel="decay per step / GD's", ylim=(0, None)
    )
    drawing.logarithmic(axes[2], "x")
    drawing.legend(figure)


EXPERIMENT = Experiment(
    title="under a Polyak-Łojasiewicz inequality HAM converges at least at the rate 2μ (1 + α min|θ|)",
    source="the suite's own bound, derived in the module; the paper's was not at hand",
    settings=RateSettings,
    run=run,
)
