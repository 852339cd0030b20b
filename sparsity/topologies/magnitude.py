"""Magnitude pruning during training: gradually (GMP), or once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsity.masking.budgets import Allocation
from sparsity.masking.schedules import cubic
from sparsity.masking.scores import magnitudes
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


@register_topology("gmp")
class GMP(Topology):
    """Gradual magnitude pruning removes the smallest weights, many at first and fewer towards the end, for good.

    Zhu & Gupta, "To prune, or not to prune" (ICLR 2018 workshop, arXiv 1710.01878), equation (1): between t₀ and t₁ the
    sparsity is s · (1 − (1 − (t − t₀) / (t₁ − t₀))³), updated every Δt steps and at t₁. Afterwards the mask is fixed
    and training continues. The initial sparsity of the equation is 0 here. The paper leaves t₀, t₁ and Δt to the user;
    that any Δt from 100 to 1000 steps will do is recalled from it and *unverified*.

    The defaults of t₀ and t₁ are those of STR's configuration for ResNet-50 (epochs 20 to 79 of 100, once per epoch,
    each layer by itself: ``allocation: uniform``; its last pruning is one epoch before t₁, at 99.9995 % of the target).
    The AC/DC authors' GMP runs prune globally, every 5 epochs; their code keeps one weight less at each pruning (a
    strict threshold), and its last pruning is one interval early, since their range excludes its end.

    With an allocation other than ``global`` each layer follows the curve to its own final sparsity. Deviations: weights
    are pruned after the step that ends an interval; STR's code selects anew in each forward pass, so a weight could
    become active again, whereas here pruned weights stay pruned, as in the paper; exact counts, ties are drawn.
    """

    title = "GMP"
    family = "DtS"
    state = ("_done",)
    paper = "Zhu & Gupta, ICLR 2018 workshop, arXiv 1710.01878"

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of GMP."""

        start: float = option(0.2, "fraction of training at which pruning begins (t₀)", ge=0, lt=1)
        end: float = option(0.8, "fraction of training at which the target is reached (t₁)", gt=0, le=1)
        update_every: int = option(100, "steps between prunings (Δt)", ge=1)

        def __post_init__(self) -> None:
            if self.start >= self.end:
                raise OptionError("end", f"{self.end:g} is out of range: must be > start, {self.start:g}")

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._done = 0  # number of prunings

    def cuts(self, total_steps: int) -> list[int]:
        """Return the steps after which weights are pruned, ascending; the last one reaches the target."""
        start, end = int(self.options.start * total_steps), max(1, int(self.options.end * total_steps))
        return [*range(start + self.options.update_every, end, self.options.update_every), end]

    def after_step(self, ctx: Context) -> None:
        """Prune where the schedule says so; after a step that is not finite, at the next finite one."""
        if ctx.sparsity == 0:
            return
        cuts = self.cuts(ctx.total_steps)
        due = sum(step <= ctx.steps_done for step in cuts)
        if due == self._done:
            return
        self._done = due
        start, end = int(self.options.start * ctx.total_steps), cuts[-1]
        fraction = cubic((cuts[due - 1] - start) / (end - start)) if end > start else 1.0
        ctx.set_masks(self.options.select(ctx, magnitudes(ctx), fraction=fraction), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the target's count."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count one pruning every Δt steps, and one at the end of the ramp."""
        return {"prune": len(self.cuts(total_steps))} if sparsity > 0 else {}


@register_topology("one_shot")
class OneShot(Topology):
    """One-shot magnitude pruning removes the smallest weights once; training continues with that mask.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (NeurIPS 2015, arXiv 1506.02626),
    with one pruning. By default it happens before the first step: with ``model.weights`` from a trained network that is
    pruning and fine-tuning; with fresh weights it is magnitude pruning at initialisation. With a later ``at`` training
    is dense up to it, in one run with one learning-rate schedule.

    Deviations: one global threshold by default, whereas the paper has one per layer, at a multiple of its standard
    deviation; exact counts, ties are drawn.
    """

    title = "One-shot"
    family = "DtS"
    state = ("_done",)
    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626"

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of one-shot pruning."""

        at: float = option(
            0.0, "fraction of training after which weights are pruned; 0: before the first step", ge=0, le=1
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._done = False  # whether weights have been pruned

    def _step(self, total_steps: int) -> int:
        return int(self.options.at * total_steps)

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Prune, if that happens before the first step."""
        if ctx.sparsity == 0 or self._step(ctx.total_steps) > 0:
            return None
        self._done = True
        return self.options.select(ctx, magnitudes(ctx))

    def after_step(self, ctx: Context) -> None:
        """Prune once, when the step is reached; after a step that is not finite, at the next finite one."""
        if ctx.sparsity == 0 or self._done or ctx.steps_done < self._step(ctx.total_steps):
            return
        self._done = True
        ctx.set_masks(self.options.select(ctx, magnitudes(ctx)), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the target's count."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the pruning."""
        if sparsity == 0:
            return {}
        return {"prune": 1} if self._step(total_steps) > 0 else {"initial": 1}
