"""Exact selection by score: the right count, and a stated rule for ties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


class NotFinite(ValueError):
    """Scores that hold NaN or infinity cannot be ordered."""


def _refuse_not_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite("scores hold NaN or infinity, so weights cannot be chosen by them")


def top_k(scores: Tensor, k: int, draw: Callable[[int], Tensor] | None = None) -> Tensor:
    """Select the k largest scores. Where some of several equal scores must be left out, a draw decides among them.

    `torch.topk` guarantees no order among equal scores, and ties are common (dead units have a gradient of exactly
    zero, heads that are initialised at zero a magnitude of zero). This function selects the same set on every device
    and with any number of threads, without a sort and without a copy of the scores to the host.

    Args:
        scores: Any shape, float.
        k: Number to select; clamped to [0, number of scores].
        draw: Called with the number that is selected among equal scores; returns random numbers in [0, 1) in the shape
            of `scores`, the largest of which win. Without it the lowest index does, in row-major order of the logical
            tensor, which suits scores that are random themselves.

    Returns:
        Bool tensor of the shape of `scores` with exactly k True.

    Raises:
        NotFinite: for scores with NaN or infinity.
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
    missing, tied = torch.stack([k - above.sum(), ties.sum()]).tolist()
    if missing < tied:
        ties = _first(ties, missing) if draw is None else top_k(_among(ties, draw(missing).reshape(-1)), missing)
    return (above | ties).view(scores.shape)


def _first(ties: Tensor, number: int) -> Tensor:
    # counts take four bytes per entry if possible; at eight they would be as large as two copies of the weights
    count = torch.int32 if ties.numel() < 2**31 else torch.int64
    return ties & (ties.cumsum(0, dtype=count) <= number)


def _among(ties: Tensor, numbers: Tensor) -> Tensor:
    """Random numbers in [0, 1) where scores are equal, less elsewhere."""
    return numbers.to(ties.device).masked_fill(~ties, -1.0)


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


def top_k_of_all(
    scores: Mapping[str, Tensor], k: int, draw: Callable[[int], Mapping[str, Tensor]] | None = None
) -> dict[str, Tensor]:
    """Select the k largest scores of all tensors together.

    Args:
        scores: Float tensors of one type by name.
        k: Number to select; clamped to [0, number of scores].
        draw: As for `top_k`, with random numbers for every tensor. Without it ties go to the first tensor, then to the
            lowest index.

    Raises:
        NotFinite: for scores with NaN or infinity.
    """
    k = min(k, sum(score.numel() for score in scores.values()))
    if k <= 0:
        return {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    threshold = kth_largest(list(scores.values()), k)
    chosen = {name: score > threshold for name, score in scores.items()}
    ties = {name: score == threshold for name, score in scores.items()}
    above, tied = (torch.stack([mask.sum() for mask in masks.values()]).sum() for masks in (chosen, ties))
    missing, all_tied = torch.stack([k - above, tied]).tolist()
    if missing < all_tied and draw is not None:
        numbers = draw(missing)
        ties = top_k_of_all({name: _among(equal, numbers[name]) for name, equal in ties.items()}, missing)
    elif missing < all_tied:
        for name, equal in ties.items():
            ties[name] = _first(equal.flatten(), missing).view(equal.shape)
            missing -= int(ties[name].sum())
    return {name: mask | ties[name] for name, mask in chosen.items()}


def keep_largest(scores: Tensor, mask: Tensor, number: int, draw: Callable[[int], Tensor] | None = None) -> Tensor:
    """Select the `number` largest scores (>= 0) among the True entries of `mask`.

    Args:
        scores: Scores of one layer.
        mask: True where weights are active.
        number: How many weights stay.
        draw: Decides among equal scores, ``drawn(ctx, name, "kept")``. Without it the lowest indices would stay, which
            are the first classes of a head that is initialised at zero.
    """
    # scores >= 0 > -1: a pruned position is never kept before an active one, even one that is exactly zero
    return top_k(scores.masked_fill(~mask, -1.0), number, draw)


def grow_largest(scores: Tensor, kept: Tensor, number: int, draw: Callable[[int], Tensor] | None = None) -> Tensor:
    """Add to `kept` the `number` largest scores (>= 0) among its False entries.

    Args:
        scores: Scores of one layer.
        kept: True where weights stay active.
        number: How many weights grow.
        draw: Decides among equal scores, ``drawn(ctx, name)``. Without it the lowest indices would grow in a layer that
            no gradient reaches (a branch that is initialised at zero).
    """
    return kept | top_k(scores.masked_fill(kept, -1.0), number, draw)
