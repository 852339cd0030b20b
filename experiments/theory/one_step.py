"""HAM's multiplicative factor alone is the gradient step on the factors of θ = m ⊙ w, to first order in the rate.

SGD with rate η and decay λ moves m to m − η (g w + λ m) and w to w − η (g m + λ w), with g = dL/dθ. Their product is

    θ − η ((m² + w²) g + 2λ θ) + η² (g w + λ m) (g m + λ w).

A balanced pair, m² = w², has m² + w² = 2 |θ|, so the term in η equals that of HAM's factor θ exp(−η (α sign(θ) g + β))
at α = 2, β = 2λ. The terms in η² differ by θ (sign(θ) g + λ)²: the exponential's series has it twice, the product once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import SGD

import sparsity
from experiments.config.schema import Positive, Section
from ham import hyperbolic_step_

from . import drawing
from .base import Bound, Check, Experiment, TheoryOutcome, order, worst
from .problems import PROBLEMS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .problems import OneStepProblem

Rate = Annotated[float, Field(gt=0)]


class OneStepSettings(Section):
    """Settings of networks, rates and bounds; `width` is the number of hidden neurons, `weight_decay` that of m and w.

    A bound is an interval in which a measured number must lie.
    """

    problems: Annotated[list[Literal["classification", "regression"]], Field(min_length=1)]
    samples: Positive
    width: Positive
    seeds: Annotated[list[int], Field(min_length=1)]
    rates: Annotated[list[Rate], Field(min_length=2)]
    weight_decay: Rate
    equal: Bound
    different: Bound
    second_order: Bound


class Variant(NamedTuple):
    """HAM's α, its β as a multiple of the weight decay (`decay`), and m² − w² of the product (`gap`)."""

    alpha: float = 2.0
    decay: float = 2.0
    gap: float = 0.0


EQUAL = "α = 2, β = 2λ, balanced"
VARIANTS = {
    EQUAL: Variant(),
    "control: α = 1": Variant(alpha=1.0),
    "control: β = λ": Variant(decay=1.0),
    "control: m² − w² = 1": Variant(gap=1.0),
}


def run(settings: OneStepSettings) -> TheoryOutcome:
    """Measure the order of the difference between both steps, and compare its size with the series."""
    records: list[dict[str, Any]] = []
    rates = sorted(settings.rates, reverse=True)
    for problem in settings.problems:
        for seed in settings.seeds:
            given = PROBLEMS[problem](seed, settings.samples, settings.width)
            for name, variant in VARIANTS.items():
                steps = [_errors(given, variant, rate, settings.weight_decay) for rate in rates]
                errors = [error for error, _ in steps]
                records.append(
                    {
                        "problem": problem,
                        "seed": seed,
                        "variant": name,
                        "rates": rates,
                        "errors": errors,
                        "order": order(rates, errors),
                        "of_predicted": errors[-1] / steps[-1][1],
                    }
                )
    return TheoryOutcome(_bars(settings, records), records, partial(_draw, records))


def _errors(problem: OneStepProblem, variant: Variant, rate: float, decay: float) -> tuple[float, float]:
    """Return the distance between both steps, and that which the series predicts for the equal variant.

    Both are divided by the norm of the weights.
    """
    model, loss = problem
    weights = [layer for layer in model.parameters() if layer.ndim >= 2]
    grads = torch.autograd.grad(loss(model), weights)
    moved = [weight.detach().clone() for weight in weights]
    hyperbolic_step_(moved, grads, lr=rate, alpha=variant.alpha, beta=variant.decay * decay)
    product = _product_step(problem, variant.gap, rate, decay)
    size = _norm(weights)
    series = [weight * (weight.sign() * grad + decay) ** 2 for weight, grad in zip(weights, grads, strict=True)]
    differences = [a - b for a, b in zip(moved, product, strict=True)]
    return _norm(differences) / size, rate**2 * _norm(series) / size


def _product_step(problem: OneStepProblem, gap: float, rate: float, decay: float) -> list[Tensor]:
    """Return θ after a step of SGD on m and w, in the suite's own product representation."""
    model, loss = copy.deepcopy(problem[0]), problem[1]
    representation = sparsity.represent(model, "product", beta=gap)
    optimizer = SGD(representation.param_groups(weight_decay=decay), lr=rate)
    loss(model).backward()
    optimizer.step()
    return [weight for _, weight in representation.weights()]


def _norm(tensors: Sequence[Tensor]) -> float:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).norm().item()


def _bars(settings: OneStepSettings, records: list[dict[str, Any]]) -> tuple[Check, ...]:
    bars = []
    for problem in settings.problems:
        for name in VARIANTS:
            found = [record for record in records if (record["problem"], record["variant"]) == (problem, name)]
            bound = settings.equal if name == EQUAL else settings.different
            bars.append(Check(f"{problem}, {name}: order", worst([one["order"] for one in found], bound), bound))
            if name == EQUAL:
                shares = [one["of_predicted"] for one in found]
                bound = settings.second_order
                bars.append(Check(f"{problem}, {name}: error / predicted", worst(shares, bound), bound))
    return tuple(bars)


def _draw(records: list[dict[str, Any]], figure: Figure) -> None:
    problems = list(dict.fromkeys(record["problem"] for record in records))
    looks = dict(zip(VARIANTS, (drawing.HAM, drawing.GD, drawing.FURTHER[0], drawing.PRODUCT), strict=True))
    for axes, problem in zip(drawing.panels(figure, len(problems)), problems, strict=True):
        for record in (record for record in records if record["problem"] == problem):
            look = looks[record["variant"]]
            axes.plot(record["rates"], record["errors"], color=look.color, lw=0.7)
            if record["seed"] == records[0]["seed"]:
                axes.plot(record["rates"], record["errors"], label=record["variant"], ls="", ms=4, **look._asdict())
        drawing.logarithmic(axes)
        axes.set_title(problem)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("difference of the steps / norm of weights")
    drawing.legend(figure)


EXPERIMENT = Experiment(
    title="HAM's factor alone (α = 2, β = 2λ) is the gradient step on balanced m ⊙ w, to first order in the rate",
    source="the paper's motivation of the rule (α = 2 and β from the flow of m ⊙ w); the η² term is the suite's own",
    settings=OneStepSettings,
    run=run,
)
