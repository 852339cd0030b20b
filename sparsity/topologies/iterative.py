"""Iterative magnitude pruning: train, prune a fifth of the active weights, repeat; with three ways to restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sparsity.masking.budgets import Allocation
from sparsity.masking.schedules import pruning_densities, prunings
from sparsity.masking.scores import magnitudes
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context, Plan, Topology

MOST_PRUNINGS = 1000  # trainings of one run; more are certainly a mistake


@register_topology("imp")
class IterativePruning(Topology):
    """Train to the end, prune the smallest weights, reset the others to their *initial* values, and train again.

    Frankle & Carbin, "The Lottery Ticket Hypothesis" (ICLR 2019, arXiv 1803.03635), in the form of the authors'
    open_lth and of TurboPrune. Level 0 trains the dense network; before each further level ``prune_fraction`` of the
    active weights are pruned, those of smallest |θ| at the end of the level before, of all layers together
    (``allocation: uniform``: in each layer, as the 2019 paper does for small networks). So level k has density
    (1 − fraction)^k. The last pruning removes as many as are needed to reach the target exactly:
    ⌈log(1 − s) / log(1 − fraction)⌉ prunings and one more level, 11 and 12 for 90 % at 0.2.

    Each level has all of ``schedule.epochs``, a complete learning-rate schedule and a fresh optimizer. Weights, biases,
    normalisation and batch statistics are all reset. The order of the data differs between levels. Under another
    representation |θ| is compared, and its trained tensors are reset, bit for bit.

    Deviations: all layers are pruned at one rate, as in TurboPrune (``dense`` leaves the first or last out, as open_lth
    can; the 2019 paper prunes the last layer of small networks at half the rate); counts are those of the density
    (1 − fraction)^k instead of a rounded fraction of the active weights (open_lth removes ⌈0.2 n⌉ + 1 a level, and has
    606 of 5,696 weights after ten, here 612); ties are drawn; the last pruning is adapted, whereas both
    codes overshoot the target, TurboPrune by a whole level where (1 − fraction)^k exceeds it by binary rounding alone.
    """

    title = "IMP"
    family = "DtS"
    paper = "Frankle & Carbin, ICLR 2019, arXiv 1803.03635"
    repeats = True
    rewind: ClassVar[float | None] = 0.0

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of iterative pruning."""

        prune_fraction: float = option(
            0.2, "fraction of the active weights that is pruned before each further level", gt=0, lt=1
        )

    options: Any  # a subclass may have more options

    @classmethod
    def check(cls, options: Any, sparsity: float) -> None:
        """Refuse a fraction that needs more than 1,000 trainings."""
        if (levels := prunings(sparsity, options.prune_fraction)) > MOST_PRUNINGS:
            raise OptionError(
                "prune_fraction",
                f"{options.prune_fraction:g} is out of range: {sparsity:g} would take {levels:,} trainings, at most "
                f"{MOST_PRUNINGS:,} are allowed",
            )

    def plan(self, sparsity: float) -> Plan:
        """Plan one level more than there are prunings."""
        return Plan(1 + len(pruning_densities(sparsity, self.options.prune_fraction)), self._rewind())

    def _rewind(self) -> float | None:
        return self.rewind

    def initial_masks(self, ctx: Context) -> None:
        """Return None, but refuse an impossible target now rather than after level 0."""
        self.options.total(ctx.shapes, ctx.sparsity)

    def next_level(self, ctx: Context) -> None:
        """Prune to the density of this level."""
        density = pruning_densities(ctx.sparsity, self.options.prune_fraction)[ctx.level - 1]
        ctx.set_masks(self.options.select(ctx, magnitudes(ctx), 1 - density), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the target's count: one for all layers, or the sum of the layer budgets."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count one pruning between consecutive levels."""
        return {"prune": self.plan(sparsity).levels - 1} if sparsity > 0 else {}


@register_topology("wr")
class WeightRewinding(IterativePruning):
    """IMP that resets weights to those of an early step of level 0 instead of the initial ones.

    Frankle et al., "Stabilizing the Lottery Ticket Hypothesis" (arXiv 1903.01611), "Linear Mode Connectivity and the
    Lottery Ticket Hypothesis" (ICML 2020, arXiv 1912.05671). For everything else see IMP.

    *Unverified*: the step. It depends on network and data; TurboPrune mentions epoch 10 of its 90 (ImageNet) or 150
    (CIFAR), without a value in its configurations; 0.1 of a training is the suite's own default.

    Deviation: open_lth trains each level from that step to the end, at the learning rates of those steps; here, as in
    TurboPrune, each level has the complete schedule.
    """

    title = "WR"
    paper = "Frankle et al., ICML 2020, arXiv 1912.05671"

    @dataclass(frozen=True)
    class Options(IterativePruning.Options):
        """Options of weight rewinding."""

        rewind: float = option(
            0.1, "fraction of level 0 after which its weights are saved; later levels start from them", gt=0, lt=1
        )

    def _rewind(self) -> float:
        return self.options.rewind


@register_topology("lrr")
class LearningRateRewinding(IterativePruning):
    """IMP that keeps the trained weights and restarts only the learning-rate schedule.

    Renda, Frankle & Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning" (ICLR 2020, arXiv
    2003.02389), rewound to the start of the schedule, as TurboPrune does. For everything else see IMP; the optimizer
    is fresh at each level and nothing is reset.
    """

    title = "LRR"
    paper = "Renda et al., ICLR 2020, arXiv 2003.02389"
    rewind = None
