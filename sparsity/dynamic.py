"""Dynamic sparse training: the base class for methods that update their masks during training, and what they need.

A method subclasses `MaskUpdates` and overrides `update`. `MaskUpdates` decides when an update happens and draws the
initial masks; `keep_largest` and `grow_largest` select weights; `GradientSum` holds dense gradients that growth reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .masking.budgets import LayerBudgets, random_masks
from .masking.draws import drawn, random_scores
from .masking.rounding import ceil_count, floor_count, rounded, share_out
from .masking.schedules import annealed_fraction, cosine_fraction, cubic
from .masking.selection import grow_largest, keep_largest, top_k, top_k_of_all
from .masks import MaskSet
from .options import OptionError, option
from .state import Stateful
from .topology import Context, Topology

__all__ = [
    "GradientSum",
    "MaskUpdates",
    "UpdateOptions",
    "annealed_fraction",
    "ceil_count",
    "cosine_fraction",
    "cubic",
    "drawn",
    "floor_count",
    "grow_largest",
    "keep_largest",
    "random_masks",
    "random_scores",
    "rounded",
    "share_out",
    "top_k",
    "top_k_of_all",
]


@dataclass(frozen=True)
class UpdateOptions(LayerBudgets):
    """Options of a topology that updates its masks every ΔT steps; its own `Options` inherit from this."""

    update_every: int = option(100, "time between mask updates (ΔT), in `unit`", ge=1)
    unit: str = option("step", "what update_every counts", choices=("step", "epoch"), neutral="step")
    batch_reference: int | None = option(
        None,
        "images per step at which update_every is given; at batch size B it becomes update_every * this / B steps",
        ge=1,
        neutral=None,
    )

    def __post_init__(self):
        """Refuse a batch size that epochs are given at: they have all images at every batch size."""
        if self.unit == "epoch" and self.batch_reference is not None:
            raise OptionError(
                "batch_reference", f"{self.batch_reference} rescales steps, but unit is epoch: write null"
            )


class MaskUpdates(Topology):
    """Base class of topologies that update their masks every ΔT steps. A subclass defines `update`.

    An update that replaces the weight step (`in_place`) happens at the index of that step, one that follows the weight
    step at the number of steps done; both are multiples of ΔT. If the step is not finite, the update happens at the
    next finite step, and the update after that is not delayed.

    An update of a layer that its options leave dense changes nothing as long as the layer's count is kept; a method
    that moves weights between layers chooses among the layers in `Context.prunable`.
    """

    family = "DST"
    regrows = True
    replaces_by: ClassVar[str] = "drop_fraction"  # the option that says how many weights an update replaces
    state: ClassVar[tuple[str, ...]] = ("_last",)

    Options = UpdateOptions
    options: Any

    def __init__(self, options: Any):
        super().__init__(options)
        self._last = -1 if self.at_start else 0  # step of the last update

    @classmethod
    def in_steps(cls, options: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None) -> Any:
        """Convert ΔT to steps, rounded, at least 1; it stays as it is if the size it needs is not given."""
        every = options.update_every
        if options.batch_reference is not None and batch_size is not None:
            every = max(1, round(every * options.batch_reference / batch_size))
            return dataclasses.replace(options, update_every=every, batch_reference=None)
        if options.unit == "epoch" and steps_per_epoch is not None:
            return dataclasses.replace(options, update_every=every * steps_per_epoch, unit="step")
        return options

    @property
    def in_place(self) -> bool:
        """Whether an update replaces the weight step of its iteration."""
        return False

    @property
    def at_start(self) -> bool:
        """Whether the first update is at step 0."""
        return False

    def check_run(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, total_steps: int) -> None:
        """There must be an update after step 0 that changes something, and weight steps beside it."""
        super().check_run(shapes, sparsity, total_steps)
        if sparsity == 0:
            return
        if self.in_place and self.options.update_every == 1 and self._in_steps():
            way = ", or also_step: true" if hasattr(self.options, "also_step") else ""
            raise OptionError(
                "update_every",
                f"1 is out of range: an update of {self.name} replaces the weight step, so no weight would move until "
                f"step {self.last_update(total_steps) + 1}; must be >= 2 steps{way}",
            )
        if self.expected_events(total_steps, sparsity)["update"] <= self.at_start:
            raise OptionError(
                "update_every",
                f"{self.options.update_every} steps are too long for a run of {total_steps}: {self.name} would never "
                f"update its masks (updates end at step {self.last_update(total_steps)})",
            )
        if self.most_replaced(shapes, sparsity) == 0:
            key = self.replaces_by
            raise OptionError(
                key,
                f"{getattr(self.options, key):g} is out of range: in no layer is it a whole weight, so {self.name} "
                "would never change its masks",
            )

    def most_replaced(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Return how many weights an update replaces at most in one layer; None if that is at least one in any case."""
        return None

    def last_update(self, total_steps: int) -> int:
        """Return the last step at which an update may happen."""
        return total_steps - 1

    def is_update(self, step: int, total_steps: int) -> bool:
        """Whether masks are updated at a step."""
        every = self.options.update_every
        return step <= self.last_update(total_steps) and step // every != self._last // every

    def accumulate_gradients(self, ctx: Context, step: int, is_update: bool) -> None:
        """Keep gradients that a later call of `update` needs: the engine masks them before the weight step.

        Called after each finite backward pass, before `update`.

        Args:
            ctx: The run.
            step: Step of the update that belongs to this pass.
            is_update: Whether that update happens.
        """

    def update(self, ctx: Context, step: int) -> None:
        """Set new masks, by `ctx.set_masks(masks, "update")`."""
        raise NotImplementedError

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Draw random masks, the same as those of random pruning with this seed."""
        self._check_units()
        return random_masks(ctx, self.options)

    def after_backward(self, ctx: Context) -> bool:
        """Accumulate gradients; update the masks if an update replaces this weight step."""
        if ctx.sparsity == 0:
            return True
        step = ctx.steps_done if self.in_place else ctx.steps_done + 1
        is_update = self.is_update(step, ctx.total_steps)
        self.accumulate_gradients(ctx, step, is_update)
        if not (is_update and self.in_place):
            return True
        self._last = step
        self.update(ctx, step)
        return False

    def after_step(self, ctx: Context) -> None:
        """Update the masks if an update follows this weight step."""
        step = ctx.steps_done
        if ctx.sparsity > 0 and not self.in_place and self.is_update(step, ctx.total_steps):
            self._last = step
            self.update(ctx, step)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return the sum of the layer budgets; an update does not change it."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Count the initial draw and one update every ΔT steps."""
        if sparsity == 0:
            return {}
        updates = max(0, self.last_update(total_steps)) // self.options.update_every
        return {"initial": 1, "update": updates + self.at_start}

    def _in_steps(self) -> bool:
        """Whether the time between updates is known in steps of this run."""
        return self.options.unit == "step" and self.options.batch_reference is None

    def _check_units(self) -> None:
        if self.options.unit == "epoch":
            raise ValueError(f"topology {self.name!r} counts update_every in epochs: give attach steps_per_epoch")
        if self.options.batch_reference is not None:
            raise ValueError(f"topology {self.name!r} has batch_reference: give attach batch_size")


class GradientSum(Stateful):
    """Sum of dense gradients over backward passes. It takes as much memory as the weights, and none when it is empty.

    The sum ranks entries as the mean does.
    """

    state = ("_sums",)

    def __init__(self):
        self._sums: dict[str, Tensor] = {}

    def add(self, ctx: Context, *, decay: float = 1.0) -> None:
        """Multiply the sum by `decay` and add this step's gradients."""
        for name in ctx.shapes:
            gradient = ctx.grad(name)
            held = self._sums.get(name)
            # cloned because the engine masks gradients in place
            self._sums[name] = gradient.clone() if held is None else held.mul_(decay).add_(gradient)

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def __getitem__(self, name: str) -> Tensor:
        return self._sums[name]

    def clear(self) -> None:
        """Empty the sum."""
        self._sums = {}
