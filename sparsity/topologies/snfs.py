"""SNFS (sparse momentum): the momentum of dense gradients decides where to grow and how much in each layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsity.dynamic import (
    GradientSum,
    MaskUpdates,
    UpdateOptions,
    annealed_fraction,
    ceil_count,
    drawn,
    grow_largest,
    keep_largest,
    share_out,
)
from sparsity.masking.distributions import NAMES
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context


@register_topology("snfs")
class SNFS(MaskUpdates):
    """Sparse training at a fixed total density that is redistributed over layers.

    Dettmers & Zettlemoyer, "Sparse Networks from Scratch: Faster Training without Losing Performance" (2019, arXiv
    1907.04840), and the authors' `sparselearning`. After each epoch but the last, with f(t) from 0.5 to 0.005 by a
    cosine over all of training and the momentum v ← μ v + g of *dense* gradients:

    * each layer with n active weights drops its ceil(f · n) smallest |θ|; a layer of less than 20 % sparsity that would
      grow drops no larger fraction than its sparsity;
    * the R weights dropped in all layers are distributed in proportion to a layer's mean |v| over its active weights
      (before dropping), normalised over layers. What does not fit goes in equal parts to the layers with room;
    * each layer grows its number at the largest |v| outside the kept set, just-dropped ones included, at zero; a weight
      that was dropped and regrown keeps value and moments.

    v is the method's own buffer, one copy of the weights: the optimizer's momentum is zero for pruned weights. Under
    SGD with momentum a weight that grows moves on from v, since the authors mask weights and never the optimizer's
    momentum: in its first step it goes three to five times as far as one that starts without
    (``grown_momentum: restart``). The dense gradient is needed, and counted as cost, at every step: 2 f_S + f_D.

    Deviations: the total is exact, since fractions are rounded by the largest remainder, whereas the authors round each
    layer and correct the total by smoothed residuals at later updates; a layer may become full, whereas they stop at
    99 %; v is that of plain SGD under every optimizer and contains no weight decay and no clipping, whereas they use
    Adam's m / √v, and a grown weight inherits Adam's moments; here it restarts.
    Ties are drawn with the mask's seed, such as growth where v is zero, whereas theirs go by index.
    Layers start with equal densities (``uniform``), as theirs do; the RigL paper's figures are with ``erk``.
    """

    title = "SNFS"
    paper = "Dettmers & Zettlemoyer, 2019, arXiv 1907.04840"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of SNFS."""

        allocation: str = option("uniform", "how the density is distributed over layers at the start", choices=NAMES)
        update_every: int = option(1, "time between mask updates (ΔT), in `unit`", ge=1)
        unit: str = option("epoch", "what update_every counts", choices=("step", "epoch"))
        drop_fraction: float = option(
            0.5, "fraction of a layer's active weights dropped, at the start of training", gt=0, le=1
        )
        final_drop_fraction: float = option(0.005, "that fraction at the end of training", ge=0, le=1)
        grown_momentum: str = option(
            "dense",
            "SGD's momentum of a weight that grows: v, as the authors', or none (restart)",
            choices=("dense", "restart"),
            neutral="restart",
        )
        momentum: float = option(0.9, "decay per step of the momentum of dense gradients (μ)", ge=0, lt=1)

    options: Options
    state = ("_momentum",)

    def __init__(self, options: Options):
        super().__init__(options)
        self._momentum = GradientSum()

    def accumulate_gradients(self, ctx: Context, step: int, is_update: bool) -> None:
        """Add every gradient to the momentum."""
        self._momentum.add(ctx, decay=self.options.momentum)

    def update(self, ctx: Context, step: int) -> None:
        """Drop in every layer, distribute the dropped number over layers, grow."""
        active = ctx.masks.num_active()
        sizes = {name: ctx.masks[name].numel() for name in ctx.prunable}
        shares = self._shares(ctx, active, list(sizes))
        fraction = annealed_fraction(
            self.options.drop_fraction, self.options.final_drop_fraction, step, ctx.total_steps
        )
        dropped = {}
        for name, size in sizes.items():
            rate, zeros = fraction, 1 - active[name] / size
            if zeros < 0.2 and shares[name] > 1 / len(sizes):
                rate = min(rate, zeros)
            dropped[name] = ceil_count(rate * active[name])
        left = {name: active[name] - dropped[name] for name in sizes}
        grown = share_out(
            sum(dropped.values()), list(shares.values()), [size - left[name] for name, size in sizes.items()]
        )
        updated = {}
        for name, number in zip(sizes, grown, strict=True):
            kept = keep_largest(ctx.weight(name).abs(), ctx.masks[name], left[name], drawn(ctx, name, "kept"))
            updated[name] = grow_largest(self._momentum[name].abs(), kept, number, drawn(ctx, name))
        momentum = {name: self._momentum[name] for name in updated} if self.options.grown_momentum == "dense" else None
        ctx.set_masks(MaskSet(updated), "update", momentum=momentum)

    def _shares(self, ctx: Context, active: dict[str, int], names: list[str]) -> dict[str, float]:
        """Return the fraction of the dropped weights that each layer grows; they sum to 1."""
        sums = [(self._momentum[name].abs() * ctx.masks[name]).sum() for name in names]
        numbers = zip(torch.stack(sums).tolist(), names, strict=True)
        means = {name: total / active[name] if active[name] else 0.0 for total, name in numbers}
        total = sum(means.values())
        return {name: mean / total if total > 0 else 1 / len(means) for name, mean in means.items()}
