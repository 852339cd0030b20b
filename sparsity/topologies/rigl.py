"""RiGL: drop the smallest weights, grow where the gradient is largest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..distributions import NAMES
from ..masks import MaskSet
from ..options import option
from ..registry import register_topology
from ..schedules import cosine_fraction
from ..selection import top_k
from ..topology import Context, Topology
from .random import distribution_total, random_masks


@register_topology("rigl")
class RiGL(Topology):
    """Sparse training at a fixed density whose mask follows the dense gradient.

    Evci et al., "Rigging the Lottery: Making All Tickets Winners" (ICML 2020, arXiv 1911.11134), algorithm 1, and the
    authors' `SparseRigLOptimizer`. Every ΔT steps, up to and including T_end and first at step 0, in each layer with n
    active weights, k = floor(f(t) · n), f(t) = a/2 · (1 + cos(π t / T_end)):

    * keep the n − k largest |θ| among the active;
    * grow the k largest |dL/dθ| among *all* positions outside the kept set, just-dropped ones included;
    * a weight that was inactive starts at zero with fresh moments; one that was dropped and regrown keeps both.

    The update stands in place of the weight step of that iteration. Gradients are dense and of one minibatch (already
    averaged over ranks under DDP). ΔT = 100 is published for batch 4096.

    Deviation: no tie-breaking noise N(0, 1e-5) on the drop score, which in the authors' code also lets an inactive
    position be kept now and then; ties go to the lowest index instead, the same on every rank and device.
    T_end is 25k of 32k steps in the authors' configuration, about 3/4 in the paper, and 0.75 here.
    """

    title = "RiGL"
    family = "DST"
    paper = "Evci et al., ICML 2020, arXiv 1911.11134"
    regrows = True

    @dataclass(frozen=True)
    class Options:
        """Options of RiGL."""

        update_every: int = option(100, "steps between mask updates (ΔT)", ge=1)
        fraction: float = option(0.3, "share of a layer's active weights replaced at the first update (a)", gt=0, le=1)
        end: float = option(0.75, "share of training after which the mask is fixed (T_end)", gt=0, le=1)
        distribution: str = option("erk", "how the density is shared among layers", choices=NAMES)

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._last = -1

    def initial_masks(self, ctx: Context) -> MaskSet:
        """The random mask that random pruning of this seed has."""
        return random_masks(ctx, self.options.distribution)

    def after_backward(self, ctx: Context) -> bool:
        """Update the masks where due; the weight step is left out then."""
        end, every = int(self.options.end * ctx.total_steps), self.options.update_every
        # an update that a non-finite step has put off does not put off the next one
        if ctx.sparsity == 0 or ctx.steps_done > end or ctx.steps_done // every == self._last // every:
            return True
        self._last = ctx.steps_done
        fraction = cosine_fraction(self.options.fraction, ctx.steps_done, end)
        updated = {
            name: drop_and_grow(ctx.weight(name), ctx.grad(name), mask, kept, fraction)
            for (name, mask), kept in zip(ctx.masks.items(), ctx.masks.kept().values(), strict=True)
        }
        ctx.set_masks(MaskSet(updated), "update")
        return False

    def expected_kept(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The number of weights never changes."""
        return distribution_total(self.options.distribution, shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The draw and one update every ΔT steps."""
        if sparsity == 0:
            return {}
        last = min(int(self.options.end * total_steps), total_steps - 1)
        return {"initial": 1, "update": last // self.options.update_every + 1}

    def state_dict(self) -> dict[str, int]:
        """Step of the last update."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Undo `state_dict`."""
        self._last = state["last"]


def drop_and_grow(theta: Tensor, grad: Tensor, mask: Tensor, active: int, fraction: float) -> Tensor:
    """One layer's new mask.

    ::

        theta   .5  -.1   .3   0    0    0        mask  1 1 1 0 0 0,  fraction 1/3, so k = 1
        |grad|   -   .4    -   .2   .9   .1
        keep    .5        .3                      -.1 is the smallest of the active and drops
        grow                       new            .9 is the largest outside the kept set (-.1's own .4 competes)

    Args:
        theta: Weights, zero where the mask is False.
        grad: Dense gradient, same shape.
        mask: Current mask, same shape.
        active: Number of True in the mask.
        fraction: Share of the active weights to replace, in [0, 1].
    """
    replaced = int(fraction * active)
    # |theta| >= 0 > -1: an inactive position is never kept before an active one, even one that is exactly zero
    kept = top_k(theta.abs().masked_fill(~mask, -1.0), active - replaced)
    return kept | top_k(grad.abs().masked_fill(kept, -1.0), replaced)
