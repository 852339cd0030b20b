"""The base class of spred and PILoT: a product that is pruned to the target by magnitude, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from sparsity.masking.distributions import counts
from sparsity.masking.draws import drawn, drawn_of_all
from sparsity.masking.selection import top_k, top_k_of_all
from sparsity.masks import MaskSet
from sparsity.options import option

from .product import Pair

if TYPE_CHECKING:
    from sparsity.topology import Context


def largest(ctx: Context, thetas: Mapping[str, Tensor], sparsity: float, allocation: str) -> MaskSet:
    """Select the largest |θ|: of all layers together, or the same fraction of each; a draw decides among equal ones.

    Args:
        ctx: The run.
        thetas: Weights by name.
        sparsity: Fraction of zeros, in [0, 1).
        allocation: ``global`` or ``uniform``.
    """
    number = kept_weights({name: tuple(theta.shape) for name, theta in thetas.items()}, sparsity, allocation)
    scores = {name: theta.abs() for name, theta in thetas.items()}
    if allocation == "uniform":
        return MaskSet({name: top_k(score, number[name], drawn(ctx, name)) for name, score in scores.items()})
    return MaskSet(top_k_of_all(scores, sum(number.values()), drawn_of_all(ctx, scores)))


def kept_weights(shapes: Mapping[str, tuple[int, ...]], sparsity: float, allocation: str) -> dict[str, int]:
    """Count the weights that remain: per layer for ``uniform``, in total (under one key) for ``global``."""
    if allocation == "global":
        shapes = {"all": (sum(math.prod(shape) for shape in shapes.values()),)}
    return counts(shapes, dict.fromkeys(shapes, 1 - sparsity))


@dataclass(frozen=True)
class Cut:
    """The option that says when weights are pruned."""

    cut_at: float = option(
        1.0, "fraction of the epochs after which weights are pruned; the rest is fine-tuning", gt=0, le=1
    )


class CutProduct(Pair):
    """m ⊙ w whose smallest |θ| are pruned to the target sparsity after a fraction of the epochs (the cut).

    After the cut training continues as fine-tuning with its mask. By default the cut ends training, and the validation
    of the last epoch is that of the pruned network. Batch statistics are not computed anew for it; a run's
    ``model.recalibrate`` does that before the final evaluation. With a topology that reaches the sparsity itself, such
    as RiGL, nothing is cut.
    """

    uses_sparsity = True
    needs_epochs = True
    allocation = "global"

    def _cut_epoch(self, epochs: int) -> int:
        return max(1, math.ceil(self.options.cut_at * epochs))

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Prune at the end of the epoch of the cut."""
        super().after_epoch(ctx, metrics)
        if ctx.sparsity_left > 0 and ctx.epoch == self._cut_epoch(ctx.total_epochs):
            ctx.set_masks(largest(ctx, dict(self.weights()), ctx.sparsity_left, self.allocation), "cut")

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Count the cut."""
        return {**super().expected_events(epochs, sparsity), **({"cut": 1} if sparsity > 0 else {})}

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the number of weights that remain after the cut."""
        return sum(kept_weights(shapes, sparsity, self.allocation).values())
