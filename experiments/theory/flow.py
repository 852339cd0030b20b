"""HAM with small learning rates follows the flow ``dθ = -(1 + α |θ|) ∇f dt - β θ dt``.

A step of HAM(SGD) differs from the flow's tangent by terms of second order in the rate, so the distance after a fixed
time is of first order. The right-hand side is Lipschitz, but has a kink where a weight passes zero. The solver
therefore stops at every such time and restarts, which keeps the accuracy of its tolerance on both sides. HAM does not
treat the kink: in the step that crosses zero, the weight is as small as the rate, so the order is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.optim import SGD

from experiments.config.schema import Positive, Section
from ham import HAM
from ham.geometry import Ham

from . import drawing
from .base import Bound, Check, Experiment, TheoryOutcome, order, worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Vector = NDArray[np.float64]
CASES = ("no sign changes", "sign changes")


class FlowSettings(Section):
    """Settings of the least-squares problem, HAM's constants, the rates and the solver's tolerance."""

    samples: Positive
    weights: Positive
    seeds: Annotated[list[int], Field(min_length=1)]
    alpha: Annotated[float, Field(ge=0)]
    beta: Annotated[float, Field(ge=0)]
    signs: Annotated[list[Literal["after", "before"]], Field(min_length=1)]
    time: Annotated[float, Field(gt=0)]
    steps: Annotated[list[Positive], Field(min_length=2)]
    tolerance: Annotated[float, Field(gt=0, lt=1e-3)]
    order: Bound
    distance: Bound
    unsure: Bound
    crossings: Bound


class FlowProblem:
    """A least-squares problem whose solution has the signs of the start, or the opposite signs in every second weight.

    Args:
        case: One of `CASES`.
        seed: Seed of the random inputs and of the start.
        settings: Sizes of the problem.
    """

    def __init__(self, case: str, seed: int, settings: FlowSettings):
        generator = torch.Generator().manual_seed(seed)
        normal = partial(torch.randn, dtype=torch.float64, generator=generator)
        self.inputs = normal(settings.samples, settings.weights) / settings.samples**0.5
        self.start = normal(settings.weights).sign() * (0.5 + normal(settings.weights).abs())
        turned = torch.ones(settings.weights, dtype=torch.float64)
        if case == "sign changes":
            turned[::2] = -1
        self.targets = self.inputs @ (1.5 * turned * self.start)

    def loss(self, theta: torch.Tensor) -> torch.Tensor:
        """Return half the squared error of weights of any shape."""
        return (self.inputs @ theta.flatten() - self.targets).square().sum() / 2

    def grad(self, theta: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the loss, for the solver."""
        return self.inputs.T @ (self.inputs @ theta - self.targets)


def run(settings: FlowSettings) -> TheoryOutcome:
    """Measure the distance between HAM and its flow at the final time, for each rate."""
    records, bars = [], []
    for case in CASES:
        found = [one for seed in settings.seeds for one in _follow(case, seed, settings)]
        for sign in settings.signs:
            bars += _bars(f"{case}, sign {sign} the step", [one for one in found if one["sign"] == sign], settings)
        unsure = worst([one["unsure"] for one in found], settings.unsure)
        bars.append(Check(f"{case}: flow, changed by a tolerance 100 times wider", unsure, settings.unsure))
        bound = settings.crossings if case == "sign changes" else Bound(high=0)
        bars.append(
            Check(f"{case}: sign changes in the flow", worst([one["crossings"] for one in found], bound), bound)
        )
        records += found
    return TheoryOutcome(tuple(bars), records, partial(_draw, records))


def _follow(case: str, seed: int, settings: FlowSettings) -> list[dict[str, Any]]:
    """Solve a problem's flow and measure how far from its end HAM arrives with each rate."""
    problem = FlowProblem(case, seed, settings)
    end, crossings = _solve(problem, settings, settings.tolerance)
    wider, _ = _solve(problem, settings, 100 * settings.tolerance)
    travelled = float(np.linalg.norm(end - problem.start.numpy()))
    lengths = sorted(settings.steps)
    common = {"case": case, "seed": seed, "rates": [settings.time / steps for steps in lengths]}
    common |= {"crossings": crossings, "unsure": float(np.linalg.norm(wider - end)) / travelled}
    found = []
    for sign in settings.signs:
        ends = [_descend(problem, settings, steps, sign) for steps in lengths]
        errors = [float(np.linalg.norm(reached - end)) / travelled for reached in ends]
        found.append({**common, "sign": sign, "errors": errors, "order": order(common["rates"], errors)})
    return found


def _bars(name: str, found: list[dict[str, Any]], settings: FlowSettings) -> list[Check]:
    orders = worst([one["order"] for one in found], settings.order)
    last = worst([one["errors"][-1] for one in found], settings.distance)
    return [
        Check(f"{name}: order", orders, settings.order),
        Check(f"{name}: distance at the smallest rate", last, settings.distance),
    ]


def _solve(problem: FlowProblem, settings: FlowSettings, tolerance: float) -> tuple[Vector, int]:
    """Return the end of the flow, and how often a weight changed its sign on the way."""
    from scipy.integrate import solve_ivp

    geometry, beta = Ham(settings.alpha), settings.beta

    def velocity(time: float, theta: Vector) -> Vector:
        point = torch.from_numpy(theta)
        return geometry.flow(point, problem.grad(point), beta).numpy()

    time, theta, crossings = 0.0, problem.start.numpy(), 0
    while time < settings.time:
        # a weight at zero belongs to the side it moves to
        sides = np.where(theta == 0, np.sign(velocity(time, theta)), np.sign(theta))
        solved = solve_ivp(
            velocity,
            (time, settings.time),
            theta,
            method="DOP853",
            rtol=tolerance,
            atol=tolerance / 100,
            events=[_leaving(index, side) for index, side in enumerate(sides)],
        )
        time, theta = float(solved.t[-1]), solved.y[:, -1].copy()
        passed = [index for index, times in enumerate(solved.t_events) if len(times)]
        theta[passed] = 0.0  # up to rounding, it is zero already
        crossings += len(passed)
    return theta, crossings


def _leaving(index: int, side: float) -> Callable[[float, Vector], float]:
    """Return an event for `solve_ivp`: a weight reaches zero from its side."""

    def event(time: float, theta: Vector) -> float:
        return theta[index]

    event.terminal, event.direction = True, -side  # pyright: ignore[reportFunctionMemberAccess]
    return event


def _descend(problem: FlowProblem, settings: FlowSettings, steps: int, sign: Literal["after", "before"]) -> Vector:
    """Return the weights after training with HAM(SGD) and autograd."""
    weight = torch.nn.Parameter(problem.start.clone()[None])  # HAM moves tensors of two dimensions
    base = SGD([weight], lr=settings.time / steps)
    optimizer = HAM(base, alpha=settings.alpha, beta=settings.beta, sign=sign)
    for _ in range(steps):
        optimizer.zero_grad()
        problem.loss(weight).backward()
        optimizer.step()
    return weight.detach()[0].numpy()


def _draw(records: list[dict[str, Any]], figure: Figure) -> None:
    looks = dict(zip(("after", "before"), (drawing.HAM, drawing.FURTHER[0]), strict=True))
    for axes, case in zip(drawing.panels(figure, len(CASES)), CASES, strict=True):
        for record in (record for record in records if record["case"] == case):
            label = f"sign taken {record['sign']} the base step"
            look = looks[record["sign"]]._asdict()
            axes.plot(record["rates"], record["errors"], label=label, lw=0.7, ms=3, **look)
        rates = np.array(records[0]["rates"])
        first = records[0]["errors"][0]
        axes.plot(rates, rates / rates[0] * first / 2, color="#5b6673", lw=0.8, ls="--", label="first order")
        drawing.logarithmic(axes)
        axes.set(title=case, xlabel="learning rate", ylabel="distance to the flow / distance travelled")
    drawing.legend(figure)


EXPERIMENT = Experiment(
    title="HAM with small rates follows dθ = −(1 + α|θ|) ∇f dt − βθ dt, to first order in the rate",
    source="the flow is the paper's; the order of convergence, with and without sign changes, is the suite's own",
    settings=FlowSettings,
    run=run,
)
