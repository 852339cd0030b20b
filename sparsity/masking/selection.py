"""Exact selection by score: the right count, and a stated rule for ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class NotFinite(ValueError):
    """Scores that hold NaN or infinity cannot be ordered."""


def _refuse_not_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite("scores hold NaN or infinity, so weights cannot be chosen by them")


def top_k(scores: Tensor, k: int) -> Tensor:
    """Select the k largest scores; ties go to the lowest index (in row-major order of the logical tensor).

    `torch.topk` guarantees no order among equal scores, and ties are common (dead units have a gradient of exactly
    zero). This function selects the same set on every device and with any number of threads, without a sort and without
    a copy of the scores to the host.

    Args:
        scores: Any shape, float.
        k: Number to select; clamped to [0, number of scores].

    Returns:
        Bool tensor of the shape of `scores` with exactly k True.

    Raises:
        NotFinite: for scores with NaN or infinity; finding out is the one host synchronisation.
    """
    _refuse_not_finite(scores)
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
    # counts take four bytes per entry if possible; at eight they would be as large as two copies of the weights
    count = torch.int32 if size < 2**31 else torch.int64
    chosen = above | (ties & (ties.cumsum(0, dtype=count) <= missing))
    return chosen.view(scores.shape)


def kth_largest(scores: Sequence[Tensor], k: int) -> Tensor:
    """Return the k-th largest of all entries of several tensors, without concatenating them.

    The function bisects the 2^32 float32 numbers in their order, as integers, by counting; each pass holds the
    comparison of one layer at a time. It needs no sort and no copy to the host.

    Args:
        scores: Float tensors of one type. Those of float64 are concatenated after all.
        k: From 1 to the number of entries.

    Returns:
        0-d tensor, float32 or float64.

    Raises:
        NotFinite: for scores with NaN or infinity.
    """
    for score in scores:
        _refuse_not_finite(score)
    if scores[0].dtype == torch.float64:
        flat = torch.cat([score.detach().flatten() for score in scores])
        return flat.kthvalue(flat.numel() - k + 1).values
    device = scores[0].device
    limits = torch.tensor([-torch.inf, torch.inf], dtype=torch.float32, device=device)
    low, high = _flipped(limits.view(torch.int32)).long().unbind()
    for _ in range(32):
        middle = (low + high + 1) >> 1
        value = _number(middle)
        enough = torch.stack([torch.count_nonzero(score.float() >= value) for score in scores]).sum() >= k
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle - 1)
    return _number(low)


def _number(position: Tensor) -> Tensor:
    """Return the float32 number at a position in the order of all float32 numbers."""
    return _flipped(position.int()).view(torch.float32)


def _flipped(bits: Tensor) -> Tensor:
    """Map the bits of floats to integers of the same order, and back: those of negative numbers count downwards."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def strictly_above_kth(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Select the scores strictly greater than the k-th largest of all: at most k − 1 of them (AC/DC's rule).

    Args:
        scores: Float tensors of one type by name.
        k: From 1 to the number of scores.
    """
    threshold = kth_largest(list(scores.values()), k)
    return {name: score > threshold for name, score in scores.items()}


def top_k_of_all(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Select the k largest scores of all tensors together; ties go to the first tensor, then to the lowest index."""
    if k <= 0:
        return {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    threshold = kth_largest(list(scores.values()), min(k, sum(score.numel() for score in scores.values())))
    chosen = {name: score > threshold for name, score in scores.items()}
    missing = k - torch.stack([mask.sum() for mask in chosen.values()]).sum()
    for name, score in scores.items():
        ties = (score == threshold).flatten()
        count = torch.int32 if ties.numel() < 2**31 else torch.int64
        taken = ties & (ties.cumsum(0, dtype=count) <= missing)
        chosen[name] |= taken.view(score.shape)
        missing = missing - taken.sum()
    return chosen
