"""Of all solutions of underdetermined linear equations, HAM without decay finds the Bregman projection of its start.

For f(θ) = |A θ − y|² / 2, the flow dθ = −(1 + α|θ|) ∇f dt is dR'(θ) = −Aᵀ (A θ − y) dt, so R'(θ) − R'(θ₀) stays in the
span of A's rows. Together with A θ = y, this is the condition for the minimum of the Bregman divergence of R from θ₀
over the solutions. For α → 0 this minimum has the smallest Euclidean distance from θ₀; for θ₀ = 0 and α → ∞ it has the
smallest L1 norm, up to a term of order 1 / log α. The same holds for m ⊙ w with the potential of its invariant
γ = m² − w². At γ = 2/α, its inverse metric √(4θ² + γ²) and HAM's γ (1 + α|θ|) = γ + 2|θ| agree at θ = 0 and at large θ,
so m ⊙ w is compared with HAM at this γ.

Steps of finite size differ from the flow by terms proportional to their rate, so smaller rates must come proportionally
closer. Whether the sign is taken before or after the base step does not change the limit, since weights are small where
they cross zero. Weights at zero are not stuck, since the base step moves them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from experiments.config.schema import Section

from . import convex, drawing
from .base import Bound, Check, Experiment, TheoryOutcome, order, worst
from .regression import (
    GD,
    HYPERBOLIC,
    PRODUCT,
    RANDOM,
    ZERO,
    Above0,
    Arm,
    Problems,
    ProblemSettings,
    TrainingSettings,
    arms,
    descend,
    make_problems,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L2, L1 = "min L2", "min L1"
CONTROLS = ("projection under α / 2", "projection under m⊙w", "projection of the other start")


class BiasSettings(Section):
    """Settings of problems, α, rates and bounds.

    m ⊙ w is taken at m² − w² = 2/α. Weights of at least `visible` times the largest one count as support. For
    `drawn_alphas`, projections are computed without training.
    """

    problem: ProblemSettings
    training: TrainingSettings
    alphas: Annotated[list[Above0], Field(min_length=2)]
    rates: Annotated[list[Above0], Field(min_length=2)]
    visible: Above0
    drawn_alphas: Annotated[list[Above0], Field(min_length=2)]
    distance: Bound
    control: Bound
    order: Bound
    neighbours: Bound
    small_alpha: Bound
    large_alpha: Bound
    largest_alpha: Bound


def run(settings: BiasSettings) -> TheoryOutcome:
    """Measure how far all methods end from their projections, and the solutions that they find from 0."""
    problems = make_problems(settings.problem)
    records = [record for arm in arms(settings.alphas) for record in _measure(settings, problems, arm)]
    lines = _lines(settings, problems)
    return TheoryOutcome(_bars(settings, records, lines), records + lines, partial(_draw, settings, records, lines))


def _measure(settings: BiasSettings, problems: Problems, arm: Arm) -> list[dict[str, Any]]:
    projected = _projections(problems, arm.dual)
    wrong = _wrong(problems, arm, projected) if arm.method == HYPERBOLIC else {}
    records = []
    for rate in settings.rates:
        theta, steps = descend(arm, problems, rate, settings.training)
        distances = _distance(theta, projected).tolist()
        controls = {name: _distance(theta, other).tolist() for name, other in wrong.items()}
        records += [
            {
                "method": arm.method,
                "alpha": arm.alpha,
                "start": start,
                "rate": rate,
                "seed": seed,
                "steps": steps,
                "distance": distances[index],
                **{name: distance[index] for name, distance in controls.items()},
                **_seen(theta[index], problems.sparse[index], settings.visible),
            }
            for index, (seed, start) in enumerate(zip(problems.seeds, problems.starts, strict=True))
        ]
    return records


def _wrong(problems: Problems, arm: Arm, projected: Tensor) -> dict[str, Tensor]:
    """Return projections that HAM's limit must differ from."""
    found = (
        _projections(problems, convex.OfHam(arm.alpha / 2)),
        _projections(problems, convex.OfProduct(2 / arm.alpha)),
        projected.roll(len(projected) // 2, dims=0),
    )
    return dict(zip(CONTROLS, found, strict=True))


def _projections(problems: Problems, dual: convex.Dual | None) -> Tensor:
    given = zip(problems.matrix.numpy(), problems.targets.numpy(), problems.start.numpy(), strict=True)
    if dual is None:
        return torch.from_numpy(np.stack([convex.least_squares(*one) for one in given]))
    return torch.from_numpy(np.stack([convex.bregman(*one, dual) for one in given]))


def _distance(theta: Tensor, other: Tensor) -> Tensor:
    return (theta - other).norm(dim=1) / other.norm(dim=1)


def _seen(theta: Tensor, sparse: Tensor, visible: float) -> dict[str, float]:
    """Return the L1 norm, the error relative to the sparse weights sought, and the number of visible weights."""
    return {
        "l1": float(theta.abs().sum()),
        "recovery": float((theta - sparse).norm() / sparse.norm()),
        "support": int((theta.abs() >= visible * theta.abs().max()).sum()),
    }


def _lines(settings: BiasSettings, problems: Problems) -> list[dict[str, Any]]:
    """Return the properties of the solutions of the convex programs for the start 0."""
    given = zip(problems.matrix.numpy(), problems.targets.numpy(), strict=True)
    found = {
        (L2, 0.0): _projections(problems, None),
        (L1, 0.0): torch.from_numpy(np.stack([convex.least_absolute(*one) for one in given])),
    }
    for alpha in settings.drawn_alphas:
        found[HYPERBOLIC, alpha] = _projections(problems, convex.OfHam(alpha))
        found[PRODUCT, alpha] = _projections(problems, convex.OfProduct(2 / alpha))
    return [
        {"program": name, "alpha": alpha, "seed": seed, **_seen(theta, sparse, settings.visible)}
        for (name, alpha), thetas in found.items()
        for seed, start, theta, sparse in zip(problems.seeds, problems.starts, thetas, problems.sparse, strict=True)
        if start == ZERO
    ]


def _bars(settings: BiasSettings, records: list[dict[str, Any]], lines: list[dict[str, Any]]) -> tuple[Check, ...]:
    finest = min(settings.rates)
    bars = []
    for method in (HYPERBOLIC, PRODUCT, GD):
        for start in (ZERO, RANDOM):
            found = _values(records, "distance", method=method, start=start, rate=finest)
            bars.append(
                Check(
                    f"{method} from {start}: distance to projection", worst(found, settings.distance), settings.distance
                )
            )
    for name in CONTROLS:
        found = _values(records, name, method=HYPERBOLIC, rate=finest)
        bars.append(Check(f"control: HAM to {name}", worst(found, settings.control), settings.control))
    return (
        *bars,
        Check("HAM: order of that distance in the rate", _order(settings, records), settings.order),
        *_on_the_way(settings, records, lines),
    )


def _order(settings: BiasSettings, records: list[dict[str, Any]]) -> float:
    rates = sorted(settings.rates)
    orders = []
    for alpha in settings.alphas:
        for start in (ZERO, RANDOM):
            where = {"method": HYPERBOLIC, "alpha": alpha, "start": start}
            orders.append(order(rates, [_mean(records, "distance", rate=rate, **where) for rate in rates]))
    return worst(orders, settings.order)


def _on_the_way(settings: BiasSettings, records: list[dict[str, Any]], lines: list[dict[str, Any]]) -> list[Check]:
    """Check how the L1 norm of HAM's solutions from 0 moves with α from that of least squares to the smallest one."""
    finest = {"method": HYPERBOLIC, "start": ZERO, "rate": min(settings.rates)}
    norms = [np.array(_values(records, "l1", alpha=alpha, **finest)) for alpha in sorted(settings.alphas)]
    most, least = (np.array(_values(lines, "l1", program=name)) for name in (L2, L1))
    farthest = max(settings.drawn_alphas)
    norms.append(np.array(_values(lines, "l1", program=HYPERBOLIC, alpha=farthest)))
    way = [(most - norm) / (most - least) for norm in norms]
    grows = worst([float((b / a).max()) for a, b in zip(norms, norms[1:], strict=False)], settings.neighbours)
    low, high = min(settings.alphas), max(settings.alphas)
    return [
        Check("HAM: L1 norm at an α over that at the next smaller", grows, settings.neighbours),
        Check(f"HAM: way of L1 from min L2 to min L1, α = {low:g}", float(way[0].max()), settings.small_alpha),
        Check(f"HAM: way of L1 from min L2 to min L1, α = {high:g}", float(way[-2].min()), settings.large_alpha),
        Check(f"its projection: the same, α = {farthest:g}", float(way[-1].min()), settings.largest_alpha),
    ]


def _values(records: list[dict[str, Any]], key: str, **where: Any) -> list[float]:
    return [one[key] for one in records if all(one.get(name) == value for name, value in where.items())]


def _mean(records: list[dict[str, Any]], key: str, **where: Any) -> float:
    return float(np.mean(_values(records, key, **where)))


LOOKS = {GD: drawing.GD, PRODUCT: drawing.PRODUCT, HYPERBOLIC: drawing.HAM}
SEEN = (("l1", "L1 norm / smallest"), ("recovery", "error of recovery"), ("support", "visible weights"))


def _draw(settings: BiasSettings, records: list[dict[str, Any]], lines: list[dict[str, Any]], figure: Figure) -> None:
    first, *rest = drawing.panels(figure, 1 + len(SEEN))
    finest = min(settings.rates)
    for method in (PRODUCT, HYPERBOLIC):
        for start, style in ((ZERO, "-"), (RANDOM, ":")):
            where = {"method": method, "start": start, "rate": finest}
            worst_of = [max(_values(records, "distance", alpha=alpha, **where)) for alpha in settings.alphas]
            first.plot(settings.alphas, worst_of, label=f"{method} from {start}", **_look(method, style))
    first.axhline(settings.distance.high or 0.0, color=drawing.GD.color, lw=0.8, ls="--")
    drawing.logarithmic(first)
    first.set_title("distance to projection")
    for axes, (key, title) in zip(rest, SEEN, strict=True):
        unit = _mean(lines, key, program=L1) if key == "l1" else 1.0
        for method in (PRODUCT, HYPERBOLIC):
            line = [_mean(lines, key, program=method, alpha=alpha) / unit for alpha in settings.drawn_alphas]
            axes.plot(settings.drawn_alphas, line, color=LOOKS[method].color, lw=0.8, label=f"{method}: projection")
            where = {"method": method, "start": ZERO, "rate": finest}
            points = [_mean(records, key, alpha=alpha, **where) / unit for alpha in settings.alphas]
            axes.plot(settings.alphas, points, label=f"{method}, trained", **_look(method, "none"))
        gradient = _mean(records, key, method=GD, start=ZERO, rate=finest) / unit
        axes.axhline(gradient, color=drawing.GD.color, lw=0.8, ls="-.", label="GD, trained")
        axes.axhline(_mean(lines, key, program=L1) / unit, color=drawing.FURTHER[0].color, lw=0.8, ls="--", label=L1)
        drawing.logarithmic(axes, "x")
        axes.set_title(title)
    for axes in (first, *rest):
        axes.set_xlabel("α (m⊙w: 2 / γ)")
    drawing.legend(figure, columns=5)


def _look(method: str, line: str) -> dict[str, Any]:
    return {"ls": line, "lw": 0.8, "markersize": 3, **LOOKS[method]._asdict()}


EXPERIMENT = Experiment(
    title="Underdetermined sparse regression: HAM's limit is the Bregman projection of its start",
    source="the paper's implicit bias of HAM for underdetermined linear regression; R derived in ham.geometry",
    settings=BiasSettings,
    run=run,
)
