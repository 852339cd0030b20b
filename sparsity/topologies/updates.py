"""What the methods of dynamic sparse training share: when masks are updated, and the gradients that growth looks at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsity.masking.budgets import LayerBudgets
from sparsity.masking.selection import top_k
from sparsity.masks import MaskSet
from sparsity.options import OptionError, option
from sparsity.topology import Context, Topology

from .random import random_masks


@dataclass(frozen=True)
class UpdateOptions(LayerBudgets):
    """Options of a topology that updates its masks every ΔT steps; its own `Options` inherit from this."""

    update_every: int = option(100, "time between mask updates (ΔT), in `unit`", ge=1)
    unit: str = option("step", "what update_every counts", choices=("step", "epoch"), neutral="step")
    batch_reference: int | None = option(
        None,
        "images a step at which update_every is given; at batch size B it becomes update_every * this / B steps",
        ge=1,
        neutral=None,
    )

    def __post_init__(self):
        """Epochs are as long at every batch size."""
        if self.unit == "epoch" and self.batch_reference is not None:
            raise OptionError(
                "batch_reference", f"{self.batch_reference} rescales steps, but unit is epoch: write null"
            )


class MaskUpdates(Topology):
    """A topology that updates its masks every ΔT steps. A subclass says what an update is.

    Time is counted in steps. An update that stands in place of a weight step (`in_place`) happens at the index of that
    step, one that follows it at the number of steps done; both are multiples of ΔT. An update that a non-finite step
    has put off happens at the next finite one and does not put off the next.
    """

    family = "DST"
    regrows = True

    Options = UpdateOptions
    options: Any

    def __init__(self, options: Any):
        super().__init__(options)
        self._last = -1 if self.at_start else 0

    @classmethod
    def in_steps(cls, options: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None) -> Any:
        """ΔT in steps, rounded, at least 1; unchanged where the size it needs is not given."""
        every = options.update_every
        if options.batch_reference is not None and batch_size is not None:
            every = max(1, round(every * options.batch_reference / batch_size))
            return dataclasses.replace(options, update_every=every, batch_reference=None)
        if options.unit == "epoch" and steps_per_epoch is not None:
            return dataclasses.replace(options, update_every=every * steps_per_epoch, unit="step")
        return options

    @property
    def in_place(self) -> bool:
        """Whether an update takes the place of a weight step."""
        return False

    @property
    def at_start(self) -> bool:
        """Whether the first update is at step 0."""
        return False

    def last_update(self, total_steps: int) -> int:
        """No update happens later than this."""
        return total_steps - 1

    def look(self, ctx: Context, now: int, due: bool) -> None:
        """Gradients are final; `now` is the time of this step's update, which is `due` or not."""

    def update(self, ctx: Context, now: int) -> None:
        """Set new masks."""
        raise NotImplementedError

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """The random masks that random pruning of this seed has."""
        self._check_units()
        return random_masks(ctx, self.options)

    def after_backward(self, ctx: Context) -> bool:
        """Update where due and in place of the weight step."""
        if ctx.sparsity == 0:
            return True
        now = ctx.steps_done if self.in_place else ctx.steps_done + 1
        due = self._due(now, ctx.total_steps)
        self.look(ctx, now, due)
        if not (due and self.in_place):
            return True
        self._last = now
        self.update(ctx, now)
        return False

    def after_step(self, ctx: Context) -> None:
        """Update where due and after the weight step."""
        now = ctx.steps_done
        if ctx.sparsity > 0 and not self.in_place and self._due(now, ctx.total_steps):
            self._last = now
            self.update(ctx, now)

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """The layer budgets: an update changes no count."""
        return self.options.total(shapes, sparsity)

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """The draw and one update every ΔT steps."""
        if sparsity == 0:
            return {}
        updates = max(0, self.last_update(total_steps)) // self.options.update_every
        return {"initial": 1, "update": updates + self.at_start}

    def state_dict(self) -> dict[str, Any]:
        """Time of the last update."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._last = state["last"]

    def _due(self, now: int, total_steps: int) -> bool:
        every = self.options.update_every
        return now <= self.last_update(total_steps) and now // every != self._last // every

    def _check_units(self) -> None:
        if self.options.unit == "epoch":
            raise ValueError(f"topology {self.name!r} counts update_every in epochs: give attach steps_per_epoch")
        if self.options.batch_reference is not None:
            raise ValueError(f"topology {self.name!r} has batch_reference: give attach batch_size")


class GradientSum:
    """Dense gradients summed over backward passes: one copy of the weights while there is something in it.

    The sum ranks entries as the mean does.
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}

    def add(self, ctx: Context, *, decay: float = 1.0) -> None:
        """Add this step's gradients to `decay` times the sum."""
        for name in ctx.shapes:
            gradient = ctx.grad(name)
            held = self._sums.get(name)
            # a clone, for the engine masks gradients in place; after loading a state the sum may lie elsewhere
            summed = gradient.clone() if held is None else held.to(gradient.device).mul_(decay).add_(gradient)
            self._sums[name] = summed

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def __getitem__(self, name: str) -> Tensor:
        return self._sums[name]

    def clear(self) -> None:
        """Forget the sum."""
        self._sums = {}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums."""
        return {name: tensor.clone() for name, tensor in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state_dict`."""
        self._sums = {name: tensor.clone() for name, tensor in state.items()}


def keep_largest(scores: Tensor, mask: Tensor, number: int) -> Tensor:
    """Mask of the largest scores (>= 0) among the entries of `mask`; ties go to the lowest index."""
    # scores >= 0 > -1: an inactive position is never kept before an active one, even one that is exactly zero
    return top_k(scores.masked_fill(~mask, -1.0), number)


def grow_largest(scores: Tensor, kept: Tensor, number: int) -> Tensor:
    """`kept` and the largest scores (>= 0) among all other entries; ties go to the lowest index."""
    return kept | top_k(scores.masked_fill(kept, -1.0), number)
