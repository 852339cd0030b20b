"""Magnitude pruning on the way: gradually (GMP) or at one moment, with training going on in between and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.masking.budgets import Allocation
from sparsity.masking.schedules import cubic
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.registry import register_topology
from sparsity.topology import Context, Topology


def magnitudes(ctx: Context) -> dict[str, Tensor]:
    """|θ| of the existing weights; -1 for the others, so that none comes back, even before a weight that is zero."""
    return {name: ctx.weight(name).abs().masked_fill_(~mask, -1.0) for name, mask in ctx.masks.items()}


def smallest_cut(ctx: Context, allocation: Allocation, share: float = 1.0) -> MaskSet:
    """Masks of the largest |θ| that exist, when a share of the final zeros is due; what is gone stays gone."""
    return allocation.select(magnitudes(ctx), ctx.sparsity, share)


@register_topology("gmp")
class GMP(Topology):
    """Gradual magnitude pruning: the smallest weights go, more at first and fewer towards the end; none comes back.

    Zhu & Gupta, "To prune, or not to prune" (ICLR 2018 workshop, arXiv 1710.01878), equation (1): between t₀ and t₁
    the sparsity is s · (1 − (1 − (t − t₀) / (t₁ − t₀))³), brought up to date every Δt steps and at t₁. Afterwards the
    mask is fixed and training goes on. The initial sparsity of the equation is 0 here. The paper leaves t₀, t₁
    and Δt to the user; that any Δt from 100 to 1000 steps will do is remembered from it and *unverified*.

    The defaults of t₀ and t₁ are those of STR's configuration for ResNet-50 (epochs 20 to 79 of 100, once an epoch,
    each layer by itself: ``allocation: uniform``; its last cut is one epoch before t₁, at 99.9995 % of the target). The
    AC/DC authors' GMP runs prune globally, every 5 epochs.

    With an allocation other than ``global`` each layer follows the curve to its own final sparsity. Deviations: the cut
    is made after the step that ends an interval; STR's code chooses anew in each forward pass, so that a weight could
    come back, where here what is gone stays gone, as in the paper; exact counts, ties to the lowest index.
    """

    title = "GMP"
    family = "DtS"
    paper = "Zhu & Gupta, ICLR 2018 workshop, arXiv 1710.01878"

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of GMP."""

        start: float = option(0.2, "share of training at which pruning begins (t₀)", ge=0, lt=1)
        end: float = option(0.8, "share of training at which the target is reached (t₁)", gt=0, le=1)
        update_every: int = option(100, "steps between cuts (Δt)", ge=1)

        def __post_init__(self) -> None:
            if self.start >= self.end:
                raise OptionError("end", f"{self.end:g} is out of range: must be > start, {self.start:g}")

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._done = 0

    def cuts(self, total_steps: int) -> list[int]:
        """After how many steps the cuts are due, ascending; the last one reaches the target."""
        start, end = int(self.options.start * total_steps), max(1, int(self.options.end * total_steps))
        return [*range(start + self.options.update_every, end, self.options.update_every), end]

    def after_step(self, ctx: Context) -> None:
        """Cut where due; a cut that a non-finite step has put off is made after the next one."""
        if ctx.sparsity == 0:
            return
        cuts = self.cuts(ctx.total_steps)
        due = sum(step <= ctx.steps_done for step in cuts)
        if due == self._done:
            return
        self._done = due
        start, end = int(self.options.start * ctx.total_steps), cuts[-1]
        share = cubic((cuts[due - 1] - start) / (end - start)) if end > start else 1.0
        ctx.set_masks(smallest_cut(ctx, self.options, share), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The target's count."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """One cut every Δt steps, and one at the end of the ramp."""
        return {"prune": len(self.cuts(total_steps))} if sparsity > 0 else {}

    def state_dict(self) -> dict[str, int]:
        """Number of cuts made."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Undo `state_dict`."""
        self._done = state["done"]


@register_topology("one_shot")
class OneShot(Topology):
    """Magnitude pruning at one moment: the smallest weights go, and training goes on with the mask fixed.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (NeurIPS 2015, arXiv 1506.02626),
    with one cut. By default it comes before the first step: with ``model.weights`` from a trained network that is
    pruning and fine-tuning; from fresh weights it is magnitude pruning at initialisation. A later moment trains densely
    up to it, in one run with one learning-rate schedule.

    Deviations: one global threshold by default, where the paper takes one a layer, at a multiple of its standard
    deviation; exact counts, ties to the lowest index.
    """

    title = "One-shot"
    family = "DtS"
    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626"

    @dataclass(frozen=True)
    class Options(Allocation):
        """Options of one-shot pruning."""

        at: float = option(0.0, "share of training after which the cut is made; 0: before the first step", ge=0, le=1)

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self._done = False

    def _step(self, total_steps: int) -> int:
        return int(self.options.at * total_steps)

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """The cut, if it is due before the first step."""
        if ctx.sparsity == 0 or self._step(ctx.total_steps) > 0:
            return None
        self._done = True
        return smallest_cut(ctx, self.options)

    def after_step(self, ctx: Context) -> None:
        """The cut, where it is due; one that a non-finite step has put off is made after the next one."""
        if ctx.sparsity == 0 or self._done or ctx.steps_done < self._step(ctx.total_steps):
            return
        self._done = True
        ctx.set_masks(smallest_cut(ctx, self.options), "prune")

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The target's count."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """One cut."""
        if sparsity == 0:
            return {}
        return {"prune": 1} if self._step(total_steps) > 0 else {"initial": 1}

    def state_dict(self) -> dict[str, bool]:
        """Whether the cut has been made."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Undo `state_dict`."""
        self._done = state["done"]
