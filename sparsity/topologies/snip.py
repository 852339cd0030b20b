"""SNIP, and what all pruning by scores at initialisation shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sparsity.masking import scores
from sparsity.masking.budgets import DenseLayers
from sparsity.masking.selection import top_k_of_all
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.probe import Probe
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


class ScoredAtStart(Topology):
    """Base of methods that score all weights once, before training, and keep the best over all layers together."""

    family = "PaI"
    needs_probe = True
    Options = DenseLayers

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Score of every weight by name; larger is kept."""
        raise NotImplementedError

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Score, and keep the highest."""
        if ctx.sparsity == 0:
            return None
        probe = ctx.probe
        assert probe is not None
        found = {name: probe.agree(score) for name, score in self.scores(ctx, probe).items()}
        scores.finite(found, self.name)
        inner = self.options.inner(ctx.shapes)
        kept = self.options.inner_active(ctx.shapes, ctx.sparsity)
        ones = MaskSet.ones(found)
        return MaskSet({**ones, **top_k_of_all({name: found[name] for name in inner}, kept)})

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """One count over all layers."""
        dense = sum(math.prod(shape) for shape in shapes.values()) - sum(self.options.inner(shapes).values())
        return dense + self.options.inner_active(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The cut."""
        return {"initial": 1} if sparsity > 0 else {}


@register_topology("snip")
class SNIP(ScoredAtStart):
    """Before training, keep the weights with the largest |g · θ|, over all layers together.

    Lee, Ajanthan & Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (ICLR 2019, arXiv
    1810.02340), algorithm 1: one minibatch, one cut, then training from the very weights that were scored. The score is
    |g · θ|, not |g|; dividing all of them by their sum, as the paper does, orders nothing anew.

    The batch is the training's, with its augmentation, loss and micro-batches, the same on every rank. With
    ``batches`` > 1 their mean gradient is scored. Batch statistics are computed in training mode and thrown away.
    Deviations: exact counts, ties to the lowest index; no variance-scaling initialisation of its own; single precision
    also where training is autocast.
    """

    title = "SNIP"
    paper = "Lee et al., ICLR 2019, arXiv 1810.02340"

    @dataclass(frozen=True)
    class Options(DenseLayers):
        """Options of SNIP."""

        batches: int = option(1, "training batches that the score is computed on", ge=1)

    options: Options

    def check_probe(self, probe: Probe) -> None:
        """As many batches as are scored."""
        probe.check(batches=self.options.batches)

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """|g · θ|."""
        parts, seed = probe.micro_batches(self.options.batches), ctx.generator("scores").initial_seed()
        return scores.snip(scores.alone(ctx.plain_copy()).train(), probe.loss, parts, seed)
