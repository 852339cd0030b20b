"""SynFlow: keep the flow through all layers, without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsity.masking import scores
from sparsity.masking.budgets import DenseLayers, active_of
from sparsity.masking.selection import top_k_of_all
from sparsity.options import Infeasible, option
from sparsity.probe import Probe
from sparsity.registry import register_topology
from sparsity.topology import Context

from .snip import ScoredAtStart


@register_topology("synflow")
class SynFlow(ScoredAtStart):
    """Before training, cut in many rounds what the least flow of a network of absolute values passes through.

    Tanaka, Kunin, Yamins & Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow"
    (NeurIPS 2020, arXiv 2006.05467), algorithm 1, and the authors' code. In round k of 100 the score |θ · ∂R/∂θ| is
    computed anew on the network left, and the density ρ^(k/100) is kept over all layers together. R is the sum of the
    outputs for an input of ones, with |θ| for all parameters and statistics and normalisation in evaluation mode. The
    rounds are the point: one shot (``rounds: 1``, as in TurboPrune) can cut through a layer.

    Deviations: exact counts, ties to the lowest index, and a weight that is gone stays gone; double precision always,
    which the authors' code has as a comment, or deep networks overflow. A network in which nothing flows through some
    layer (batch normalisation with a scale of zero at the end of a block) is refused: that layer would be emptied.

    Costs, for the time of the rounds, a network and a gradient in double precision.
    """

    title = "SynFlow"
    paper = "Tanaka et al., NeurIPS 2020, arXiv 2006.05467"

    @dataclass(frozen=True)
    class Options(DenseLayers):
        """Options of SynFlow."""

        rounds: int = option(100, "cuts on the way to the final density", ge=1)

    options: Options

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Scores of the last round; what earlier rounds have cut has −1."""
        network = scores.linearise(ctx.plain_copy())
        weights, inner = scores.weights_of(network), self.options.inner(ctx.shapes)
        size = sum(inner.values())
        density = self.options.inner_active(ctx.shapes, ctx.sparsity) / size
        alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        for done in range(self.options.rounds):
            found = scores.synflow(network, probe.input_shape)
            if done == 0:
                _refuse_closed_layers(found, self.name)
            found = {name: score.masked_fill_(~alive[name], -1.0) for name, score in found.items()}
            if done + 1 == self.options.rounds:
                return found
            kept = active_of(size, 1 - density ** ((done + 1) / self.options.rounds))
            alive |= top_k_of_all({name: found[name] for name in inner}, kept)
            with torch.no_grad():
                for name in inner:
                    weights[name].masked_fill_(~alive[name], 0.0)
        raise AssertionError("at least one round")


def _refuse_closed_layers(found: scores.Scores, method: str) -> None:
    scores.finite(found, method)
    for name, score in found.items():
        if not bool((score > 0).any()):
            raise Infeasible(
                f"{method}: nothing flows through {name}, so all of it would be cut: its scores are zero everywhere; a "
                "normalisation scale of zero (zero_init_residual) closes a block"
            )
