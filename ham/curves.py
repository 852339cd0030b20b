"""Functions for `ham.geometry` without the cancellation of their plain forms; real tensors, entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def entropy(u: Tensor) -> Tensor:
    """Compute ((1 + u) log(1 + u) - u) / u² for u ≥ -1, which is 1/2 at 0.

    With y = u / (2 + u), log(1 + u) = 2 artanh(y) = 2 (y + y³/3 + y⁵/5 + ...), and the expression is
    (1 - y)/2 (1 + (y + y²) (1/3 + y²/5 + y⁴/7 + ...)), in which nothing cancels.
    """
    y = u / (2 + u)
    small = y.abs() <= 0.2
    square = y.square().clamp(max=0.04)
    series = torch.zeros_like(y)
    for k in range(11, 0, -1):
        series = series * square + 1 / (2 * k + 1)
    large = torch.where(small, 1.0, u)
    exact = (torch.xlogy(1 + large, 1 + large) / large - 1) / large
    return torch.where(small, (1 - y) / 2 * (1 + (y + y.square()) * series), exact)


def over_argument(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute function(x) / x for a function with derivative 1 at 0: 1 at 0, and at subnormal x, which lack digits."""
    lost = x.abs() < torch.finfo(x.dtype).tiny
    safe = torch.where(lost, 1.0, x)
    return torch.where(lost, 1.0, function(safe) / safe)


def sinh_rest(d: Tensor) -> Tensor:
    """Compute sinh(d) - d for |d| ≤ 1."""
    square, series = d.square(), torch.ones_like(d)
    for k in range(8, 1, -1):
        series = 1 + series * square / (2 * k * (2 * k + 1))
    return series * square * d / 6
