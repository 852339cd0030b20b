"""Iterative magnitude pruning: train, prune a fifth of what is left, begin again; three rules for where to begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sparsity.masking.budgets import Allocation
from sparsity.masking.schedules import pruning_densities, prunings
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context, Plan, Topology

from .magnitude import magnitudes

MOST_PRUNINGS = 1000
"""Trainings that a run may consist of: more is a slip of the pen."""


@register_topology("imp")
class IterativePruning(Topology):
    """Train to the end, remove the smallest weights, put the rest back to their *initial* values, and train again.

    Frankle & Carbin, "The Lottery Ticket Hypothesis" (ICLR 2019, arXiv 1803.03635), in the form of the authors'
    open_lth and of TurboPrune. Level 0 trains the dense network; before each further level ``prune_fraction`` of the
    existing weights goes, those of smallest |θ| at the end of the level before, over all layers together (``allocation:
    uniform``: in each layer, as the 2019 paper does for small networks). Level k so has density (1 − fraction)^k. The
    last pruning takes as much as is needed to hit the target exactly: ⌈log(1 − s) / log(1 − fraction)⌉ prunings and one
    level more, 11 and 12 for 90 % at 0.2.

    Each level has all of ``schedule.epochs``, a learning-rate schedule from its start and a fresh optimizer. With the
    weights, biases, normalisation and batch statistics go back too. Data come in an order of their own at each level.
    Under another representation |θ| is what is compared, and its trained tensors are what goes back, bit for bit.

    Deviations: all layers are pruned at one rate, as in TurboPrune (``dense`` leaves the first or last out, as open_lth
    can; the 2019 paper prunes the last layer of small networks at half the rate); counts are those of the density
    (1 − fraction)^k instead of a rounded share of what is left; ties go to the lowest index; the last pruning is
    adapted, where both codes pass the target by.
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
            0.2, "share of the existing weights removed before each further level", gt=0, lt=1
        )

    options: Any  # of a subclass they are more

    @classmethod
    def check(cls, options: Any, sparsity: float) -> None:
        """Each pruning costs a training."""
        if (levels := prunings(sparsity, options.prune_fraction)) > MOST_PRUNINGS:
            raise OptionError(
                "prune_fraction",
                f"{options.prune_fraction:g} is out of range: {sparsity:g} would take {levels:,} trainings, at most "
                f"{MOST_PRUNINGS:,} are allowed",
            )

    def plan(self, sparsity: float) -> Plan:
        """One level more than there are prunings."""
        return Plan(1 + len(pruning_densities(sparsity, self.options.prune_fraction)), self._rewind())

    def _rewind(self) -> float | None:
        return self.rewind

    def initial_masks(self, ctx: Context) -> None:
        """None yet; a target that cannot be had is refused now rather than after level 0."""
        self.options.total(ctx.shapes, ctx.sparsity)

    def next_level(self, ctx: Context) -> None:
        """Prune to the density of this level."""
        density = pruning_densities(ctx.sparsity, self.options.prune_fraction)[ctx.level - 1]
        ctx.set_masks(self.options.select(magnitudes(ctx), 1 - density), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The target's count, over all layers or added up over them."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """One pruning between any two levels."""
        return {"prune": self.plan(sparsity).levels - 1} if sparsity > 0 else {}


@register_topology("wr")
class WeightRewinding(IterativePruning):
    """IMP that goes back to the weights of an early step of level 0 instead of the initial ones.

    Frankle et al., "Stabilizing the Lottery Ticket Hypothesis" (arXiv 1903.01611), "Linear Mode Connectivity and the
    Lottery Ticket Hypothesis" (ICML 2020, arXiv 1912.05671). In all else see IMP.

    *Unverified*: the step. It depends on network and data; TurboPrune speaks of epoch 10 of its 90 (ImageNet) or 150
    (CIFAR), without a value in its configurations; 0.1 of a training is the suite's own default.

    Deviation: open_lth trains each level from that step to the end, at the rates that belong there; here, as in
    TurboPrune, each level has the whole schedule from its start.
    """

    title = "WR"
    paper = "Frankle et al., ICML 2020, arXiv 1912.05671"

    @dataclass(frozen=True)
    class Options(IterativePruning.Options):
        """Options of weight rewinding."""

        rewind: float = option(0.1, "share of level 0 whose weights later levels begin with", gt=0, lt=1)

    def _rewind(self) -> float:
        return self.options.rewind


@register_topology("lrr")
class LearningRateRewinding(IterativePruning):
    """IMP that keeps the trained weights: what begins again is the learning-rate schedule.

    Renda, Frankle & Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning" (ICLR 2020, arXiv
    2003.02389), rewound to the start of the schedule, as TurboPrune does. In all else see IMP; the optimizer is fresh
    at each level and nothing goes back.
    """

    title = "LRR"
    paper = "Renda et al., ICLR 2020, arXiv 2003.02389"
    rewind = None
