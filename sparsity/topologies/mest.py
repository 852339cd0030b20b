"""MEST: mutate a little of each layer, less and less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.masking.distributions import NAMES
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context

from .random import random_masks
from .set import random_scores
from .updates import MaskUpdates, UpdateOptions, grow_largest, keep_largest


@register_topology("mest")
class MEST(MaskUpdates):
    """Memory-economic sparse training with elastic mutation: no dense gradient, no dense weights.

    Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge" (NeurIPS 2021, arXiv
    2110.14032), and the authors' released CIFAR code. After every fifth epoch each layer drops the share p of *all* its
    weights, p = 2 % at first, 1 % later, then 0, by the smallest |θ| + λ |dL/dθ|, and grows as many at positions drawn
    uniformly from all that do not exist then, just-dropped ones included. All that grow start at zero. p halves after
    90 of 160 epochs and ends after 120.

    ``soft_bound`` is EM&S: the network holds p more than its density between updates. It grows before it drops: masks
    start at density 1 − s + p, each update keeps the best 1 − s of them and grows p anew, and the last one grows
    nothing. As in the released scripts, p is an example: there EM&S also runs with 5 %, 2.5 %, 0.

    λ is not stated in anything reachable, *unverified*: the scripts leave it at 0, which is the default, and their code
    has cleared the gradient by the time it could count. With λ > 0 the gradient is that of the step before the update.
    The ImageNet settings are not released: *unverified* too.

    Deviations: where layer densities differ, a layer's p is scaled by its density, so that it mutates the same share of
    its weights; with ``uniform``, which is the authors', that is p itself. Full layers mutate nothing. No update before
    the first step, and masks start random where the code starts from the largest initial weights.
    """

    title = "MEST"
    paper = "Yuan et al., NeurIPS 2021, arXiv 2110.14032"

    @dataclass(frozen=True)
    class Options(UpdateOptions):
        """Options of MEST."""

        allocation: str = option("uniform", "how the density is shared among layers", choices=NAMES)
        update_every: int = option(5, "time between mask updates (ΔT), in `unit`", ge=1)
        unit: str = option("epoch", "what update_every counts", choices=("step", "epoch"))
        mutation: float = option(0.02, "share of all weights of a layer that an update replaces (p)", gt=0, lt=1)
        halve: float = option(0.5625, "share of training after which p is half of that", ge=0, le=1)
        end: float = option(0.75, "share of training after which p is 0", gt=0, le=1)
        gradient_weight: float = option(0.0, "λ of the score |θ| + λ |dL/dθ| that says what drops", ge=0)
        soft_bound: bool = option(False, "hold p more weights between updates (EM&S)")

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._gradients: dict[str, Tensor] = {}

    @classmethod
    def check(cls, options: Options, sparsity: float) -> None:
        """Something must be left."""
        if options.mutation >= 1 - sparsity - 1e-9:
            raise OptionError(
                "mutation", f"{options.mutation:g} is out of range: must be < the density, {1 - sparsity:g}"
            )

    def initial_masks(self, ctx: Context) -> MaskSet:
        """Random masks; under the soft bound with room for the first mutation."""
        self._check_units()
        masks = random_masks(ctx, self.options)
        if not self.options.soft_bound or ctx.sparsity == 0 or self.closing(ctx.total_steps) == 0:
            return masks
        kept = self.options.num_active(ctx.shapes, ctx.sparsity)
        return self._grown(ctx, masks, {name: self.mutated(ctx, name, kept[name], 0) for name in kept})

    def closing(self, total_steps: int) -> int:
        """Time of the first update after p is 0, or of the last one there is."""
        every = self.options.update_every
        return every * min(math.ceil(self.options.end * total_steps / every), (total_steps - 1) // every)

    def last_update(self, total_steps: int) -> int:
        """The one that only drops is needed under the soft bound alone."""
        return self.closing(total_steps) - (not self.options.soft_bound)

    def mutated(self, ctx: Context, name: str, kept: int, now: int) -> int:
        """Number of weights that a layer of `kept` weights replaces at a time."""
        total = ctx.total_steps
        if now >= self.closing(total):
            return 0
        share = self.options.mutation * (0.5 if now >= self.options.halve * total else 1.0)
        return min(math.floor(share / (1 - ctx.sparsity) * kept + 1e-6), math.prod(ctx.shapes[name]) - kept)

    def look(self, ctx: Context, now: int, due: bool) -> None:
        """Keep the gradients that a due update needs, of existing weights."""
        if due and self.options.gradient_weight > 0:
            self._gradients = {name: ctx.active_grad(name).abs() for name in ctx.shapes}

    def update(self, ctx: Context, now: int) -> None:
        """Drop in every layer, then grow."""
        bound = self.options.num_active(ctx.shapes, ctx.sparsity)
        numbers = {name: self.mutated(ctx, name, kept, now) for name, kept in bound.items()}
        survivors = {}
        for name, kept in bound.items():
            score = ctx.weight(name).abs()
            if name in self._gradients:
                score = score + self.options.gradient_weight * self._gradients[name]
            left = kept if self.options.soft_bound else kept - numbers[name]
            survivors[name] = keep_largest(score, ctx.masks[name], left)
        self._gradients = {}
        grown = self._grown(ctx, MaskSet(survivors), numbers)
        restart = {name: mask & ~survivors[name] for name, mask in grown.items()}
        ctx.set_masks(grown, "update", restart=restart)

    def _grown(self, ctx: Context, masks: MaskSet, numbers: Mapping[str, int]) -> MaskSet:
        scores = {name: random_scores(ctx, name).to(mask.device) for name, mask in masks.items()}
        return MaskSet({name: grow_largest(scores[name], mask, numbers[name]) for name, mask in masks.items()})
