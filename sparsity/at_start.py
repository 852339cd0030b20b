"""Pruning at initialisation by scores: the base class of methods that score all weights once, before training."""

from __future__ import annotations

from collections.abc import Mapping

from .masking import scores
from .masking.budgets import DenseLayers
from .masking.draws import drawn_of_all
from .masking.selection import top_k_of_all
from .masks import MaskSet
from .probe import Probe
from .topology import Context, Topology


class ScoredAtStart(Topology):
    """Base class of topologies that keep the highest scores of all layers together. A subclass defines `scores`."""

    family = "PaI"
    needs_probe = True
    Options = DenseLayers

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Return a score for every weight, by name; larger scores are kept."""
        raise NotImplementedError

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Score all weights and keep the highest scores."""
        if ctx.sparsity == 0:
            return None
        probe = ctx.probe
        assert probe is not None
        found = {name: probe.agree(score) for name, score in self.scores(ctx, probe).items()}
        scores.finite(found, self.name)
        active = self.options.inner_active(ctx.shapes, ctx.sparsity)
        inner = {name: found[name] for name in ctx.prunable}
        return MaskSet(top_k_of_all(inner, active, drawn_of_all(ctx, inner)))

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return one count over all layers."""
        return self.options.all_active(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the initial masks."""
        return {"initial": 1} if sparsity > 0 else {}
