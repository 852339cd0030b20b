"""Random pruning at initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..distributions import NAMES, counts, layer_densities
from ..masks import MaskSet
from ..options import option
from ..registry import register_topology
from ..topology import Context, Topology


def random_masks(ctx: Context, distribution: str) -> MaskSet:
    """Masks drawn uniformly with the exact count of each layer; the same for every method of one seed."""
    densities = layer_densities(distribution, ctx.shapes, 1 - ctx.sparsity)
    generator = ctx.generator("initial mask")
    masks = {}
    for name, kept in counts(ctx.shapes, densities).items():
        shape = ctx.shapes[name]
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[torch.randperm(mask.numel(), generator=generator)[:kept]] = True
        masks[name] = mask.view(shape)
    return MaskSet(masks)


def distribution_total(distribution: str, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
    """Number of weights the layer budgets of a distribution add up to."""
    return sum(counts(shapes, layer_densities(distribution, shapes, 1 - sparsity)).values())


@register_topology("random")
class RandomPruning(Topology):
    """A random mask drawn once, before training; only the layer densities carry information.

    Liu et al., "The Unreasonable Effectiveness of Random Pruning" (ICLR 2022, arXiv 2202.02643); Gadhikar et al., "Why
    Random Pruning Is All We Need to Start Sparse" (ICML 2023, arXiv 2210.02412). Counts are exact a layer,
    kept = size − floor(sparsity_l · size); the TurboPrune harness draws Bernoulli masks instead, whose realised
    sparsity fluctuates. Which layer densities the HAM paper's "Random" rows use is not stated anywhere reachable:
    *unverified*.
    """

    title = "Random"
    family = "PaI"
    paper = "Liu et al., ICLR 2022, arXiv 2202.02643"

    @dataclass(frozen=True)
    class Options:
        """Options of random pruning."""

        distribution: str = option("erk", "how the density is shared among layers", choices=NAMES)

    options: Options

    def initial_masks(self, ctx: Context) -> MaskSet:
        """Draw the mask."""
        return random_masks(ctx, self.options.distribution)

    def expected_kept(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The sum of the layer counts."""
        return distribution_total(self.options.distribution, shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The draw itself."""
        return {"initial": 1} if sparsity > 0 else {}
