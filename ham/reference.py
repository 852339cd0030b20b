"""HAM in its literal form: slow, one weight at a time, in plain Python numbers. To be read first, not to train with.

Source: Jacobs, Gadhikar, Rubio-Madrigal, Burkholz, "Hyperbolic Aware Minimization: Implicit
Bias for Sparsity", ICLR 2026
(arXiv 2506.02630).
A step from the weights θ, with gradient g = ∇f(θ), learning rate η, strength α and decay β, has three parts:

1. The base optimizer takes its own step.
2. Each weight of a tensor with two or more dimensions is multiplied::

       θ <- θ exp(-η (α sign(θ) g + β))

   The exponent is clamped to [-5, 5]. The gradient is the one that the base was given, without momentum and weight
   decay. The sign is that of the weight after the base step (HYP*, the published listing) or before it (HYP).
3. A tensor whose Euclidean norm is above 1000 is scaled to norm 1000.

`ham.HAM` computes the same up to rounding, and the tests compare the two after every step. This module imports nothing
of the package, so that a mistake there cannot be repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch.optim import Optimizer


class HAMReference:
    """Take the step of a base optimizer, then HAM's multiplicative step, entry by entry.

    Args:
        base: The optimizer that takes the first half of the step.
        alphas: α for each parameter group of the base.
        betas: β for each parameter group of the base.
        sign: Take the sign of a weight "after" the base step (HYP*) or "before" it (HYP).
        max_weight_norm: Largest Euclidean norm of a tensor after the step.
    """

    def __init__(
        self,
        base: Optimizer,
        alphas: Sequence[float],
        betas: Sequence[float],
        *,
        sign: Literal["after", "before"] = "after",
        max_weight_norm: float = 1000.0,
    ):
        self.base, self.alphas, self.betas = base, alphas, betas
        self.sign, self.max_weight_norm = sign, max_weight_norm

    @torch.no_grad()
    def step(self) -> None:
        """Take the base step, multiply the weights and bound the norms of the tensors."""
        params = [p for group in self.base.param_groups for p in group["params"] if p.grad is not None]
        gradients = {p: p.grad.flatten().tolist() for p in params}
        before = {p: p.flatten().tolist() for p in params}
        self.base.step()
        for group, alpha, beta in zip(self.base.param_groups, self.alphas, self.betas, strict=True):
            for p in group["params"]:
                if p.grad is None or p.numel() == 1:  # one element: the threshold of a method, not a weight
                    continue
                thetas = p.flatten().tolist()
                if p.ndim >= 2:
                    signed = thetas if self.sign == "after" else before[p]
                    entries = zip(thetas, map(_sign, signed), gradients[p], strict=True)
                    thetas = [multiplied(theta, s, g, float(group["lr"]), alpha, beta) for theta, s, g in entries]
                thetas = bounded(thetas, self.max_weight_norm)
                p.copy_(torch.tensor(thetas, dtype=torch.float64).view_as(p))


def multiplied(theta: float, sign: int, g: float, eta: float, alpha: float, beta: float) -> float:
    """Return θ exp(-η (α sign g + β)) with the exponent clamped to [-5, 5]; θ itself where the exponent is NaN."""
    if theta == 0:
        return theta  # a pruned weight stays pruned
    exponent = -eta * (alpha * sign * g + beta)
    if math.isnan(exponent):
        return theta
    return theta * math.exp(min(5.0, max(-5.0, exponent)))


def bounded(thetas: list[float], max_norm: float) -> list[float]:
    """Scale the entries of a tensor to ``max_norm`` where their Euclidean norm is larger, unless it is not finite."""
    norm = math.sqrt(sum(theta * theta for theta in thetas))
    if not math.isfinite(norm) or norm <= max_norm:
        return thetas
    return [theta * (max_norm / norm) for theta in thetas]


def _sign(theta: float) -> int:
    return (theta > 0) - (theta < 0)
