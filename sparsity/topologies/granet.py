"""GraNet: gradual magnitude pruning, and at each pruning a drop and regrowth by gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.masking.schedules import cubic
from sparsity.masking.selection import top_k_of_all
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context

from .random import random_masks
from .snfs import annealed
from .updates import GradientSum, MaskUpdates, UpdateOptions, grow_largest, keep_largest


@register_topology("granet")
class GraNet(MaskUpdates):
    """Gradual pruning with neuroregeneration: from half dense, or dense, to the target in the first third of training.

    Liu et al., "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration" (NeurIPS 2021, arXiv
    2106.10404), and the authors' ImageNet code. After every ΔT-th weight step, in one update:

    * prune: of all layers together the largest |θ| stay, as many as the cubic ramp from `initial_sparsity` to the
      target between `ramp_start` and `ramp_end` says; what goes restarts at zero even if it grows again at once;
    * regenerate: each layer with n weights left drops its ceil(f · n) smallest |θ| and grows as many at the largest
      |dL/dθ| of this step outside the kept set. f falls from 0.5 to 0.005 by a cosine over all of training. A weight
      dropped here and regrown keeps value and moments; all other new ones start at zero.

    After the ramp only regeneration goes on, to the end of training. The ramp counts updates, as the authors' does:
    update i of those between start and end stands at (i − start) / (end − start).

    Deviations: the authors' ramp stops one update short of its end and so misses the target by (d_0 − d) / N³; here the
    update at its end is part of it, and counts are exact. Initial masks have exact counts a layer where theirs are
    Bernoulli. Published for batch 128 and ΔT = 4000: 30 of 100 epochs of ramp from density 0.5 (ERK).
    """

    title = "GraNet"
    paper = "Liu et al., NeurIPS 2021, arXiv 2106.10404"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of GraNet."""

        update_every: int = option(4000, "time between mask updates (ΔT), in `unit`", ge=1)
        initial_sparsity: float = option(0.5, "sparsity at the start; 0 starts dense", ge=0, lt=1)
        ramp_start: float = option(0.0, "share of training after which pruning begins", ge=0, lt=1)
        ramp_end: float = option(0.3, "share of training at which the target is reached", gt=0, le=1)
        drop_fraction: float = option(
            0.5, "share of a layer's weights regenerated, at the start of training", gt=0, le=1
        )
        final_drop_fraction: float = option(0.005, "that share at the end of training", ge=0, le=1)

        def __post_init__(self):
            """The ramp takes time."""
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
        """Pruning goes down."""
        if options.initial_sparsity > sparsity + 1e-9:
            raise OptionError(
                "initial_sparsity",
                f"{options.initial_sparsity:g} is out of range: must be <= the target, {sparsity:g}",
            )

    def check_run(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, total_steps: int) -> None:
        """There must be an update within the ramp, or nothing is ever pruned."""
        super().check_run(shapes, sparsity, total_steps)
        if sparsity > 0 and self._ramp(total_steps)[1] == 0:
            raise OptionError(
                "update_every",
                f"{self.options.update_every} steps are too long: the ramp ends after ramp_end = "
                f"{self.options.ramp_end:g} of {total_steps} steps, so granet would never prune",
            )

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Draw random masks of the initial sparsity, if there is one."""
        self._check_units()
        if ctx.sparsity == 0:
            return None
        start = self.options.initial_sparsity
        return None if start == 0 else random_masks(ctx, self.options, start)

    def look(self, ctx: Context, now: int, due: bool) -> None:
        """Keep this step's gradients: the engine masks them before the update."""
        if due:
            self._gradient.add(ctx)

    def update(self, ctx: Context, now: int) -> None:
        """Prune all layers together, then drop and grow in each."""
        pruned = self._pruned(ctx, now)
        fraction = annealed(self.options.drop_fraction, self.options.final_drop_fraction, now, ctx.total_steps)
        updated, restart = {}, {}
        for name, left in pruned.num_active().items():
            replaced = math.ceil(fraction * left - 1e-6)
            kept = keep_largest(ctx.weight(name).abs(), pruned[name], left - replaced)
            updated[name] = grow_largest(self._gradient[name].abs(), kept, replaced)
            restart[name] = updated[name] & ~pruned[name]
        self._gradient.clear()
        ctx.set_masks(MaskSet(updated), "update", restart=restart)

    def _pruned(self, ctx: Context, now: int) -> MaskSet:
        budget, masks = self.budget(ctx.shapes, ctx.sparsity, now, ctx.total_steps), ctx.masks
        scores: dict[str, Tensor] = {}
        for name in self.options.inner(ctx.shapes):
            scores[name] = ctx.weight(name).abs().masked_fill(~masks[name], -1.0)
        kept = masks.num_active()
        if budget >= sum(kept[name] for name in scores):
            return masks
        return MaskSet({**masks, **top_k_of_all(scores, budget)})

    def budget(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, now: int, total_steps: int) -> int:
        """Number of weights that the layers not left dense keep together at a time."""
        final = self.options.inner_active(shapes, sparsity)
        counts = self.options.num_active(shapes, self.options.initial_sparsity)
        first = sum(counts[name] for name in self.options.inner(shapes))
        start, end = self._ramp(total_steps)
        share = (now // self.options.update_every - start) / (end - start) if end > start else 1.0
        return final + max(0, math.floor((first - final) * (1 - cubic(share)) + 1e-6))

    def _ramp(self, total_steps: int) -> tuple[int, int]:
        """First and last update of the ramp."""
        every = self.options.update_every
        last = min(self.options.ramp_end * total_steps, total_steps - 1)
        return int(self.options.ramp_start * total_steps / every), int(last / every)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The target over all layers together, and the dense layers."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        inner = self.options.inner(shapes)
        return sum(sizes.values()) - sum(inner.values()) + self.options.inner_active(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The draw, unless it starts dense, and one update every ΔT steps from the beginning of the ramp."""
        if sparsity == 0:
            return {}
        updates = (total_steps - 1) // self.options.update_every - self._first(total_steps) + 1
        return {"initial": int(self.options.initial_sparsity > 0), "update": max(0, updates)}

    def _first(self, total_steps: int) -> int:
        """The first update: none at step 0."""
        return max(1, self._ramp(total_steps)[0])

    def _due(self, now: int, total_steps: int) -> bool:
        started = now // self.options.update_every >= self._first(total_steps)
        return started and super()._due(now, total_steps)
