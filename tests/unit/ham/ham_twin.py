"""The published HAM algorithm, literally and slowly, in plain Python numbers: what the tests compare `ham` with.

Written from the description of the released listing, not from `ham`: entries one by one, nonzero entries only, the
exponential itself, the exponent kept within 5, a tensor with a NaN exponent skipped, each tensor scaled to norm 1000.
"""

from __future__ import annotations

import math
from collections import Counter

import torch


class LiteralHam:
    """A plain torch optimizer on its own parameters, then the multiplicative step entry by entry.

    `events` counts what happened, so that a test can be sure to have met every case.
    """

    def __init__(self, base, alphas, betas, *, sign="after", max_weight_norm=1000.0):
        self.base, self.alphas, self.betas = base, alphas, betas
        self.sign, self.max_weight_norm = sign, max_weight_norm
        self.events = Counter()

    @torch.no_grad()
    def step(self):
        params = [p for group in self.base.param_groups for p in group["params"]]
        raw = {p: p.grad.flatten().tolist() for p in params if p.grad is not None}
        old = {p: p.flatten().tolist() for p in params}
        self.base.step()
        for group, alpha, beta in zip(self.base.param_groups, self.alphas, self.betas, strict=True):
            for p in group["params"]:
                if p not in raw:
                    self.events["no gradient"] += 1
                    continue
                values = p.flatten().tolist()
                if p.ndim >= 2:
                    values = self._multiply(values, raw[p], old[p], float(group["lr"]), alpha, beta)
                if values is not None:
                    p.copy_(torch.tensor(self._bounded(values), dtype=torch.float64).view_as(p))

    def _multiply(self, values, grads, old, lr, alpha, beta):
        result = []
        for w, g, w_old in zip(values, grads, old, strict=True):
            if w == 0:
                self.events["zero"] += 1
                result.append(w)
                continue
            self.events["crossed zero"] += w * w_old < 0
            reference = w if self.sign == "after" else w_old
            sign = (reference > 0) - (reference < 0)
            exponent = lr * -(alpha * sign * g + beta)
            if math.isnan(exponent):
                return None
            self.events["clamped"] += abs(exponent) > 5
            result.append(w * math.exp(min(5.0, max(-5.0, exponent))))
        return result

    def _bounded(self, values):
        norm = math.sqrt(sum(v * v for v in values))
        if not math.isfinite(norm) or norm <= self.max_weight_norm:
            return values
        self.events["bounded"] += 1
        return [v * (self.max_weight_norm / norm) for v in values]


def make_params(dtype, seed=0):
    """Two groups: a convolution, a matrix with exact zeros, a bias; a large matrix, a large vector, one unused."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale):
        return torch.nn.Parameter((torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype))

    conv, matrix, bias = normal(4, 2, 3, 3, scale=0.05), normal(5, 4, scale=0.2), normal(5, scale=0.2)
    with torch.no_grad():
        matrix[1:3, ::2] = 0
    large, vector, unused = normal(3, 4, scale=285.0), normal(6, scale=900.0), normal(3, 3, scale=1.0)
    return [[conv, matrix, bias], [large, vector, unused]]


def fill_grads(groups, step, scale=0.3):
    """The same gradients for the same step: mostly small, one in ten a thousand times larger, zero at zero weights."""
    generator = torch.Generator().manual_seed(1000 + step)
    for p in [*groups[0], *groups[1][:-1]]:
        grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale
        grad = torch.where(torch.rand(p.shape, generator=generator) < 0.1, grad * 1e3, grad)
        p.grad = (grad * (p.detach() != 0)).to(p.dtype)
