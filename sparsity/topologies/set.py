"""SET: drop the smallest weights, grow at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsity.masking.schedules import cosine_fraction
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context

from .updates import MaskUpdates, UpdateOptions, grow_largest, keep_largest


@register_topology("set")
class SET(MaskUpdates):
    """Sparse evolutionary training: like RiGL, but no gradient is needed to grow.

    Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
    network science" (Nature Communications 2018, arXiv 1707.04780), in the form of Evci et al. (RiGL's
    `SparseSETOptimizer`), whose ImageNet figures are the ones quoted: in each layer with n active weights,
    k = floor(f(t) · n), the k smallest |θ| drop and k positions grow, drawn uniformly from all outside the kept set,
    just-dropped ones included. A weight that was inactive starts at zero; one that was dropped and regrown keeps its
    value. Updates every ΔT steps in place of the weight step, first at step 0, f as in RiGL.

    The original is ``unit: epoch, update_every: 1, also_step: true, drop_schedule: constant, end: 1.0, drop: signs``:
    of positive weights the smallest share f drops, and of the negative ones as large a share. It gives new weights
    random values; here they are zero. Draws are pure functions of seed, step and layer, on the CPU, so all ranks and
    devices grow the same.
    """

    title = "SET"
    paper = "Mocanu et al., Nature Communications 2018, arXiv 1707.04780"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of SET."""

        drop_fraction: float = option(0.3, "share of a layer's active weights replaced at the first update", gt=0, le=1)
        drop_schedule: str = option("cosine", "how that share changes until `end`", choices=("cosine", "constant"))
        end: float = option(0.75, "share of training after which the mask is fixed", gt=0, le=1)
        drop: str = option(
            "magnitude",
            "what drops: the smallest |θ|, or as large a share of each sign",
            choices=("magnitude", "signs"),
        )
        also_step: bool = option(False, "do the weight step of an update's iteration too, before the update")

    options: Options

    @property
    def in_place(self) -> bool:
        """The update stands in place of the weight step, by default."""
        return not self.options.also_step

    @property
    def at_start(self) -> bool:
        """In place, the first update is at step 0."""
        return self.in_place

    def last_update(self, total_steps: int) -> int:
        """The end of updates."""
        return min(int(self.options.end * total_steps), total_steps - 1)

    def update(self, ctx: Context, now: int) -> None:
        """Drop and grow in every layer."""
        fraction = self.options.drop_fraction
        if self.options.drop_schedule == "cosine":
            fraction = cosine_fraction(fraction, now, int(self.options.end * ctx.total_steps))
        updated = {}
        for name, active in ctx.masks.num_active().items():
            theta, mask = ctx.weight(name), ctx.masks[name]
            signed = self.options.drop == "signs"
            kept = keep_of_each_sign(theta, mask, fraction) if signed else None
            replaced = active - int(kept.sum()) if kept is not None else int(fraction * active)
            if kept is None:
                kept = keep_largest(theta.abs(), mask, active - replaced)
            updated[name] = grow_largest(random_scores(ctx, name), kept, replaced)
        ctx.set_masks(MaskSet(updated), "update")


def random_scores(ctx: Context, name: str) -> Tensor:
    """Scores in [0, 1) for growth at random: a pure function of seed, step and layer, on every rank and device."""
    scores = torch.rand(ctx.shapes[name], generator=ctx.generator(f"grow {name}"))
    return scores.to(ctx.masks[name].device)


def keep_of_each_sign(theta: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """What stays if the share `fraction` that is nearest to zero drops among the positive and among the negative.

    Active weights of exactly zero, which never moved since they grew, count as positive.
    """
    kept = torch.zeros_like(mask)
    for side in (mask & (theta >= 0), mask & (theta < 0)):
        number = int(side.sum())
        kept |= keep_largest(theta.abs(), side, number - int(fraction * number))
    return kept
