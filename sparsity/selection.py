"""Exact selection by score: the right count, and a stated rule for ties."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int) -> Tensor:
    """Mask of the k largest scores; ties go to the lowest index (in memory order of the logical tensor).

    `torch.topk` promises no order among equal scores, and ties are common (dead units have a gradient of exactly zero);
    this gives the same set on every device and for any number of threads, without a sort and without a host copy.

    Args:
        scores: Any shape, float; NaN is not allowed.
        k: Number to select; clamped to [0, number of scores].

    Returns:
        Bool tensor of the shape of `scores` with exactly k True.
    """
    size = scores.numel()
    if k <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    if k >= size:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = flat.kthvalue(size - k + 1).values
    above = flat > threshold
    ties = flat == threshold
    missing = k - above.sum()
    # counts of four bytes an entry: at eight they would weigh as much as two copies of the weights
    count = torch.int32 if size < 2**31 else torch.int64
    chosen = above | (ties & (ties.cumsum(0, dtype=count) <= missing))
    return chosen.view(scores.shape)


def strictly_above_kth(scores: Tensor, k: int) -> Tensor:
    """Mask of the scores strictly greater than the k-th largest: at most k − 1 of them (AC/DC's rule).

    Args:
        scores: 1-D float tensor.
        k: From 1 to the number of scores.
    """
    return scores > scores.kthvalue(scores.numel() - k + 1).values


def top_k_of_all(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Masks of the k largest scores of all tensors together; ties go to the first tensor, then the lowest index."""
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    parts = top_k(flat, k).split([score.numel() for score in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
