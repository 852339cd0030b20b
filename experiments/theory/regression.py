"""Sparse regression with fewer equations than weights, solved by training with GD, m ⊙ w and HAM.

The rows of A are orthonormal. This is no restriction, since the set of solutions does not depend on the basis of the
equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from experiments.config.schema import Positive, Section
from ham import HAM
from ham.geometry import Euclidean, Geometry, Ham, Product
from sparsity.representations.product import split

from . import convex

Above0 = Annotated[float, Field(gt=0)]
ZERO, RANDOM = "0", "θ₀ ≠ 0"
GD, PRODUCT, HYPERBOLIC = "GD", "m⊙w", "HAM"


class ProblemSettings(Section):
    """Settings of the problems, one per seed; `start` is the standard deviation of the entries of the random start."""

    weights: Positive
    equations: Positive
    nonzero: Positive
    seeds: Annotated[list[int], Field(min_length=1)]
    start: Above0


class TrainingSettings(Section):
    """Settings of the step length and of the end of training.

    With the inverse metric G, rates are in units of 1 / G(size): rates up to 2 are stable as long as no weight is
    larger than `size`. Steps are shortened by the factor reach / (largest gradient) while it is less than 1.
    `precision` is the largest allowed residual of an equation, `steps` the largest number of steps.
    """

    sign: Literal["after", "before"]
    size: Above0
    reach: Above0
    precision: Above0
    steps: Positive


class Problems(NamedTuple):
    """The problems of all seeds, each from 0 and from a random start, stacked along the first dimension.

    Attributes:
        seeds: Seed of each problem.
        starts: Name of each problem's start.
        matrix: A, shape (problems, equations, weights).
        targets: y, shape (problems, equations).
        sparse: The sparse weights that y is computed from, shape (problems, weights).
        start: θ₀, shape (problems, weights).
    """

    seeds: list[int]
    starts: list[str]
    matrix: Tensor
    targets: Tensor
    sparse: Tensor
    start: Tensor


class Arm(NamedTuple):
    """A method with its α, its geometry, and the potential it is checked with (None for the Euclidean one)."""

    method: str
    alpha: float
    geometry: Geometry
    dual: convex.Dual | None


def make_problems(settings: ProblemSettings) -> Problems:
    """Make problems with random orthonormal rows, and sparse weights of sizes 0.5 to 1.5 with random signs."""
    rows, sparse, starts = [], [], []
    for seed in settings.seeds:
        rng = np.random.default_rng(seed)
        rows.append(np.linalg.qr(rng.standard_normal((settings.weights, settings.equations)))[0].T)
        weights = np.zeros(settings.weights)
        where = rng.choice(settings.weights, settings.nonzero, replace=False)
        weights[where] = rng.uniform(0.5, 1.5, settings.nonzero) * rng.choice([-1, 1], settings.nonzero)
        sparse.append(weights)
        starts.append(settings.start * rng.standard_normal(settings.weights))
    count = len(settings.seeds)
    starts = [np.zeros(settings.weights)] * count + starts
    matrix, sparse, start = (torch.from_numpy(np.stack(each)) for each in (rows * 2, sparse * 2, starts))
    names = [ZERO] * count + [RANDOM] * count
    return Problems(settings.seeds * 2, names, matrix, _times(matrix, sparse), sparse, start)


def arms(alphas: Sequence[float]) -> list[Arm]:
    """Return the methods: GD once, and m ⊙ w (at γ = 2 / α) and HAM at every α."""
    found = [Arm(GD, 0.0, Euclidean(), None)]
    for alpha in alphas:
        found.append(Arm(PRODUCT, alpha, Product(2 / alpha), convex.OfProduct(2 / alpha)))
        found.append(Arm(HYPERBOLIC, alpha, Ham(alpha), convex.OfHam(alpha)))
    return found


def descend(arm: Arm, problems: Problems, rate: float, settings: TrainingSettings) -> tuple[Tensor, int]:
    """Train until the equations hold; all problems at once, since every step acts on each weight independently.

    Args:
        arm: The method.
        problems: The problems.
        rate: Learning rate in units of 1 / G(size).
        settings: Step length and end of training.

    Returns:
        The weights, shape (problems, weights), and the number of steps.
    """
    theta, optimizer = _moving(arm, problems.start, settings.sign)
    scale = rate / float(arm.geometry.inverse_metric(torch.tensor(settings.size).double()))
    for step in range(settings.steps):
        now = theta()
        residual = _times(problems.matrix, now.detach()) - problems.targets
        if float(residual.abs().max()) <= settings.precision:
            return now.detach(), step
        gradient = _times(problems.matrix.mT, residual)
        for group in optimizer.param_groups:
            group["lr"] = scale * min(1.0, settings.reach / float(gradient.abs().max()))
        optimizer.zero_grad()
        now.backward(gradient)
        optimizer.step()
    return theta().detach(), settings.steps


def _moving(arm: Arm, start: Tensor, sign: Literal["after", "before"]) -> tuple[Callable[[], Tensor], Optimizer]:
    """Return a function that computes θ, and an optimizer of the tensors from which it is computed."""
    if arm.method == PRODUCT:
        m, w = map(nn.Parameter, split(start, 2 / arm.alpha))
        return lambda: m * w, SGD([m, w], lr=1.0)
    theta = nn.Parameter(start.clone())
    base = SGD([theta], lr=1.0)
    if arm.method == GD:
        return lambda: theta, base
    return lambda: theta, HAM(base, alpha=arm.alpha, beta=0.0, sign=sign, max_weight_norm=None)


def _times(matrix: Tensor, theta: Tensor) -> Tensor:
    return (matrix @ theta.unsqueeze(-1)).squeeze(-1)
