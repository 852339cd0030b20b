"""Cyclic sparse training (SCULPT-ing): a random mask, several learning-rate cycles, one magnitude pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsity.masking.budgets import Allocation, LayerBudgets, random_masks
from sparsity.masking.scores import magnitudes
from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.registry import register_topology
from sparsity.topology import Context, Plan, Topology


@register_topology("cyclic")
class CyclicTraining(Topology):
    """Train a random network of low sparsity for several cycles, prune it once to the target, and train it further.

    Gadhikar, Nelaturu & Burkholz, "Cyclic Sparse Training: Is it Enough?" (arXiv 2406.02773): repeated cycles explain
    much of what iterative pruning gains, and one pruning couples mask and weights. A random mask of
    ``initial_sparsity`` is drawn once. Each cycle has all of ``schedule.epochs``, a complete learning-rate schedule and
    a fresh optimizer, and starts from the weights of the cycle before. After ``cycles`` of them the smallest |θ| of all
    layers together are pruned (``prune_globally: false``: each layer to its budget at the target), and ``retrain`` more
    cycles follow. If the target is ``initial_sparsity`` or less, the mask is drawn at the target and nothing is pruned:
    cyclic training of a random mask, the paper's other subject.

    *Unverified*: the defaults of ``cycles`` and ``retrain``. A mask of 20 % sparsity, with ERK or balanced densities,
    is reported, and about 450 epochs for ResNet-50 on ImageNet at 90 %, which is five cycles of 90 epochs; how they are
    divided is not known here. Also *unverified*: the global threshold, which is that of TurboPrune's iterative pruning.

    Deviations: exact counts instead of Bernoulli masks, ties are drawn; TurboPrune also has cycles of
    unequal length within one budget of epochs, whereas here all cycles are equal and the budget is that of one cycle.
    """

    title = "Cyclic"
    family = "DtS"
    paper = "Gadhikar et al., arXiv 2406.02773"
    repeats = True

    @dataclass(frozen=True)
    class Options(LayerBudgets):
        """Options of cyclic training."""

        initial_sparsity: float = option(0.2, "sparsity of the random mask, if below the target", ge=0, lt=1)
        cycles: int = option(4, "trainings before the pruning", ge=1, le=1000)
        retrain: int = option(1, "trainings after the pruning", ge=1, le=1000)
        prune_globally: bool = option(
            True, "one threshold for all layers at the pruning; otherwise each layer has the budget of `allocation`"
        )

    options: Options

    def plan(self, sparsity: float) -> Plan:
        """Plan all cycles, each from the weights of the one before."""
        return Plan(self.options.cycles + self.options.retrain)

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Draw the mask, a superset of that of random pruning with this seed and distribution."""
        self.expected_active(ctx.shapes, ctx.sparsity)  # refuses an impossible target now, not after the cycles
        initial = min(self.options.initial_sparsity, ctx.sparsity)
        return random_masks(ctx, self.options, initial) if initial > 0 else None

    def next_level(self, ctx: Context) -> None:
        """Prune if this is the first level after the cycles."""
        if ctx.level == self.options.cycles and ctx.sparsity > self.options.initial_sparsity:
            ctx.set_masks(self._allocation().select(ctx, magnitudes(ctx)), "prune")

    def _allocation(self) -> Allocation:
        # the budgets are those of the mask's own distribution at the target, so no layer needs more weights than it has
        options = self.options
        name = "global" if options.prune_globally else options.allocation
        return Allocation(dense=options.dense, rebudget=options.rebudget, allocation=name)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the target's count: one for all layers, or the sum of the layer budgets."""
        if sparsity > self.options.initial_sparsity:
            return self._allocation().total(shapes, sparsity)
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the initial draw and the pruning, unless there is nothing to draw or to prune."""
        expected = {}
        if min(self.options.initial_sparsity, sparsity) > 0:
            expected["initial"] = 1
        if sparsity > self.options.initial_sparsity:
            expected["prune"] = 1
        return expected
