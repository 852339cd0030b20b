"""SET: drop the smallest weights and grow at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsity.dynamic import drawn, grow_largest, keep_largest, random_scores, rounded
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.replacement import Replacement, ReplaceOptions
from sparsity.topology import Context


@register_topology("set")
class SET(Replacement):
    """Sparse evolutionary training: like RiGL, but weights grow at random, without a gradient.

    Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
    network science" (Nature Communications 2018, arXiv 1707.04780), in the form of Evci et al. (RiGL's
    `SparseSETOptimizer`), whose ImageNet figures are the ones usually quoted: in each layer with n active weights,
    k = floor(f(t) · n), the k smallest |θ| drop and k positions grow, drawn uniformly from all outside the kept set,
    just-dropped ones included. A weight that was pruned before starts at zero; one that was dropped and
    regrown keeps its value. Updates replace the weight step every ΔT steps, first at step 0, with f as in RiGL.

    The original is ``unit: epoch, update_every: 1, also_step: true, drop_schedule: constant, end: 1.0, drop: signs``:
    the fraction f of the positive weights that is smallest drops, and the same fraction of the negative ones. It gives
    new weights random values; here they are zero. Draws are pure functions of seed, step and layer, on the CPU, so all
    ranks and devices grow the same.

    Liu et al. (In-Time Over-Parameterization, ICML 2021, arXiv 2102.02887) is ``also_step: true, drop_fraction: 0.5,
    final_drop_fraction: 0.005, rounding: ceil, end: 1.0``, which is their code with ``--death magnitude``; its initial
    masks are Bernoulli and its counts drift. Their ``--death SET`` is another method: it keeps the f n / 2 most
    negative weights, where SET drops the f n / 2 negative ones nearest to zero.
    """

    title = "SET"
    paper = "Mocanu et al., Nature Communications 2018, arXiv 1707.04780"

    @dataclass(frozen=True)
    class Options(ReplaceOptions):
        """Options of SET."""

        drop_schedule: str = option("cosine", "how that fraction changes until `end`", choices=("cosine", "constant"))
        drop: str = option(
            "magnitude",
            "what drops: the smallest |θ| of all, or the same fraction of each sign",
            choices=("magnitude", "signs"),
        )
        also_step: bool = option(False, "do the weight step of an update's iteration too, before the update")

    options: Options

    @property
    def at_start(self) -> bool:
        """Updates that replace the weight step begin at step 0."""
        return self.in_place

    def update(self, ctx: Context, step: int) -> None:
        """Drop and grow in every layer."""
        options = self.options
        constant = options.drop_schedule == "constant"
        fraction = options.drop_fraction if constant else self.annealed(step, ctx.total_steps)
        updated = {}
        for name, active in ctx.masks.num_active().items():
            theta, mask, draw = ctx.weight(name), ctx.masks[name], drawn(ctx, name, "kept")
            if options.drop == "signs":
                kept = keep_of_each_sign(theta, mask, fraction, rounded(options.rounding), draw)
                replaced = active - int(kept.sum())
            else:
                replaced = self.replaced(fraction, active)
                kept = keep_largest(theta.abs(), mask, active - replaced, draw)
            updated[name] = grow_largest(random_scores(ctx, name), kept, replaced)
        ctx.set_masks(MaskSet(updated), "update")


def keep_of_each_sign(
    theta: Tensor,
    mask: Tensor,
    fraction: float,
    count: Callable[[float], int] = int,
    draw: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Drop the `fraction` nearest to zero among the positive and among the negative weights; return the others.

    Active weights of exactly zero, which have not moved since they grew, count as positive.
    """
    kept = torch.zeros_like(mask)
    for side in (mask & (theta >= 0), mask & (theta < 0)):
        number = int(side.sum())
        kept |= keep_largest(theta.abs(), side, number - count(fraction * number), draw)
    return kept
