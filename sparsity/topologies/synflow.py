"""SynFlow: prune at initialisation without data, preserving the flow through all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sparsity.at_start import ScoredAtStart
from sparsity.masking import scores
from sparsity.masking.budgets import DenseLayers, active_of
from sparsity.masking.draws import drawn_of_all
from sparsity.masking.selection import top_k_of_all
from sparsity.options import Infeasible, option
from sparsity.probe import Probe
from sparsity.registry import register_topology
from sparsity.targets import targets
from sparsity.topology import Context


@register_topology("synflow")
class SynFlow(ScoredAtStart):
    """Prune, before training and in many rounds, the weights with the least flow in a network of absolute values.

    Tanaka, Kunin, Yamins & Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow"
    (NeurIPS 2020, arXiv 2006.05467), algorithm 1, and the authors' code. In round k of 100 the score |θ · ∂R/∂θ| is
    computed anew on the network that is left, and the density ρ^(k/100) is kept over all layers together. R is the sum
    of the outputs for an input of ones, with |θ| for all parameters and statistics and normalisation in evaluation
    mode. The rounds are essential: one shot (``rounds: 1``, as in TurboPrune) can prune a whole layer.

    Deviations: exact counts, ties are drawn, and a pruned weight stays pruned; always double precision, which
    the authors' code has as a comment, because deep networks overflow otherwise. A network in which nothing flows
    through some layer (batch normalisation with a scale of zero at the end of a block) is refused, because that layer
    would be pruned completely.

    During the rounds it needs memory for one more network and one gradient in double precision.
    """

    title = "SynFlow"
    paper = "Tanaka et al., NeurIPS 2020, arXiv 2006.05467"

    @dataclass(frozen=True)
    class Options(DenseLayers):
        """Options of SynFlow."""

        rounds: int = option(100, "rounds of scoring and pruning until the final density", ge=1, le=10_000)

    options: Options

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Compute the scores of the last round; weights that earlier rounds have pruned have −1."""
        network = scores.linearise(ctx.plain_copy())
        weights = {target.name: target.weight for target in targets(network)}
        size = sum(weights[name].numel() for name in ctx.prunable)
        all_of_them = len(ctx.prunable) == len(ctx.shapes)
        # the target itself, not its rounded count, by which rounds on the way would keep a weight or two more
        density = 1 - ctx.sparsity if all_of_them else self.options.inner_active(ctx.shapes, ctx.sparsity) / size
        active = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        for done in range(self.options.rounds):
            found = scores.synflow(network, probe.input_shape)
            if done == 0:
                _refuse_closed_layers(found, network, self.name)
            found = {name: score.masked_fill_(~active[name], -1.0) for name, score in found.items()}
            if done + 1 == self.options.rounds:
                return found
            number = active_of(size, 1 - density ** ((done + 1) / self.options.rounds))
            draw = drawn_of_all(ctx, ctx.prunable, note=False)
            active |= top_k_of_all({name: found[name] for name in ctx.prunable}, number, draw)
            for name in ctx.prunable:
                weights[name].masked_fill_(~active[name], 0.0)
        raise AssertionError("at least one round")


def _refuse_closed_layers(found: scores.Scores, network: nn.Module, method: str) -> None:
    scores.finite(found, method)
    closed = [name for name, score in found.items() if not bool((score > 0).any())]
    if closed:
        scales = {name: p for name, p in network.named_parameters() if p.ndim == 1 and name.endswith("weight")}
        shut = [name for name, scale in scales.items() if not bool(scale.any())]
        cause = (
            f"the normalisation scale {shut[0]} is zero (zero_init_residual) and closes a block"
            if shut
            else "an activation that saturates (ReLU6, sigmoid) lets no gradient through, since activations grow from "
            "layer to layer in a network of absolute values"
        )
        raise Infeasible(
            f"{method}: nothing flows through {closed[0]}, so all of it would be cut: its scores are zero everywhere; "
            f"{cause}"
        )
