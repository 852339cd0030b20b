"""The order of things in a step. The engine knows masks, moments and events, and no method.

A step: backward (the caller's) → unscale → the topology looks at dense dL/dθ and may change masks → mask gradients →
clip → optimizer → park → topology and representation hooks. Masking the gradients keeps the active weights on the very
trajectory of a network that has only them; parking is the invariant (pruned weights are exactly zero after every step),
also under optimizers that write where no gradient was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import moments
from .flops import TrainingCost
from .masks import MaskSet
from .representation import Representation
from .topology import Topology

Event = dict[str, Any]


class SparseTraining:
    """Runs one topology over one represented model; made by `attach`. Implements the `Context` protocol.

    Attributes:
        topology: The topology.
        representation: The representation of the model.
        masks: Masks in force.
        events: What happened, in order; the owner may drain the list.
        skipped: Steps that a loss scaler found non-finite.
    """

    def __init__(
        self,
        topology: Topology,
        representation: Representation,
        optimizer: Optimizer,
        *,
        sparsity: float,
        total_steps: int,
        steps_per_epoch: int,
        seed: int,
        clip_grad_norm: float | None,
    ):
        self.topology = topology
        self.representation = representation
        self.optimizer = optimizer
        self.sparsity = sparsity
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.events: list[Event] = []
        self.event_counts: dict[str, int] = {}
        self.skipped = 0
        self._seed = seed
        self._clip = clip_grad_norm
        self._step = 0
        self._dense_grad_read = False
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(theta.shape) for name, theta in representation.weights()
        }
        self._adopt(MaskSet.ones(dict(representation.weights())))
        self.cost = TrainingCost(list(self.shapes))
        initial = topology.initial_masks(self)
        if initial is not None and sparsity > 0:
            self.set_masks(initial, "initial")

    # ---- Context: what methods see ----------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Number of steps done."""
        return self._step

    @property
    def epoch(self) -> int:
        """Number of completed epochs; the last one may be cut short."""
        return self.total_epochs if self._step >= self.total_steps else self._step // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Length of training in whole epochs."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def weight(self, name: str) -> Tensor:
        """θ of one layer, detached."""
        return self.representation.slots[name].weight

    def grad(self, name: str) -> Tensor:
        """Dense dL/dθ of this step."""
        self._dense_grad_read = True
        slot = self.representation.slots[name]
        gradient = self.representation.grad(*slot.factors)
        return torch.zeros_like(slot.factors[0]) if gradient is None else gradient

    def generator(self, purpose: str) -> torch.Generator:
        """CPU generator seeded by (seed, purpose, step)."""
        digest = hashlib.sha256(f"{self._seed}/{purpose}/{self._step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    @torch.no_grad()
    def set_masks(self, masks: MaskSet, event: str, *, reset_all_moments: bool = False) -> None:
        """See `Context.set_masks`."""
        old = self.masks
        counts: list[Tensor] = []
        adopted: dict[str, Tensor] = {}
        for name, slot in self.representation.slots.items():
            new = masks[name].to(old[name].device)
            changed = new ^ old[name]
            counts += [(changed & ~new).sum(), (changed & new).sum()]
            for factor in slot.factors:
                if factor.shape == new.shape:
                    moments.reset(self.optimizer, factor, changed)
            adopted[name] = new
        self.cost.advance(self._step, self.densities())
        self._adopt(MaskSet(adopted))
        self.park()
        if reset_all_moments:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    moments.reset(self.optimizer, parameter)
        numbers = torch.stack(counts).tolist()
        dropped, grown = sum(numbers[::2]), sum(numbers[1::2])
        self.record(event, changed=dropped + grown, dropped=dropped, grown=grown, density=self.masks.density)

    def record(self, event: str, *, changed: int, **details: int | float) -> None:
        """Note that a method acted."""
        self.event_counts[event] = self.event_counts.get(event, 0) + 1
        position = {"step": self._step, "epoch": round(self._step / self.steps_per_epoch, 4)}
        self.events.append({"event": event, **position, "changed": changed, **details})

    @torch.no_grad()
    def park(self) -> None:
        """Put weights that do not exist back to exactly zero."""
        for name, dead in self._dead.items():
            self.representation.park(self.representation.slots[name].factors, dead)

    def reset_moments(self, parameter: nn.Parameter) -> None:
        """See `Context.reset_moments`."""
        moments.reset(self.optimizer, parameter)

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor | None:
        """See `Context.moment`."""
        return moments.entrywise_state(moments.innermost(self.optimizer), parameter).get(key)

    # ---- the step ---------------------------------------------------------------------------------------------------

    def step(
        self, closure: Callable[[], Tensor] | None = None, *, scaler: torch.amp.GradScaler | None = None
    ) -> Tensor | None:
        """One training step after `loss.backward()`; takes the place of `optimizer.step()`.

        Args:
            closure: Clears gradients, runs forward and backward and returns the loss; called once, with gradients
                enabled. Without it the gradients must be there already.
            scaler: Loss scaler of mixed precision. A step it finds non-finite is skipped whole, the mask update
                included, which then happens at the next finite step.

        Returns:
            The closure's loss, or None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        finite = True
        if scaler is not None:
            scaler.unscale_(self.optimizer)
            finite = self._all_finite()
        self._dense_grad_read = False
        apply = self.topology.after_backward(self) if finite else True
        if apply:
            self._mask_gradients()
            if self._clip is not None:
                parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(parameters, self._clip)
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
            self.park()
        if scaler is not None:
            scaler.update()
        self._step += 1
        self.skipped += not finite
        if finite:
            self.cost.count_step(self._dense_grad_read)
            self.topology.after_step(self)
        if self._step % self.steps_per_epoch == 0 or self._step == self.total_steps:
            self.cost.advance(self._step, self.densities())
            self.representation.after_epoch(self)
        return loss

    def _all_finite(self) -> bool:
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.stack([torch.isfinite(grad).all() for grad in grads]).all()) if grads else True

    @torch.no_grad()
    def _mask_gradients(self) -> None:
        for name, dead in self._dead.items():
            for factor in self.representation.slots[name].factors:
                if factor.grad is not None and factor.grad.shape == dead.shape:
                    factor.grad.masked_fill_(dead, 0.0)

    def _adopt(self, masks: MaskSet) -> None:
        self.masks = masks
        self._kept = masks.kept()
        self._dead = {name: ~mask for name, mask in masks.items() if self._kept[name] < mask.numel()}

    # ---- the end and the checkpoint ---------------------------------------------------------------------------------

    def densities(self) -> dict[str, float]:
        """Share of non-zero weights a layer, from θ where the representation makes zeros, else from the masks."""
        if not self.representation.uses_sparsity:
            return {name: self._kept[name] / mask.numel() for name, mask in self.masks.items()}
        return {name: float((theta != 0).float().mean()) for name, theta in self.representation.weights()}

    def finalize(self) -> dict[str, int]:
        """End training: the method's last cut, then plain weights with explicit zeros.

        Returns:
            Number of non-zero weights a layer, which is what a table counts.

        Raises:
            RuntimeError: if the masks do not hold the number of weights that the method's rule states.
        """
        self.topology.finalize(self)
        self.park()
        self.cost.advance(self._step, self.densities())
        expected = self.topology.expected_kept(self.shapes, self.sparsity)
        kept = sum(self.masks.kept().values())
        if expected is not None and not expected - self.topology.ties_lost(self.shapes) <= kept <= expected:
            raise RuntimeError(f"{self.topology.name} kept {kept} weights where its rule says {expected}")
        self.representation.fold()
        return {name: int((theta != 0).sum()) for name, theta in self.representation.weights()}

    def expected_events(self) -> dict[str, int]:
        """Number of events by kind that a full run records."""
        expected = self.topology.expected_events(self.total_steps, self.sparsity)
        return {**expected, **self.representation.expected_events(self.total_epochs)}

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's and the optimizer's own state."""
        return {
            "step": self._step,
            "masks": self.masks.state_dict(),
            "topology": self.topology.state_dict(),
            "representation": self.representation.state_dict(),
            "cost": self.cost.state_dict(),
            "event_counts": dict(self.event_counts),
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`; load the model and the optimizer first.

        Raises:
            ValueError: if the masks belong to other layers.
        """
        device = next(iter(self.masks.values())).device
        masks = MaskSet.from_state_dict(state["masks"], device)
        if {n: tuple(m.shape) for n, m in masks.items()} != dict(self.shapes):
            raise ValueError("the masks in this state belong to another network")
        self._step = state["step"]
        self._adopt(masks)
        self.topology.load_state_dict(state["topology"])
        self.representation.load_state_dict(state["representation"])
        self.cost.load_state_dict(state["cost"])
        self.event_counts = dict(state["event_counts"])
        self.skipped = state["skipped"]
        self.events = []
