"""What spred and PILoT share: a product that is cut to the sparsity by magnitude, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from sparsity.masking.distributions import counts
from sparsity.masking.selection import top_k, top_k_of_all
from sparsity.masks import MaskSet

from .product import Pair

if TYPE_CHECKING:
    from sparsity.topology import Context


def largest(thetas: Mapping[str, Tensor], sparsity: float, allocation: str) -> MaskSet:
    """Masks of the largest |θ|: over all layers together, or the same share of each.

    Args:
        thetas: Weights by name.
        sparsity: Share of zeros, in [0, 1).
        allocation: ``global`` or ``uniform``.
    """
    kept = kept_weights({name: tuple(theta.shape) for name, theta in thetas.items()}, sparsity, allocation)
    scores = {name: theta.abs() for name, theta in thetas.items()}
    if allocation == "uniform":
        return MaskSet({name: top_k(score, kept[name]) for name, score in scores.items()})
    return MaskSet(top_k_of_all(scores, sum(kept.values())))


def kept_weights(shapes: Mapping[str, tuple[int, ...]], sparsity: float, allocation: str) -> dict[str, int]:
    """How many weights a cut leaves: a layer under ``uniform``, in all (under one key) under ``global``."""
    if allocation == "global":
        shapes = {"all": (sum(math.prod(shape) for shape in shapes.values()),)}
    return counts(shapes, dict.fromkeys(shapes, 1 - sparsity))


class CutProduct(Pair):
    """m ⊙ w whose smallest |θ| are cut to the sparsity of the run when a share of the epochs is over.

    What follows the cut is fine-tuning under its mask. By default nothing does: the cut ends training, and the last
    epoch's validation is that of the cut network. Batch statistics are not computed anew for it. Under a topology that
    aims at the sparsity itself, such as RiGL, nothing is cut: it is the topology's sparsity then.
    """

    uses_sparsity = True
    needs_epochs = True
    allocation = "global"

    def _cut_epoch(self, epochs: int) -> int:
        return max(1, math.ceil(self.options.cut_at * epochs))

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Cut where it is due."""
        super().after_epoch(ctx, metrics)
        if ctx.sparsity_left > 0 and ctx.epoch == self._cut_epoch(ctx.total_epochs):
            ctx.set_masks(largest(dict(self.weights()), ctx.sparsity_left, self.allocation), "cut")

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """One cut."""
        return {**super().expected_events(epochs, sparsity), **({"cut": 1} if sparsity > 0 else {})}

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """What the cut leaves."""
        return sum(kept_weights(shapes, sparsity, self.allocation).values())
