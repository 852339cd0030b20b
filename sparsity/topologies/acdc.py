"""AC/DC: compressed and decompressed phases in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..distributions import counts, layer_densities
from ..masks import MaskSet
from ..options import option
from ..registry import register_topology
from ..schedules import acdc_phases
from ..selection import strictly_above_kth, top_k
from ..topology import Context, Topology
from .random import distribution_total


@register_topology("acdc")
class ACDC(Topology):
    """Dense training, interrupted by phases in which only the largest weights live; the last phase is sparse.

    Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks" (NeurIPS 2021, arXiv
    2106.12379), and the authors' released pruners and configurations. At each compression the target sparsity is
    reached at once and the mask is built anew from |w|. At decompression the pruned weights return at zero and the
    momenta of *all* parameters restart; at compression kept weights keep theirs. The learning rate runs through.

    Criteria: ``global`` is the authors' rule over all layers, first and last included: one threshold at the k-th
    largest |w| + 1e-4, k = ceil(n · (1 − s)), and only strictly larger weights stay, so k − 1 of them. ``uniform`` and
    ``erk`` keep the largest weights a layer. Deviations there: exact counts and ties to the lowest index instead of the
    strict threshold, ``uniform`` prunes first and last layer too where the authors leave them dense, and ``erk`` layer
    densities are the suite's own choice for small networks, which a global threshold can cut through (a whole layer to
    zero).

    The phase table is the authors' 100-epoch one, scaled to the run. Dropped weights' moments restart at compression;
    in the authors' code they decay unseen and restart at the following decompression, which is the same trajectory.
    """

    title = "AC/DC"
    family = "DtS"
    paper = "Peste et al., NeurIPS 2021, arXiv 2106.12379"
    regrows = True

    @dataclass(frozen=True)
    class Options:
        """Options of AC/DC."""

        criterion: str = option(
            "global", "one threshold for all layers, or layer budgets", choices=("global", "uniform", "erk")
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._sparse = False

    def after_step(self, ctx: Context) -> None:
        """Compress or decompress when the phase of the schedule is not the phase of the network."""
        if ctx.sparsity == 0:
            return
        wanted = [sparse for start, sparse in acdc_phases(ctx.total_steps) if start <= ctx.steps_done][-1]
        if wanted == self._sparse:
            return
        self._sparse = wanted
        if wanted:
            ctx.set_masks(self._compressed(ctx), "compress")
        else:
            ctx.set_masks(MaskSet.ones(ctx.masks), "decompress", reset_all_moments=True)

    def _compressed(self, ctx: Context) -> MaskSet:
        scores = {name: ctx.weight(name).abs() for name in ctx.shapes}
        if self.options.criterion != "global":
            kept = counts(ctx.shapes, layer_densities(self.options.criterion, ctx.shapes, 1 - ctx.sparsity))
            return MaskSet({name: top_k(score, kept[name]) for name, score in scores.items()})
        flat = torch.cat([score.flatten() for score in scores.values()]) + 1e-4
        mask = strictly_above_kth(flat, _kth(flat.numel(), ctx.sparsity))
        parts = mask.split([score.numel() for score in scores.values()])
        return MaskSet({name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)})

    def expected_kept(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Weights left: k − 1 under the global rule, the layer budgets otherwise."""
        if sparsity == 0:
            return sum(math.prod(shape) for shape in shapes.values())
        if self.options.criterion != "global":
            return distribution_total(self.options.criterion, shapes, sparsity)
        return _kth(sum(math.prod(shape) for shape in shapes.values()), sparsity) - 1

    def ties_lost(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The strict global threshold drops all that tie with it: adding 1e-4 in float32 makes a few a million tie."""
        if self.options.criterion != "global":
            return 0
        return math.ceil(sum(math.prod(shape) for shape in shapes.values()) * 5e-6)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """One event a phase boundary."""
        if sparsity == 0:
            return {}
        phases = [sparse for _, sparse in acdc_phases(total_steps)[1:]]
        return {"compress": phases.count(True), "decompress": phases.count(False)}

    def state_dict(self) -> dict[str, bool]:
        """The phase."""
        return {"sparse": self._sparse}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Undo `state_dict`."""
        self._sparse = state["sparse"]


def _kth(total: int, sparsity: float) -> int:
    """ceil(n · (1 − s)), without what binary rounding adds (10 · (1 − 0.7) is a little more than 3)."""
    return math.ceil(total * (1 - sparsity) - 1e-6)
