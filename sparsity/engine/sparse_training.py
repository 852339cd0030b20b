"""The order of things in a step. The engine knows masks, moments and events, and no method.

A step: backward (the caller's) → unscale → the topology looks at dense dL/dθ and may change masks → add the gradient of
the representation's penalty → mask gradients → clip → optimizer → park → topology and representation hooks. Masking the
gradients keeps the active weights on the very trajectory of a network that has only them; parking is the invariant
(pruned weights are exactly zero after every step), also under optimizers that write where no gradient was. An optimizer
that evaluates the batch again (SAM) gets the gradients of that pass with penalty, masked and clipped like the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsity.masks import MaskSet
from sparsity.probe import Probe
from sparsity.representation import Representation
from sparsity.topology import Topology

from . import moments
from .levels import Levels
from .masked import MaskedNetwork
from .passes import Passes, check_call, needs_closure


class SparseTraining(MaskedNetwork):
    """Runs one topology over one represented model; made by `attach`. Implements the `Context` protocol.

    Attributes:
        topology: The topology.
        sparsity: Target share of zeros.
        skipped: Steps that a loss scaler found non-finite.
        levels: The trainings that the run consists of; one for most topologies.
        total_steps: Steps of all of them.
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
        sparse_opt: str | None = None,
        probe: Probe | None = None,
        agree: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__(
            representation,
            optimizer,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            sparse_opt=sparse_opt,
            agree=agree,
        )
        self.topology = topology
        self.sparsity = sparsity
        self.levels = Levels(topology.plan(sparsity), total_steps, representation.model)
        self.total_steps = total_steps * self.levels.count
        self.skipped = 0
        self._clip = clip_grad_norm
        self.probe = probe
        initial = topology.initial_masks(self)
        if initial is not None and sparsity > 0:
            self.set_masks(initial, "initial")
        self.probe = None  # it may hold data

    # ---- Context: what methods see ----------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Number of completed epochs; the last one may be cut short."""
        return self.total_epochs if self._step >= self.total_steps else self._step // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Length of training in whole epochs."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def level(self) -> int:
        """The training under way, from 0."""
        return self.levels.index

    @property
    def step_in_level(self) -> int:
        """Number of steps done in the training under way: what a learning-rate schedule is a function of."""
        return self._step - self.levels.index * self.levels.steps

    @property
    def progress(self) -> float:
        """Share of the training under way that is done."""
        return self.step_in_level / self.levels.steps

    @property
    def level_ended(self) -> bool:
        """Whether a training has ended and another one follows: `next_level` is due."""
        return self.levels.ended(self._step)

    @property
    def sparsity_left(self) -> float:
        """Target that the topology leaves to the representation; 0 where it aims at the target itself."""
        return 0.0 if self.topology.uses_sparsity else self.sparsity

    # ---- the step ---------------------------------------------------------------------------------------------------

    def step(
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
        metrics: Callable[[], Mapping[str, float]] | None = None,
    ) -> Tensor | None:
        """One training step after `loss.backward()`; takes the place of `optimizer.step()`.

        Args:
            closure: Clears gradients, runs forward and backward and returns the loss; called with gradients enabled,
                once, or as often as an optimizer that `needs_closure` asks (SAM: twice, or once where an update of the
                masks stands in place of the weight step). Without it the gradients must be there already.
            scaler: Loss scaler of mixed precision. A step it finds non-finite is skipped whole, the mask update
                included, which then happens at the next finite step.
            metrics: Gives ``train_accuracy`` (in [0, 1], of the epoch's batches, the same on all ranks); called at the
                end of an epoch if the representation's `needs_metrics` says so.

        Returns:
            The closure's loss at the weights before the step, or None without a closure.

        Raises:
            ValueError: if the representation needs metrics, or the optimizer a closure, and there are none, or if such
                an optimizer meets a scaler.
        """
        if self.representation.needs_metrics and metrics is None:
            needed = ", ".join(self.representation.needs_metrics)
            raise ValueError(
                f"representation {self.representation.name!r} reads {needed} after an epoch: "
                "call step(metrics=...) with a function that returns it"
            )
        check_call(self.optimizer, closure, scaler)
        if self.level_ended:
            raise RuntimeError(f"level {self.level} has ended: call next_level() before the next step")
        passes, repeats = None, needs_closure(self.optimizer)
        if closure is not None:
            device = next(iter(self.masks.values())).device if repeats else None
            passes = Passes(closure, self._finish_gradients, device)
        finite = True
        if scaler is not None:
            scaler.unscale_(self.optimizer)
            finite = self._all_finite()
        self._dense_grad_read = False
        apply = self.topology.after_backward(self) if finite else True
        if apply and finite:
            self.representation.before_step(self)
        if apply:
            self._finish_gradients()
            if scaler is not None:
                scaler.step(self.optimizer)
            elif repeats:
                self.optimizer.step(passes)  # pyright: ignore[reportCallIssue, reportArgumentType]
            else:
                self.optimizer.step()
            self.zero_pruned()
        if scaler is not None:
            scaler.update()
        self._step += 1
        self.skipped += not finite
        if finite:
            self.cost.count_step(self._dense_grad_read, passes.count if passes is not None else 1)
            self.topology.after_step(self)
        if self._step % self.steps_per_epoch == 0 or self._step == self.total_steps:
            self.cost.advance(self._step, self.densities())
            self.representation.after_epoch(self, metrics() if metrics and self.representation.needs_metrics else {})
        self.levels.remember(self._step)
        return None if passes is None else passes.loss

    def _finish_gradients(self) -> None:
        """Make the gradients of a pass what the optimizer is given."""
        self._rescale_gradients()
        self._add_penalty()  # as decay is, it is not rescaled
        self._mask_gradients()
        if self._clip is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self._clip)

    def next_level(self) -> None:
        """Begin the next training: the topology sets its masks, weights go back if it rewinds, the optimizer forgets.

        Call it where `level_ended`, after everything that concerns the trained network, such as its evaluation.

        Raises:
            RuntimeError: if no training has ended, or none follows.
        """
        if not self.level_ended:
            raise RuntimeError("next_level() is called between two trainings alone, where level_ended is true")
        self.levels.index += 1
        self.topology.next_level(self)
        self.levels.rewind()
        self.zero_pruned()
        moments.forget(self.optimizer)

    def _all_finite(self) -> bool:
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.stack([torch.isfinite(grad).all() for grad in grads]).all()) if grads else True

    # ---- the end and the checkpoint ---------------------------------------------------------------------------------

    def finalize(self) -> dict[str, int]:
        """End training: the method's last cut, then plain weights with explicit zeros.

        Returns:
            Number of non-zero weights a layer, which is what a table counts.

        Raises:
            RuntimeError: if the masks do not hold the number of weights that the method's rule states.
        """
        self.topology.finalize(self)
        self.zero_pruned()
        self.cost.advance(self._step, self.densities())
        expected = self.expected_active()
        kept = sum(self.masks.num_active().values())
        if expected is not None and not expected - self.topology.ties_lost(self.shapes) <= kept <= expected:
            cutter = self.representation if self.sparsity_left > 0 else self.topology
            raise RuntimeError(f"{cutter.name} kept {kept} weights where its rule says {expected}")
        self.representation.fold()
        return {name: int((theta != 0).sum()) for name, theta in self.representation.weights()}

    def expected_active(self) -> int | None:
        """Number of weights that the masks hold in the end, from the rule of the one that aims at the sparsity."""
        if self.sparsity_left > 0:
            return self.representation.expected_active(self.shapes, self.sparsity_left)
        return self.topology.expected_active(self.shapes, self.sparsity)

    def expected_events(self) -> dict[str, int]:
        """Number of events by kind that a full run records."""
        expected = self.topology.expected_events(self.total_steps, self.sparsity)
        return {**expected, **self.representation.expected_events(self.total_epochs, self.sparsity_left)}

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
            "levels": self.levels.state_dict(),
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
        if "levels" in state:  # else from before there were levels
            self.levels.load_state_dict(state["levels"])
        self.events = []
