"""RiGL: drop the smallest weights and grow where the gradient is largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparsity.dynamic import GradientSum, drawn, grow_largest, keep_largest
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.replacement import Replacement, ReplaceOptions
from sparsity.topology import Context


@register_topology("rigl")
class RiGL(Replacement):
    """Sparse training at a fixed density in which weights grow where the dense gradient is largest.

    Evci et al., "Rigging the Lottery: Making All Tickets Winners" (ICML 2020, arXiv 1911.11134), algorithm 1, and the
    authors' `SparseRigLOptimizer`. Every ΔT steps, up to and including T_end and first at step 0, in each layer with n
    active weights, k = floor(f(t) · n), f(t) = a/2 · (1 + cos(π t / T_end)):

    * keep the n − k largest |θ| among the active;
    * grow the k largest |dL/dθ| among *all* positions outside the kept set, just-dropped ones included;
    * a weight that was pruned before starts at zero with fresh moments; one that was dropped and regrown keeps value
      and moments.

    The update replaces the weight step of that iteration. Gradients are dense and of one minibatch (already
    averaged over ranks under DDP). ΔT = 100 is published for batch 4096: ``update_every: 100, batch_reference: 4096``
    makes as many updates per epoch at any batch size.

    Deviation: no tie-breaking noise N(0, 1e-5) on the drop score, which in the authors' code also causes a pruned
    position to be kept now and then. Equal magnitudes (a head that is initialised at zero) and equal gradients (a
    branch that is) are drawn with the mask's seed, the same on every rank and device, and the event says how many;
    the authors' code would grow the lowest indices.
    T_end is 25k of 32k steps in the authors' configuration, about 3/4 in the paper, and 0.75 here.

    Variants of later code. ``average: 8``: growth reads the mean gradient of the last 8 backward passes, that of the
    update included (calgaryml/condensed-sparsity at batch 512 and ΔT = 800, where the first update follows ΔT passes,
    ``at_start: false``; its sum is never cleared if that number is ΔT); fewer if there were fewer. ``also_step``: the
    weight step of that iteration is done, with the old masks, and the update follows it with the gradients of that
    step, first after ΔT steps. Liu et al. ("Do We Actually Need Dense Over-Parameterization?", ICML 2021, arXiv
    2102.02887) is ``also_step: true, drop_fraction: 0.5, final_drop_fraction: 0.005, rounding: ceil, end: 1.0``; their
    code also updates once more after the last step if that is a multiple of ΔT. Under Adam they clear no moments of
    what grows, so that a weight inherits those of dense gradients; here all moments restart (290 of 5,696 mask entries
    after 11 updates).
    """

    title = "RiGL"
    paper = "Evci et al., ICML 2020, arXiv 1911.11134"

    @dataclass(frozen=True)
    class Options(ReplaceOptions):
        """Options of RiGL."""

        average: int = option(1, "backward passes whose mean gradient decides where to grow", ge=1, neutral=1)
        also_step: bool = option(
            False, "do the weight step of an update's iteration too, before the update", neutral=False
        )
        at_start: bool = option(True, "whether the first update is at step 0; never with also_step", neutral=True)

        def __post_init__(self):
            """Refuse to average over more passes than there are between two updates."""
            super().__post_init__()
            if self.unit == "step" and self.batch_reference is None and self.average > self.update_every:
                raise OptionError("average", f"{self.average} is out of range: must be <= update_every")

    options: Options
    state = ("_gradient",)

    def __init__(self, options: Options):
        super().__init__(options)
        self._gradient = GradientSum()

    @property
    def at_start(self) -> bool:
        """By default the first update is at step 0."""
        return self.options.at_start and not self.options.also_step

    def accumulate_gradients(self, ctx: Context, step: int, is_update: bool) -> None:
        """Keep gradients that a later update needs; an update in place reads those of its own step itself."""
        if self.options.average == 1 and self.in_place:
            return
        until = self.options.update_every - step % self.options.update_every
        if is_update or (until < self.options.average and step + until <= self.last_update(ctx.total_steps)):
            self._gradient.add(ctx)

    def update(self, ctx: Context, step: int) -> None:
        """Drop and grow in every layer."""
        fraction = self.annealed(step, ctx.total_steps)
        updated = {}
        for name, active in ctx.masks.num_active().items():
            gradient = self._gradient[name] if name in self._gradient else ctx.grad(name)
            replaced = self.replaced(fraction, active)
            updated[name] = drop_and_grow(
                *(ctx.weight(name), gradient, ctx.masks[name], active, replaced),
                *(drawn(ctx, name, "kept"), drawn(ctx, name)),
            )
        self._gradient.clear()
        ctx.set_masks(MaskSet(updated), "update")


def drop_and_grow(
    theta: Tensor,
    grad: Tensor,
    mask: Tensor,
    active: int,
    replaced: int,
    draw_kept: Callable[[int], Tensor] | None = None,
    draw_grown: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Compute the new mask of one layer.

    ::

        theta   .5  -.1   .3   0    0    0        mask  1 1 1 0 0 0,  k = 1 replaced
        |grad|   -   .4    -   .2   .9   .1
        keep    .5        .3                      -.1 is the smallest of the active and drops
        grow                       new            .9 is the largest outside the kept set (-.1's own .4 competes)

    Args:
        theta: Weights, zero where the mask is False.
        grad: Dense gradient, same shape.
        mask: Current mask, same shape.
        active: Number of True in the mask.
        replaced: Number of active weights to replace (k).
        draw_kept: Decides among equal magnitudes, see `keep_largest`.
        draw_grown: Decides among equal gradients.
    """
    kept = keep_largest(theta.abs(), mask, active - replaced, draw_kept)
    return grow_largest(grad.abs(), kept, replaced, draw_grown)
