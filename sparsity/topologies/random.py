"""Random pruning at initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sparsity.masking.budgets import LayerBudgets
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


def random_masks(ctx: Context, budgets: LayerBudgets, sparsity: float | None = None) -> MaskSet:
    """Masks drawn uniformly with the exact count of each layer; the same for every method of one seed."""
    generator = ctx.generator("initial mask")
    masks = {}
    for name, kept in budgets.num_active(ctx.shapes, ctx.sparsity if sparsity is None else sparsity).items():
        shape = ctx.shapes[name]
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[torch.randperm(mask.numel(), generator=generator)[:kept]] = True
        masks[name] = mask.view(shape)
    return MaskSet(masks)


@register_topology("random")
class RandomPruning(Topology):
    """A random mask drawn once, before training; only the layer densities carry information.

    Liu et al., "The Unreasonable Effectiveness of Random Pruning" (ICLR 2022, arXiv 2202.02643); Gadhikar et al., "Why
    Random Pruning Is All We Need to Start Sparse" (ICML 2023, arXiv 2210.02412). Counts are exact a layer,
    kept = size − floor(sparsity_l · size). ``counts: bernoulli`` draws each weight by itself with the layer's density,
    as the TurboPrune harness does; the realised sparsity then fluctuates and no count can be stated. There, ``er`` and
    ``balanced`` densities are not solved again after clipping; ``balanced_sweep`` is the latter. Which layer densities
    the HAM paper's "Random" rows use is not stated anywhere reachable: *unverified*.
    """

    title = "Random"
    family = "PaI"
    paper = "Liu et al., ICLR 2022, arXiv 2202.02643"

    @dataclass(frozen=True)
    class Options(LayerBudgets):
        """Options of random pruning."""

        counts: str = option(
            "exact",
            "exact: the stated number of weights a layer; bernoulli: each weight by itself with the layer's density",
            choices=("exact", "bernoulli"),
            neutral="exact",
        )

    options: Options

    def initial_masks(self, ctx: Context) -> MaskSet:
        """Draw the mask."""
        return random_masks(ctx, self.options) if self.options.counts == "exact" else _bernoulli(ctx, self.options)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """The sum of the layer counts; unknown beforehand for Bernoulli masks."""
        if self.options.counts == "bernoulli" and sparsity > 0:
            return None
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The draw itself."""
        return {"initial": 1} if sparsity > 0 else {}


def _bernoulli(ctx: Context, budgets: LayerBudgets) -> MaskSet:
    generator = ctx.generator("initial mask")
    masks = {}
    for name, density in budgets.densities(ctx.shapes, ctx.sparsity).items():
        # u is in [0, 1): a dense layer stays dense
        masks[name] = torch.rand(ctx.shapes[name], generator=generator, dtype=torch.float64) < density
    return MaskSet(masks)
