"""MEST: replace a small and decreasing fraction of each layer's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.dynamic import (
    MaskUpdates,
    UpdateOptions,
    drawn,
    floor_count,
    grow_largest,
    keep_largest,
    random_masks,
    random_scores,
)
from sparsity.masking.distributions import NAMES
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context


@register_topology("mest")
class MEST(MaskUpdates):
    """Memory-economic sparse training with elastic mutation needs neither dense gradients nor dense weights.

    Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge" (NeurIPS 2021, arXiv
    2110.14032), and the authors' released CIFAR code. After every fifth epoch each layer drops the weights with the
    smallest |θ| + λ |dL/dθ|, a fraction p of *all* its weights, p = 2 % at first, 1 % later, then 0, and grows as many
    at positions drawn uniformly from all that are pruned then, just-dropped ones included. All weights that grow start
    at zero. p is halved after 90 of 160 epochs and is 0 after 120.

    ``soft_bound`` is EM&S: the density exceeds that of the target by p between updates. Weights grow before others
    drop: masks start at density 1 − s + p, each update keeps the best 1 − s and grows p anew, and the last one grows
    nothing. As in the released scripts, p is an example: there EM&S also runs with 5 %, 2.5 %, 0.

    λ is not stated in anything reachable, *unverified*: the scripts leave it at 0, which is the default here, and their
    code has cleared the gradient before it could matter. With λ > 0 the gradient is that of the step before the update.
    The ImageNet settings are not released: *unverified* too.

    Deviations: where layer densities differ, a layer's p is scaled by its density, so that it mutates the same fraction
    of its active weights; with ``uniform``, which is the authors', that is p itself. Full layers mutate nothing. There
    is no update before the first step, and masks start random, whereas the code starts from the largest initial
    weights. The momentum of a weight that drops restarts; in theirs it runs on, and a weight that comes back has what
    is left of it (with 6 steps between updates weights end 3 to 7 % apart; with the published 5 epochs nothing is left
    but for what comes back at once). At its last stage their code removes weights that are exactly zero, such as those
    that grew behind a dead unit, and so ends below its density (796 weights of 819); here they stay.
    """

    title = "MEST"
    paper = "Yuan et al., NeurIPS 2021, arXiv 2110.14032"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of MEST."""

        allocation: str = option("uniform", "how the density is distributed over layers", choices=NAMES)
        update_every: int = option(5, "time between mask updates (ΔT), in `unit`", ge=1)
        unit: str = option("epoch", "what update_every counts", choices=("step", "epoch"))
        mutation: float = option(0.02, "fraction of all weights of a layer that an update replaces (p)", gt=0, lt=1)
        halve: float = option(0.5625, "fraction of training after which p is half of that", ge=0, le=1)
        end: float = option(0.75, "fraction of training after which p is 0", gt=0, le=1)
        gradient_weight: float = option(0.0, "λ of the score |θ| + λ |dL/dθ| that says what drops", ge=0)
        soft_bound: bool = option(False, "exceed the target density by p between updates (EM&S)")

    options: Options
    replaces_by = "mutation"

    def __init__(self, options: Options):
        super().__init__(options)
        self._gradients: dict[str, Tensor] = {}

    @classmethod
    def check(cls, options: Options, sparsity: float) -> None:
        """Require that some weights remain."""
        if options.mutation >= 1 - sparsity - 1e-9:
            raise OptionError(
                "mutation", f"{options.mutation:g} is out of range: must be < the density, {1 - sparsity:g}"
            )

    def initial_masks(self, ctx: Context) -> MaskSet:
        """Draw random masks; under the soft bound also the weights of the first mutation."""
        self._check_units()
        masks = random_masks(ctx, self.options)
        if not self.options.soft_bound or ctx.sparsity == 0 or self.closing(ctx.total_steps) == 0:
            return masks
        bound = self.options.num_active(ctx.shapes, ctx.sparsity)
        return self._grown(ctx, masks, {name: self.mutated(ctx, name, active, 0) for name, active in bound.items()})

    def most_replaced(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return how many weights an update replaces at most in one layer."""
        counts = self.options.num_active(shapes, sparsity)
        share = self.options.mutation / (1 - sparsity)
        return max(min(floor_count(share * n), math.prod(shapes[name]) - n) for name, n in counts.items())

    def closing(self, total_steps: int) -> int:
        """Return the step of the first update at which p is 0, or of the last update if there is none."""
        every = self.options.update_every
        return every * min(math.ceil(self.options.end * total_steps / every), (total_steps - 1) // every)

    def last_update(self, total_steps: int) -> int:
        """Return the last update that grows weights, or under the soft bound the next one, which only drops."""
        closing = self.closing(total_steps)
        return closing if self.options.soft_bound else closing - 1

    def mutated(self, ctx: Context, name: str, active: int, step: int) -> int:
        """Count the weights that a layer of `active` weights replaces at a step."""
        total = ctx.total_steps
        if step >= self.closing(total):
            return 0
        fraction = self.options.mutation * (0.5 if step >= self.options.halve * total else 1.0)
        return min(floor_count(fraction / (1 - ctx.sparsity) * active), math.prod(ctx.shapes[name]) - active)

    def accumulate_gradients(self, ctx: Context, step: int, is_update: bool) -> None:
        """Keep |dL/dθ| of the active weights for an update that needs it."""
        if is_update and self.options.gradient_weight > 0:
            self._gradients = {name: ctx.active_grad(name).abs() for name in ctx.shapes}

    def update(self, ctx: Context, step: int) -> None:
        """Drop in every layer, then grow."""
        bound = self.options.num_active(ctx.shapes, ctx.sparsity)
        numbers = {name: self.mutated(ctx, name, active, step) for name, active in bound.items()}
        survivors = {}
        for name, active in bound.items():
            score = ctx.weight(name).abs()
            if name in self._gradients:
                score = score + self.options.gradient_weight * self._gradients[name]
            left = active if self.options.soft_bound else active - numbers[name]
            survivors[name] = keep_largest(score, ctx.masks[name], left, drawn(ctx, name, "kept"))
        self._gradients = {}
        grown = self._grown(ctx, MaskSet(survivors), numbers)
        restart = {name: mask & ~survivors[name] for name, mask in grown.items()}
        ctx.set_masks(grown, "update", restart=restart)

    def _grown(self, ctx: Context, masks: MaskSet, numbers: Mapping[str, int]) -> MaskSet:
        scores = {name: random_scores(ctx, name).to(mask.device) for name, mask in masks.items()}
        return MaskSet({name: grow_largest(scores[name], mask, numbers[name]) for name, mask in masks.items()})
