"""The inverse metric of an optimizer, measured with one small step: ``-(change of θ) / (rate × gradient)`` per entry.

The network is one layer whose weights lie on a grid, with the cross-entropy of random labels, so that all gradients
differ. Without weight decay, a step of HAM(SGD) is ``-η (1 + α |θ|) g`` and one of SGD on m and w is
``-η (m² + w²) g`` with m² + w² = √(4θ² + (m² − w²)²), both up to terms of η².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

import sparsity
from experiments.config.schema import Positive, Section
from ham import HAM
from ham.geometry import Euclidean, Geometry, Ham, Product

from . import drawing
from .base import Bound, Check, Experiment, TheoryOutcome, worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NotNegative = Annotated[float, Field(ge=0)]


class MetricSettings(Section):
    """Settings of the weights (`sizes`, with both signs), the layer and the methods; `gaps` are values of m² − w²."""

    sizes: Annotated[list[NotNegative], Field(min_length=1)]
    outputs: Positive
    samples: Positive
    seeds: Annotated[list[int], Field(min_length=1)]
    rate: Annotated[float, Field(gt=0)]
    alphas: list[NotNegative]
    gaps: list[NotNegative]
    deviation: Bound


Step = Callable[[nn.Linear, Callable[[], Tensor], float], None]


@dataclass(frozen=True)
class MetricMethod:
    """An optimizer, given as a function that takes one step of a layer, and its geometry."""

    name: str
    look: drawing.CurveStyle
    geometry: Geometry
    step: Step


def run(settings: MetricSettings) -> TheoryOutcome:
    """Measure the responses to one step and compare them with the formulas."""
    found = [_respond(method, settings) for method in _methods(settings)]
    bars = []
    for one in found:
        off = [abs(response / formula - 1) for _, response, formula in one["points"]]
        bars.append(
            Check(f"{one['method']}: response / formula − 1", worst(off, settings.deviation), settings.deviation)
        )
    return TheoryOutcome(tuple(bars), found, partial(_draw, settings, found))


def _methods(settings: MetricSettings) -> list[MetricMethod]:
    methods = [MetricMethod("GD", drawing.GD, Euclidean(), _sgd)]
    methods += [
        MetricMethod(f"m⊙w, m² − w² = {gap:g}", drawing.PRODUCT, Product(gap), partial(_product, gap))
        for gap in settings.gaps
    ]
    return methods + [
        MetricMethod(f"HAM, α = {alpha:g}", drawing.HAM, Ham(alpha), partial(_ham, alpha)) for alpha in settings.alphas
    ]


def _sgd(layer: nn.Linear, loss: Callable[[], Tensor], rate: float) -> None:
    optimizer = SGD(layer.parameters(), lr=rate)
    loss().backward()
    optimizer.step()


def _ham(alpha: float, layer: nn.Linear, loss: Callable[[], Tensor], rate: float) -> None:
    optimizer = HAM(SGD(layer.parameters(), lr=rate), alpha=alpha, beta=0.0)
    loss().backward()
    optimizer.step()


def _product(gap: float, layer: nn.Linear, loss: Callable[[], Tensor], rate: float) -> None:
    optimizer = SGD(sparsity.represent(layer, "product", beta=gap).param_groups(), lr=rate)
    loss().backward()
    optimizer.step()


def _respond(method: MetricMethod, settings: MetricSettings) -> dict[str, Any]:
    points = []
    for seed in settings.seeds:
        generator = torch.Generator().manual_seed(seed)
        grid = torch.tensor([sign * size for size in settings.sizes for sign in (-1.0, 1.0)], dtype=torch.float64)
        rows = [grid[torch.randperm(len(grid), generator=generator)] for _ in range(settings.outputs)]
        layer = nn.Linear(len(grid), settings.outputs, bias=False).double()
        weight = torch.stack(rows)
        with torch.no_grad():
            layer.weight.copy_(weight)
        inputs = torch.randn(settings.samples, len(grid), dtype=torch.float64, generator=generator) / len(grid) ** 0.5
        labels = torch.randint(settings.outputs, (settings.samples,), generator=generator)
        (grad,) = torch.autograd.grad(cross_entropy(layer(inputs), labels), layer.weight)
        method.step(layer, lambda layer=layer, x=inputs, y=labels: cross_entropy(layer(x), y), settings.rate)
        responses = (weight - layer.weight.detach()) / (settings.rate * grad)
        formulas = method.geometry.inverse_metric(weight)
        # the suite's product puts a balanced zero at (1, 0), since a pair at (0, 0) could never move
        known = formulas > 0
        columns = (weight[known], responses[known], formulas[known])
        points += zip(*(column.tolist() for column in columns), strict=True)
    return {"method": method.name, "points": [list(point) for point in points]}


def _draw(settings: MetricSettings, found: list[dict[str, Any]], figure: Figure) -> None:
    near, wide = drawing.panels(figure, 2)
    shades = {"GD": iter([1.0])}
    shades["m⊙w"] = iter(torch.linspace(0.4, 1, len(settings.gaps)).tolist())
    shades["HAM"] = iter(torch.linspace(0.4, 1, len(settings.alphas)).tolist())
    for one, method in zip(found, _methods(settings), strict=True):
        alpha = next(shades[method.name.partition(",")[0]])
        points = {theta: response for theta, response, _ in one["points"]}  # one per weight: seeds agree
        for axes, line in ((near, torch.linspace(-1, 1, 41)), (wide, torch.logspace(-3, 1, 41))):
            axes.plot(line, method.geometry.inverse_metric(line), color=method.look.color, alpha=alpha, lw=0.9)
        shown = {"ls": "", "markersize": 3.5, "alpha": alpha, "label": method.name, **method.look._asdict()}
        near.plot(*zip(*[(x, y) for x, y in points.items() if x == 0 or 0.1 <= abs(x) <= 1], strict=True), **shown)
        wide.plot(*zip(*[(x, y) for x, y in points.items() if x > 0], strict=True), **shown)
    near.set(xlabel="weight", ylabel="inverse metric", ylim=(0, 5), title="small weights")
    wide.set(xlabel="weight", title="positive weights")
    drawing.logarithmic(wide)
    drawing.legend(figure)


EXPERIMENT = Experiment(
    title="one small step shows the inverse metric: GD 1, m⊙w √(4θ² + (m² − w²)²), HAM 1 + α|θ|",
    source="the metrics of m⊙w and of HAM's flow are the paper's; measuring them by one step is the suite's own",
    settings=MetricSettings,
    run=run,
)
