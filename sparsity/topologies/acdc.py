"""AC/DC: compressed and decompressed phases alternate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sparsity.masking.budgets import Allocation
from sparsity.masking.rounding import ceil_count
from sparsity.masking.schedules import ACDC_TABLES, acdc_phases
from sparsity.masking.selection import strictly_above_kth
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


@register_topology("acdc")
class ACDC(Topology):
    """Dense training alternates with phases in which only the largest weights are active; the last phase is sparse.

    Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks" (NeurIPS 2021, arXiv
    2106.12379), and the authors' released pruners and configurations. Each compression prunes to the target
    sparsity at once, with a new mask from |w|. Each decompression makes all weights active, pruned ones at zero, and
    restarts the momenta of *all* parameters; at a compression active weights keep theirs. The learning-rate schedule
    spans the whole run.

    Allocation: ``global`` is the authors' rule over all layers, first and last included: one threshold at the k-th
    largest |w| + 1e-4, k = ceil(n · (1 − s)), and only strictly larger weights stay active, k − 1 of them. The authors
    also ship it without the first convolution and the classifier (``dense: first_last, rebudget: false``, so that s
    holds over the other layers alone). Every other allocation keeps the largest weights of each layer; the authors'
    uniform runs are ``uniform`` with ``dense: first_last, rebudget: false``, while by default the first and the last
    layer are pruned like all others. Deviations there: exact counts and ties that are drawn instead of the strict
    threshold; ``erk`` and the others are the suite's own choice for small networks, in which a global threshold can
    prune a whole layer.

    The phase table is one of the authors' three, scaled to the run. Moments of pruned weights restart at the
    compression; in the authors' code they decay without effect and restart at the next decompression, which gives the
    same trajectory.

    Whoever runs the released code today gets another trajectory: it resets only momenta of parameters whose gradient is
    not None, and since torch 2 ``zero_grad()`` makes all of them None, so that no momentum is ever reset. With
    ``zero_grad(set_to_none=False)`` it equals this class bit for bit.
    """

    title = "AC/DC"
    family = "DtS"
    paper = "Peste et al., NeurIPS 2021, arXiv 2106.12379"
    regrows = True
    state = ("_sparse",)

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of AC/DC."""

        table: str = option(
            "100ep",
            "the authors' phases for 100, 150 or 200 epochs, scaled to the run",
            choices=tuple(ACDC_TABLES),
            neutral="100ep",
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._sparse = False  # whether the present phase is a compressed one

    def after_step(self, ctx: Context) -> None:
        """Compress or decompress if the schedule has entered another phase."""
        if ctx.sparsity == 0:
            return
        phases = acdc_phases(ctx.total_steps, self.options.table)
        sparse = [sparse for start, sparse in phases if start <= ctx.steps_done][-1]
        if sparse == self._sparse:
            return
        self._sparse = sparse
        if sparse:
            ctx.set_masks(self._compressed(ctx), "compress")
        else:
            ctx.set_masks(MaskSet.ones(ctx.masks), "decompress", reset_all_moments=True)

    def _compressed(self, ctx: Context) -> MaskSet:
        options = self.options
        scores = {name: ctx.weight(name).abs() for name in ctx.shapes}
        if options.allocation != "global":
            return options.select(ctx, scores)
        chosen = {name: scores[name].add_(1e-4) for name in ctx.prunable}
        return MaskSet(strictly_above_kth(chosen, options.inner_active(ctx.shapes, ctx.sparsity, _kth)))

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return k − 1 and the dense layers under the global rule, the sum of the layer budgets otherwise."""
        if sparsity == 0:
            return sum(math.prod(shape) for shape in shapes.values())
        if self.options.allocation != "global":
            return self.options.total(shapes, sparsity)
        return self.options.all_active(shapes, sparsity, _kth) - 1

    def ties_lost(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Allow for weights that tie with the strict threshold: 1e-4 added in float32 makes a few per million tie."""
        if self.options.allocation != "global":
            return 0
        return math.ceil(sum(self.options.inner(shapes).values()) * 5e-6)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count one event per phase boundary."""
        if sparsity == 0:
            return {}
        phases = [sparse for _, sparse in acdc_phases(total_steps, self.options.table)[1:]]
        return {"compress": phases.count(True), "decompress": phases.count(False)}


def _kth(total: int, sparsity: float) -> int:
    """Return k = ceil(n · (1 − s))."""
    return ceil_count(total * (1 - sparsity))
