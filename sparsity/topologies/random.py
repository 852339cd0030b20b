"""Random pruning at initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sparsity.masking.budgets import LayerBudgets, random_masks
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


@register_topology("random")
class RandomPruning(Topology):
    """Draw a random mask once, before training; only the layer densities carry information.

    Liu et al., "The Unreasonable Effectiveness of Random Pruning" (ICLR 2022, arXiv 2202.02643); Gadhikar et al., "Why
    Random Pruning Is All We Need to Start Sparse" (ICML 2023, arXiv 2210.02412). Counts are exact per
    layer: size − floor(sparsity_l · size) active weights. ``counts: bernoulli`` draws each weight independently with
    the layer's density, as the TurboPrune harness does; the realised sparsity then fluctuates and no count can be
    stated. There, ``er`` and
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
            "exact: the stated number per layer; bernoulli: each weight independently with the layer's density",
            choices=("exact", "bernoulli"),
            neutral="exact",
        )

    options: Options

    def initial_masks(self, ctx: Context) -> MaskSet:
        """Draw the mask."""
        return random_masks(ctx, self.options) if self.options.counts == "exact" else _bernoulli(ctx, self.options)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Return the sum of the layer budgets; None for Bernoulli masks, whose number is random."""
        if self.options.counts == "bernoulli" and sparsity > 0:
            return None
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the draw."""
        return {"initial": 1} if sparsity > 0 else {}


def _bernoulli(ctx: Context, budgets: LayerBudgets) -> MaskSet:
    generator = ctx.generator("initial mask")
    masks = {}
    for name, density in budgets.densities(ctx.shapes, ctx.sparsity).items():
        # u is in [0, 1): a dense layer stays dense
        masks[name] = torch.rand(ctx.shapes[name], generator=generator, dtype=torch.float64) < density
    return MaskSet(masks)
