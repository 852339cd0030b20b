"""`MaskedNetwork`: a represented network, its masks, and the state that must agree with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsity.masks import MaskSet
from sparsity.options import MaskError
from sparsity.representation import Representation

from . import moments
from .changes import changes, check_masks, counted, leave_frozen
from .flops import TrainingCost
from .settings import RunSettings
from .sparse_opt import scales

log = logging.getLogger(__name__)

Event = dict[str, Any]


class MaskedNetwork:
    """Holds the masks, and makes weights, gradients and the optimizer's moments agree with them.

    It implements the part of the `Context` protocol that concerns the network.

    Attributes:
        representation: The representation of the model.
        optimizer: The optimizer of all its parameters.
        settings: Settings of the run.
        masks: Present masks.
        shapes: Shape of every prunable weight by name.
        prunable: The part of `shapes` that may be pruned.
        events: What happened, in order; the owner may empty the list.
        event_counts: Number of events by kind.
        cost: Training FLOPs so far.
        emptied: Names of the layers that lost all their weights at some time.
        idle: Number of events by kind that were to set masks and changed none.
    """

    masks: MaskSet

    def __init__(self, representation: Representation, optimizer: Optimizer, settings: RunSettings):
        self.representation = representation
        self.optimizer = optimizer
        self.settings = settings
        self.events: list[Event] = []
        self.event_counts: dict[str, int] = {}
        self.emptied: list[str] = []
        self.idle: dict[str, int] = {}
        self._frozen: set[str] = set()  # layers frozen since `attach` that were told of
        self._agree = settings.agree or (lambda gradient: gradient)
        self._step = 0
        self._drawn = 0
        self._dense_grad_read = False
        self.shapes: Mapping[str, tuple[int, ...]] = representation.shapes()
        self.prunable = self.shapes
        self._adopt(MaskSet.ones(dict(representation.weights())))
        self.cost = TrainingCost(list(self.shapes))

    @property
    def steps_done(self) -> int:
        """Number of steps done."""
        return self._step

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps per epoch."""
        return self.settings.steps_per_epoch

    def weight(self, name: str) -> Tensor:
        """Return θ of one layer, detached."""
        return self.representation.slots[name].weight

    def plain_copy(self) -> nn.Module:
        """See `Context.plain_copy`."""
        return self.representation.plain_copy()

    def grad(self, name: str) -> Tensor:
        """Return the dense dL/dθ of this step, and note that it was read: it adds to the cost."""
        self._dense_grad_read = True
        return self._grad(name)

    def active_grad(self, name: str) -> Tensor:
        """Return dL/dθ of this step for active weights, zero elsewhere."""
        return self._grad(name) * self.masks[name]

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator seeded by (seed, purpose, step)."""
        digest = hashlib.sha256(f"{self.settings.seed}/{purpose}/{self._step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    @torch.no_grad()
    def set_masks(
        self,
        masks: MaskSet,
        event: str,
        *,
        reset_all_moments: bool = False,
        restart: Mapping[str, Tensor] | None = None,
        momentum: Mapping[str, Tensor] | None = None,
    ) -> None:
        """See `Context.set_masks`."""
        check_masks(masks, self.masks)
        found = changes(self.representation.slots, masks, self.masks, restart or {})
        numbers = counted(found)
        leave_frozen(found, numbers, self.masks, self._frozen)
        self.cost.advance(self._step, self.densities())
        self._adopt(MaskSet({name: change.mask for name, change in found.items()}))
        for change in found.values():
            if change.again is not None:
                self.representation.zero_pruned(change.slot.factors, change.again)
        self.zero_pruned()
        for change in found.values():  # after the weights: some state is a copy of them
            touched = change.touched
            for factor in change.slot.factors:
                if factor.shape == touched.shape:
                    moments.reset(self.optimizer, factor, touched)
        if reset_all_moments:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    moments.reset(self.optimizer, parameter)
        for name, value in (momentum or {}).items():
            factors = self.representation.slots[name].factors
            for factor, part in zip(factors, self.representation.chain(factors, value), strict=True):
                moments.put_momentum(self.optimizer, factor, part, found[name].grown_anew)
        dropped = sum(lost + again for lost, _, again in numbers.values())
        grown = sum(new + again for _, new, again in numbers.values())
        draws, self._drawn = self._drawn, 0
        self.record(
            event,
            changed=dropped + grown,
            dropped=dropped,
            grown=grown,
            **({"drawn": draws} if draws else {}),
            density=self.masks.density,
        )
        if dropped == grown == 0:
            self._note_idle(event)
        self.tell_emptied(self.densities())

    def _note_idle(self, event: str) -> None:
        """Count events that change no mask, and say so if it is the first of its kind."""
        self.idle[event] = self.idle.get(event, 0) + 1
        if self.event_counts[event] == 1:
            log.warning("step %d: the first event %r of the masks changed none of them", self._step, event)

    def tell_emptied(self, densities: Mapping[str, float]) -> None:
        """Name, once, each layer that has no weights left, through which no signal passes."""
        for name, density in densities.items():
            if density == 0 and name not in self.emptied:
                self.emptied.append(name)
                log.warning("step %d: %s has no weights left, so no signal passes through it", self._step, name)

    def note_drawn(self, number: int) -> None:
        """See `Context.note_drawn`."""
        self._drawn += number

    def record(self, event: str, *, changed: int, **details: int | float) -> None:
        """Append an event to the list and count it."""
        self.event_counts[event] = self.event_counts.get(event, 0) + 1
        position = {"step": self._step, "epoch": round(self._step / self.steps_per_epoch, 4)}
        self.events.append({"event": event, **position, "changed": changed, **details})

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Set pruned weights to exactly zero again."""
        for name, pruned in self._pruned.items():
            self.representation.zero_pruned(self.representation.slots[name].factors, pruned)

    def reset_moments(self, parameter: nn.Parameter) -> None:
        """See `Context.reset_moments`."""
        moments.reset(self.optimizer, parameter)

    def learning_rate(self, parameter: nn.Parameter) -> float | Tensor:
        """See `Context.learning_rate`."""
        return moments.group_of(self.optimizer, parameter)["lr"]

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor | None:
        """See `Context.moment`."""
        return moments.entrywise_state(moments.innermost(self.optimizer), parameter).get(key)

    def densities(self) -> dict[str, float]:
        """Return the fraction of non-zero weights per layer: by θ if the representation makes zeros, else by masks."""
        if not self.representation.uses_sparsity:
            return {name: self._active[name] / mask.numel() for name, mask in self.masks.items()}
        return {name: float((theta != 0).float().mean()) for name, theta in self.representation.weights()}

    # ---- gradients ------------------------------------------------------------------------------------------------

    def _grad(self, name: str) -> Tensor:
        slot = self.representation.slots[name]
        gradient = self.representation.grad(*slot.factors)
        return self._agree(torch.zeros_like(slot.factors[0]) if gradient is None else gradient)

    @torch.no_grad()
    def _add_penalty(self) -> None:
        for slot in self.representation.slots.values():
            factors = slot.factors
            for factor, penalty in zip(factors, self.representation.penalty_grad(*factors) or (), strict=False):
                if factor.grad is not None:
                    factor.grad.add_(penalty)

    @torch.no_grad()
    def _mask_gradients(self) -> None:
        for name, pruned in self._pruned.items():
            for factor in self.representation.slots[name].factors:
                if factor.grad is not None and factor.grad.shape == pruned.shape:
                    factor.grad.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def _rescale_gradients(self) -> None:
        for name, scale in self._scales.items():
            for factor in self.representation.slots[name].factors:
                if factor.grad is not None and factor.grad.shape == self.masks[name].shape:
                    factor.grad.mul_(scale)

    def _adopt(self, masks: MaskSet) -> None:
        """Make masks the present ones, and compute what follows from them."""
        active = masks.num_active()
        for name, mask in masks.items():
            if name not in self.prunable and active[name] < mask.numel():
                raise MaskError(
                    f"the topology's options leave {name} dense, but its mask prunes {mask.numel() - active[name]} "
                    "weights: a topology prunes only layers in Context.prunable"
                )
        self.masks, self._active = masks, active
        self._pruned = {name: ~mask for name, mask in masks.items() if active[name] < mask.numel()}
        self._scales: dict[str, Tensor] = {}
        if self.settings.sparse_opt is not None:
            modules = {name: slot.module for name, slot in self.representation.slots.items()}
            self._scales = scales(masks, modules, self.settings.sparse_opt)
