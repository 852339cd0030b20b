"""GraNet: gradual magnitude pruning, with a drop and regrowth by gradient at each update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.dynamic import (
    GradientSum,
    MaskUpdates,
    UpdateOptions,
    annealed_fraction,
    ceil_count,
    cubic,
    drawn,
    floor_count,
    grow_largest,
    keep_largest,
    random_masks,
    top_k_of_all,
)
from sparsity.masking.draws import drawn_of_all
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context


@register_topology("granet")
class GraNet(MaskUpdates):
    """Gradual pruning with neuroregeneration, from density 0.5, or dense, to the target in the first third of training.

    Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration" (NeurIPS 2021, arXiv
    2106.10404), and the authors' ImageNet code. After every ΔT-th weight step, in one update:

    * prune: the largest |θ| of all layers together stay active, their number given by a cubic ramp from
      `initial_sparsity` to the target between `ramp_start` and `ramp_end`; a pruned weight restarts at zero even if it
      grows again in the same update;
    * regenerate: each layer with n active weights left drops its ceil(f · n) smallest |θ| and grows as many at the
      largest |dL/dθ| of this step outside the kept set. f falls from 0.5 to 0.005 by a cosine over all of training. A
      weight dropped here and regrown keeps value and moments; all other new ones start at zero.

    After the ramp only regeneration continues, until the end of training. The ramp counts updates, as the authors'
    does: update i of those between start and end is at (i − start) / (end − start) of the ramp, both rounded down to
    whole updates; the first update is the first one that is not before `ramp_start`.

    Deviations: the authors' ramp stops one update short of its end and so misses the target by (d_0 − d) / N³; here the
    update at its end is part of it, and counts are exact (theirs ends with 587 weights where 569.6 are the target).
    Theirs updates once more after the last step if that is a multiple of ΔT. Under Adam they clear no moments of what
    grows, so that it inherits those of dense gradients; here all moments restart. Initial masks have exact counts per
    layer, whereas theirs are Bernoulli. Ties are drawn with the mask's seed, such as growth where gradients are zero,
    whereas theirs go by index. Published for batch 128 and ΔT = 4000: 30 of 100 epochs of ramp from density 0.5 (ERK).
    """

    title = "GraNet"
    paper = "Liu et al., NeurIPS 2021, arXiv 2106.10404"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of GraNet."""

        update_every: int = option(4000, "time between mask updates (ΔT), in `unit`", ge=1)
        initial_sparsity: float = option(0.5, "sparsity at the start; 0 starts dense", ge=0, lt=1)
        ramp_start: float = option(0.0, "fraction of training after which pruning begins", ge=0, lt=1)
        ramp_end: float = option(0.3, "fraction of training at which the target is reached", gt=0, le=1)
        drop_fraction: float = option(
            0.5, "fraction of a layer's weights regenerated, at the start of training", gt=0, le=1
        )
        final_drop_fraction: float = option(0.005, "that fraction at the end of training", ge=0, le=1)

        def __post_init__(self):
            """Require a ramp of positive length."""
            super().__post_init__()
            if self.ramp_end <= self.ramp_start:
                raise OptionError(
                    "ramp_end", f"{self.ramp_end:g} is out of range: must be > ramp_start, {self.ramp_start:g}"
                )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._gradient = GradientSum()

    @classmethod
    def check(cls, options: Options, sparsity: float) -> None:
        """Require an initial density of at least the target's."""
        if options.initial_sparsity > sparsity + 1e-9:
            raise OptionError(
                "initial_sparsity",
                f"{options.initial_sparsity:g} is out of range: must be <= the target, {sparsity:g}",
            )

    def check_run(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, total_steps: int) -> None:
        """There must be an update within the ramp, or nothing is ever pruned."""
        if sparsity > 0 and self._ramp(total_steps)[1] == 0:
            raise OptionError(
                "update_every",
                f"{self.options.update_every} steps are too long: the ramp ends after ramp_end = "
                f"{self.options.ramp_end:g} of {total_steps} steps, so granet would never prune",
            )
        super().check_run(shapes, sparsity, total_steps)

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Draw random masks of the initial sparsity, if there is one."""
        self._check_units()
        if ctx.sparsity == 0:
            return None
        start = self.options.initial_sparsity
        return None if start == 0 else random_masks(ctx, self.options, start)

    def accumulate_gradients(self, ctx: Context, step: int, is_update: bool) -> None:
        """Keep this step's gradients if an update follows."""
        if is_update:
            self._gradient.add(ctx)

    def update(self, ctx: Context, step: int) -> None:
        """Prune all layers together, then drop and grow in each."""
        pruned = self._pruned(ctx, step)
        fraction = annealed_fraction(
            self.options.drop_fraction, self.options.final_drop_fraction, step, ctx.total_steps
        )
        updated, restart = {}, {}
        for name, left in pruned.num_active().items():
            replaced = ceil_count(fraction * left)
            kept = keep_largest(ctx.weight(name).abs(), pruned[name], left - replaced, drawn(ctx, name, "kept"))
            updated[name] = grow_largest(self._gradient[name].abs(), kept, replaced, drawn(ctx, name))
            restart[name] = updated[name] & ~pruned[name]
        self._gradient.clear()
        ctx.set_masks(MaskSet(updated), "update", restart=restart)

    def _pruned(self, ctx: Context, step: int) -> MaskSet:
        budget, masks = self.budget(ctx.shapes, ctx.sparsity, step, ctx.total_steps), ctx.masks
        scores: dict[str, Tensor] = {}
        for name in ctx.prunable:
            scores[name] = ctx.weight(name).abs().masked_fill(~masks[name], -1.0)
        active = masks.num_active()
        if budget >= sum(active[name] for name in scores):
            return masks
        return MaskSet({**masks, **top_k_of_all(scores, budget, drawn_of_all(ctx, scores))})

    def budget(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, step: int, total_steps: int) -> int:
        """Count the active weights, at a step, of the layers that are not left dense."""
        final = self.options.inner_active(shapes, sparsity)
        counts = self.options.num_active(shapes, self.options.initial_sparsity)
        first = sum(counts[name] for name in self.options.inner(shapes))
        start, end = self._ramp(total_steps)
        progress = (step // self.options.update_every - start) / (end - start) if end > start else 1.0
        return final + max(0, floor_count((first - final) * (1 - cubic(progress))))

    def _ramp(self, total_steps: int) -> tuple[int, int]:
        """Return the first and the last update of the ramp, as numbers of updates."""
        every = self.options.update_every
        last = min(self.options.ramp_end * total_steps, total_steps - 1)
        return int(self.options.ramp_start * total_steps / every), int(last / every)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the target's count over all layers."""
        return self.options.all_active(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the draw, unless training starts dense, and one update every ΔT steps from the start of the ramp."""
        if sparsity == 0:
            return {}
        updates = (total_steps - 1) // self.options.update_every - self._first(total_steps) + 1
        return {"initial": int(self.options.initial_sparsity > 0), "update": max(0, updates)}

    def _first(self, total_steps: int) -> int:
        """Return the number of the first update, which is never at step 0."""
        return max(1, ceil_count(self.options.ramp_start * total_steps / self.options.update_every))

    def is_update(self, step: int, total_steps: int) -> bool:
        """Whether masks are updated at a step: not before the ramp."""
        started = step // self.options.update_every >= self._first(total_steps)
        return started and super().is_update(step, total_steps)
