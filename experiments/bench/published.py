"""The published HAM listing, operation by operation, with which `ham bench optimizer` and the tests compare.

It follows the listing in the README of the authors' repository (TomJacobs05/HAM at 5128597), including its copies, its
four tests for NaN, its boolean indexing and its clipping of gradients after the step. It differs in two points: it
does not print, and it is not a `torch.optim.Optimizer`, which the listing is in name only. For training, use `ham.HAM`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class PublishedHAM:
    """A base optimizer followed by the published multiplicative step, norm bound and gradient clipping.

    Args:
        base: The optimizer that takes the first half of the step.
        alpha: Strength of the sign-aware part.
        beta: Decay per unit of learning rate.
        max_weight_norm: Largest norm of a tensor after the step.
        max_grad_norm: Norm to which the gradients of a group are clipped after they have been used.

    Attributes:
        events: How often a tensor was skipped, by the test that it failed, and how often one was scaled to the bound.
    """

    def __init__(
        self,
        base: Optimizer,
        alpha: float = 200.0,
        beta: float = 1e-3,
        max_weight_norm: float = 1000.0,
        max_grad_norm: float = 20.0,
    ):
        self.base = base
        self.alpha, self.beta = alpha, beta
        self.max_weight_norm, self.max_grad_norm = max_weight_norm, max_grad_norm
        self.events: Counter[str] = Counter()

    def step(self) -> None:
        """Take the base step, then the multiplicative step."""
        self.base.step()
        for group in self.base.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._move(param, group["lr"])
            torch.nn.utils.clip_grad_norm_(group["params"], max_norm=self.max_grad_norm)

    def _move(self, param: Any, lr: float) -> None:
        if self._has_nan("weight", param.data) or self._has_nan("gradient", param.grad):
            return
        if param.ndim >= 2:
            before = param.data.clone()
            exponent = torch.clamp((-self.alpha * torch.sign(param.data) * param.grad - self.beta) * lr, -5.0, 5.0)
            if self._has_nan("exponent", exponent):
                return
            factor = torch.exp(exponent)
            there = param.data != 0
            param.data[there] = param.data[there] * factor[there]
            if self._has_nan("result", param.data):
                param.data = before
                return
        norm = torch.norm(param.data)
        if norm > self.max_weight_norm:
            self.events["bound"] += 1
            param.data = param.data * (self.max_weight_norm / norm)

    def _has_nan(self, what: str, tensor: Tensor) -> bool:
        if torch.isnan(tensor).any():
            self.events[what] += 1
            return True
        return False
