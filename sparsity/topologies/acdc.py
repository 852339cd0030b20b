"""AC/DC: compressed and decompressed phases in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sparsity.masking.budgets import Allocation
from sparsity.masking.schedules import ACDC_TABLES, acdc_phases
from sparsity.masking.selection import strictly_above_kth
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


@register_topology("acdc")
class ACDC(Topology):
    """Dense training, interrupted by phases in which only the largest weights live; the last phase is sparse.

    Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks" (NeurIPS 2021, arXiv
    2106.12379), and the authors' released pruners and configurations. At each compression the target sparsity is
    reached at once and the mask is built anew from |w|. At decompression the pruned weights return at zero and the
    momenta of *all* parameters restart; at compression kept weights keep theirs. The learning rate runs through.

    Criteria: ``global`` is the authors' rule over all layers, first and last included: one threshold at the k-th
    largest |w| + 1e-4, k = ceil(n · (1 − s)), and only strictly larger weights stay, so k − 1 of them. The authors also
    ship it without the first convolution and the classifier (``dense: first_last, rebudget: false``, so that s holds
    over the other layers alone). The other criteria keep the largest weights a layer; the authors' uniform runs are
    ``uniform`` with ``dense: first_last, rebudget: false``, where by default first and last layer are pruned like any.
    Deviations there: exact counts and ties to the lowest index instead of the strict threshold; ``erk`` and the others
    are the suite's own choice for small networks, which a global threshold can cut through (a whole layer to zero).

    The phase table is one of the authors' three, scaled to the run. Dropped weights' moments restart at compression;
    in the authors' code they decay unseen and restart at the following decompression, which is the same trajectory.
    """

    title = "AC/DC"
    family = "DtS"
    paper = "Peste et al., NeurIPS 2021, arXiv 2106.12379"
    regrows = True

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
        self._sparse = False

    def after_step(self, ctx: Context) -> None:
        """Compress or decompress when the phase of the schedule is not the phase of the network."""
        if ctx.sparsity == 0:
            return
        wanted = [
            sparse for start, sparse in acdc_phases(ctx.total_steps, self.options.table) if start <= ctx.steps_done
        ][-1]
        if wanted == self._sparse:
            return
        self._sparse = wanted
        if wanted:
            ctx.set_masks(self._compressed(ctx), "compress")
        else:
            ctx.set_masks(MaskSet.ones(ctx.masks), "decompress", reset_all_moments=True)

    def _compressed(self, ctx: Context) -> MaskSet:
        options = self.options
        scores = {name: ctx.weight(name).abs() for name in ctx.shapes}
        if options.allocation != "global":
            return options.select(scores, ctx.sparsity)
        inner = options.inner(ctx.shapes)
        chosen = {name: scores[name].add_(1e-4) for name in inner}
        masks = strictly_above_kth(chosen, options.inner_active(ctx.shapes, ctx.sparsity, _kth))
        return MaskSet({**MaskSet.ones(scores), **masks})

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Weights left: k − 1 under the global rule (and the dense layers), the layer budgets otherwise."""
        options, total = self.options, sum(math.prod(shape) for shape in shapes.values())
        if sparsity == 0:
            return total
        if options.allocation != "global":
            return options.total(shapes, sparsity)
        return total - sum(options.inner(shapes).values()) + options.inner_active(shapes, sparsity, _kth) - 1

    def ties_lost(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The strict global threshold drops all that tie with it: adding 1e-4 in float32 makes a few a million tie."""
        if self.options.allocation != "global":
            return 0
        return math.ceil(sum(self.options.inner(shapes).values()) * 5e-6)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """One event a phase boundary."""
        if sparsity == 0:
            return {}
        phases = [sparse for _, sparse in acdc_phases(total_steps, self.options.table)[1:]]
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
