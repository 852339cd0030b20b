"""SNIP: prune at initialisation by the sensitivity of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from sparsity.at_start import ScoredAtStart
from sparsity.masking import scores
from sparsity.masking.budgets import DenseLayers
from sparsity.options import option
from sparsity.probe import Probe
from sparsity.registry import register_topology
from sparsity.topology import Context


@register_topology("snip")
class SNIP(ScoredAtStart):
    """Keep, before training, the weights with the largest |g · θ| of all layers together.

    Lee, Ajanthan & Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (ICLR 2019, arXiv
    1810.02340), algorithm 1: one minibatch, one pruning, then training from the weights that were scored. The score is
    |g · θ|, not |g|; dividing all scores by their sum, as the paper does, does not change their order.

    The batch is one of training, with its augmentation, loss and micro-batches, the same on every rank. With
    ``batches`` > 1 the mean gradient over them is used. Batch statistics are computed in training mode and discarded.
    Deviations: exact counts, where mil-ad/snip rounds them down; ties are drawn; no variance-scaling
    initialisation of its own; single precision even if training uses autocast.
    """

    title = "SNIP"
    paper = "Lee et al., ICLR 2019, arXiv 1810.02340"

    @dataclass(frozen=True)
    class Options(DenseLayers):
        """Options of SNIP."""

        batches: int = option(1, "training batches that the score is computed on", ge=1)

    options: Options

    def check_probe(self, probe: Probe) -> None:
        """Require as many batches as are scored."""
        probe.check(batches=self.options.batches)

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Compute |g · θ|."""
        parts, seed = probe.micro_batches(self.options.batches), ctx.generator("scores").initial_seed()
        return scores.snip(scores.alone(ctx.plain_copy()).train(), probe.loss, parts, seed)
