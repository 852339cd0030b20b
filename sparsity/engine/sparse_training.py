"""`SparseTraining`: one training step, and the order of its parts.

The parts are, in this order: the caller's backward pass; undo the loss scaling; the topology reads the dense dL/dθ and
may change the masks; add the gradient of the representation's penalty; mask the gradients; clip them; optimizer step;
set pruned weights to zero; hooks of the topology and the representation. The order is the same for all methods.

Because gradients are masked, active weights follow exactly the trajectory of a network that has only them. Pruned
weights are exactly zero after every step: they are set to zero since some optimizers change weights whose gradient is
zero. An optimizer that evaluates the batch again (SAM) gets the gradients of that pass with penalty, masked and clipped
like the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsity.masks import MaskSet
from sparsity.options import TrainingError
from sparsity.probe import Probe
from sparsity.representation import Representation
from sparsity.state import on_device
from sparsity.topology import Topology

from . import moments, starts
from .course import Course
from .passes import Passes, check_call, needs_closure
from .promises import SOON, Promises
from .scaling import unscale
from .settings import RunSettings
from .written import OutsideMasks

log = logging.getLogger(__name__)


class SparseTraining(Course):
    """Trains one represented model with one topology; made by `attach`.

    In a loop: `step` in place of ``optimizer.step()``, `next_level` whenever `level_ended` is true (methods that train
    several times), `finalize` at the end; `state_dict` and `load_state_dict` resume.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = sparsity.attach("gmp", model, optimizer, sparsity=0.5, total_steps=30, update_every=10)
        >>> for _ in range(30):
        ...     loss = model(torch.ones(4, 10)).square().mean(); loss.backward(); sparse.step()
        >>> sparse.masks["weight"].sum(), sparse.densities(), len(sparse.events)
        (tensor(50), {'weight': 0.5}, 2)

    Attributes:
        masks: The present masks, a `MaskSet`: a bool tensor by weight name.
        shapes: Shape by name of every weight that sparsity is counted over.
        prunable: The part of `shapes` that may be pruned.
        events: What the methods did, in order: mappings with ``event``, ``step``, ``epoch``, ``changed`` (entries) and,
            of masks, ``dropped``, ``grown`` and ``density``. You may clear the list.
        event_counts: Number of events by kind.
        idle: Number of events by kind that were to change masks and changed none.
        emptied: Names of the layers that lost all their weights at some time.
        cost: Multiply-adds of training so far, see `sparsity.engine.flops`.
        sparsity: Target fraction of zeros, in [0, 1).
        total_steps: Steps of all trainings of the run.
        levels: The trainings that the run consists of; one for most topologies.
        skipped: Number of steps whose gradients were not finite under a loss scaler.
        topology: The topology.
        representation: The representation of the network.
        optimizer: The optimizer of all its parameters.
        settings: Settings of the run, as `attach` was given them.
        probe: Data and loss for the topology's initial masks; None afterwards, since it may hold data.

    Raises:
        TrainingError: by its methods, where the training does not do what the topology needs.

    Notes:
        `densities()` is the fraction of active weights by layer, `summary()` a table of all layers, `steps_done`,
        `epoch`, `level` and `progress` say where the training is, `weight(name)` is θ of a layer. It implements the
        `Context` protocol, which methods read.
    """

    def __init__(
        self,
        topology: Topology,
        representation: Representation,
        optimizer: Optimizer,
        settings: RunSettings,
        probe: Probe | None = None,
    ):
        super().__init__(topology, representation, optimizer, settings)
        self._final: dict[str, int] | None = None
        if self.sparsity > 0:
            self.shapes = representation.shapes(topology.roles)
            dense = topology.dense_layers(self.shapes)
            self.prunable = {name: shape for name, shape in self.shapes.items() if name not in dense}
        self.skipped = 0
        self.probe = probe
        self._promises = Promises(
            representation,
            optimizer,
            self.total_steps,
            soon=min(SOON, self.steps_per_epoch, self.total_steps),
            by=min(self.steps_per_epoch, self.total_steps),
        )
        before = starts.pattern(representation)
        self._weights_before: starts.WeightsBefore | None = starts.WeightsBefore(representation, optimizer, before)
        with self._selecting():
            initial = topology.initial_masks(self)
            if initial is not None and self.sparsity > 0:
                self.set_masks(initial, "initial")
        self._weights_before.pruned_by(self.masks)
        self.probe = None
        self._outside = OutsideMasks(representation)
        starts.tell(self, before)
        representation.attached = True

    # ---- the step ---------------------------------------------------------------------------------------------------

    def step(
        self,
        closure: Callable[[], Tensor] | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
        metrics: Callable[[], Mapping[str, float]] | None = None,
        look: Callable[[], None] | None = None,
    ) -> Tensor | None:
        """Do one training step after `loss.backward()`; replaces `optimizer.step()`.

        Args:
            closure: Clears gradients, runs forward and backward and returns the loss; called with gradients enabled,
                once, or as often as an optimizer that `needs_closure` asks (SAM: twice, or once if an update of the
                masks replaces the weight step). Without it the gradients must have been computed already.
            scaler: Loss scaler of mixed precision, which may have unscaled the gradients already. A step whose
                gradients are not finite is skipped, including the update of masks, which then happens at the next
                finite step.
            metrics: Returns ``train_accuracy`` (in [0, 1], of the epoch's batches, the same on all ranks); called at
                the end of an epoch if the representation has `needs_metrics`.
            look: Called once the optimizer has moved and before the methods act on what it made, to evaluate the
                network that was trained and not the one that was cut after it.

        Returns:
            The closure's loss at the weights before the step, or None without a closure.

        Raises:
            ValueError: if the representation needs metrics, or the optimizer a closure, that is not given, or if such
                an optimizer is used with a scaler.
            TrainingError: if `next_level` must be called first; for a step beyond `total_steps` or after `finalize`; if
                a layer was replaced, or no gradient reaches one; if masks are due but values are NaN or infinite.
        """
        self._check_step(closure, scaler, metrics)
        passes = None
        if closure is not None:
            device = next(iter(self.masks.values())).device if needs_closure(self.optimizer) else None
            passes = Passes(closure, self._finish_gradients, device)
        finite = True
        if scaler is not None:
            finite = unscale(scaler, self.optimizer)
        self._dense_grad_read = False
        self._promises.after_backward(self._step)
        with self._selecting():
            moves = not finite or self._asked_to_move()
        if moves:
            self._move_weights(finite, scaler, passes)
        else:  # else a scheduler would warn of an optimizer's step that was forgotten
            self.optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]
        if scaler is not None:
            scaler.update()
        self._step += 1
        self.skipped += not finite
        if look is not None:
            look()
        if finite:
            self.cost.count_step(self._dense_grad_read, passes.count if passes is not None else 1)
            with self._selecting():
                self.topology.after_step(self)
        if self._step % self.steps_per_epoch == 0 or self._step == self.total_steps:
            self._end_epoch(metrics)
        self.levels.remember(self._step)
        return None if passes is None else passes.loss

    def _asked_to_move(self) -> bool:
        moves = self.topology.after_backward(self)
        if not isinstance(moves, bool):
            raise TrainingError(
                f"topology {self.topology.name!r}: after_backward returned {moves!r}; True lets the optimizer step, "
                "False leaves that step out"
            )
        return moves

    def _end_epoch(self, metrics: Callable[[], Mapping[str, float]] | None) -> None:
        densities = self.densities()
        self.cost.advance(self._step, densities)
        self.tell_emptied(densities)
        self._promises.check_layers()
        with self._selecting(self.representation):
            self.representation.after_epoch(self, metrics() if metrics and self.representation.needs_metrics else {})

    def _check_step(
        self,
        closure: Callable[[], Tensor] | None,
        scaler: torch.amp.GradScaler | None,
        metrics: Callable[[], Mapping[str, float]] | None,
    ) -> None:
        if self._final is not None:
            raise TrainingError("finalize() has ended this training: call attach() for another one")
        if self.representation.needs_metrics and metrics is None:
            needed = ", ".join(self.representation.needs_metrics)
            raise ValueError(
                f"representation {self.representation.name!r} reads {needed} after an epoch: "
                "call step(metrics=...) with a function that returns it"
            )
        check_call(self.optimizer, closure, scaler)
        if self.level_ended:
            raise TrainingError(f"level {self.level} has ended: call next_level() before the next step")
        self._promises.before_step(self._step)
        self._weights_before = None
        if self._outside.due or (self._step + 1) % self.steps_per_epoch == 0:
            self._look_outside()

    def _look_outside(self) -> None:
        """Check layers and weights after they may have been loaded or written by others."""
        self._promises.check_layers()
        self._outside.look(self._pruned, self._step)

    def _move_weights(self, finite: bool, scaler: torch.amp.GradScaler | None, passes: Passes | None) -> None:
        """Do the optimizer's step, with masked gradients; a loss scaler leaves it out if they are not finite."""
        if finite:
            self.representation.before_step(self)
        self._finish_gradients()
        with self._promises.own_step():
            if scaler is not None:
                scaler.step(self.optimizer)
            elif needs_closure(self.optimizer):
                self.optimizer.step(passes)  # pyright: ignore[reportCallIssue, reportArgumentType]
            else:
                self.optimizer.step()
        self.zero_pruned()

    def _finish_gradients(self) -> None:
        """Turn the gradients of a pass into those that the optimizer receives."""
        self._rescale_gradients()
        self._add_penalty()  # like weight decay it is not rescaled
        self._mask_gradients()
        if self.settings.clip_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.settings.clip_grad_norm)

    def next_level(self) -> None:
        """Start the next training: the topology sets masks, weights are reset if it rewinds, the optimizer is cleared.

        Call it if `level_ended`, after everything that concerns the trained network, such as its evaluation.

        Raises:
            TrainingError: if no training has ended, or none follows.
        """
        if not self.level_ended:
            raise TrainingError("next_level() is called between two trainings alone, where level_ended is true")
        self.levels.index += 1
        with self._selecting():
            self.topology.next_level(self)
        self.levels.rewind()
        self.zero_pruned()
        moments.clear(self.optimizer)

    # ---- the end and the checkpoint ---------------------------------------------------------------------------------

    def finalize(self) -> dict[str, int]:
        """End training: a last pruning if the method has one, then plain weights with explicit zeros.

        The network is plain afterwards whatever happens, except where another training is due: nothing changes then. A
        second call returns the same numbers.

        Returns:
            Number of non-zero weights per layer, which tables report.

        Raises:
            TrainingError: if the number of active weights is not the one that the method states, as after too few
                steps, or if another training of several is due.
        """
        if self._final is not None:
            return dict(self._final)
        if self.level_ended:
            raise TrainingError(
                f"{self.level + 1} of {self.levels.count} trainings are done: call next_level() and go on with the "
                f"next one, of {self.levels.steps} steps. Nothing is lost: the network is as it was before this call, "
                "and sparsity.plain_copy returns it with plain weights"
            )
        early = ""
        if self._step < self.total_steps:
            of_levels = f", {self.level + 1} of {self.levels.count} trainings" if self.levels.count > 1 else ""
            early = f"finalize() was called after {self._step} of {self.total_steps} steps{of_levels}"
            log.warning("%s: schedules have not ended", early)
        try:
            self._look_outside()
            with self._selecting():
                self.topology.finalize(self)
            self.zero_pruned()
            self.cost.advance(self._step, self.densities())
            self._check_count(early)
        finally:
            self._promises.end()
            self._outside.end()
            self.representation.fold()
            self._final = {name: int((theta != 0).sum()) for name, theta in self.representation.weights()}
        self.tell_emptied(self._final)
        self._tell_end(early)
        return dict(self._final)

    def _tell_end(self, early: str) -> None:
        """Say what was due in a whole training and has not happened, and which weights are no numbers."""
        for kind, number in self.idle.items():
            count = self.event_counts[kind]
            level = logging.WARNING if number == count else logging.INFO
            log.log(level, "%d of %d events %r changed no mask", number, count, kind)
        for kind, due in () if early else self.expected_events().items():
            seen = self.event_counts.get(kind, 0)
            if seen < due:
                skipped = f"; {self.skipped} steps were skipped" if self.skipped else ""
                log.warning("%d %s events were due, %d happened%s", due, kind, seen, skipped)
        broken = [name for name, theta in self.representation.weights() if not bool(torch.isfinite(theta).all())]
        if broken:
            log.warning("the weights of %s hold NaN or infinity: the training has diverged", ", ".join(broken[:3]))

    def _check_count(self, early: str) -> None:
        expected = self.expected_active()
        active = sum(self.masks.num_active().values())
        if expected is not None and not expected - self.topology.ties_lost(self.shapes) <= active <= expected:
            method = self.representation if self.sparsity_left > 0 else self.topology
            reason = f": {early}" if early else ""
            raise TrainingError(f"{method.name} kept {active} weights where its rule says {expected}{reason}")

    @property
    def _kind(self) -> dict[str, Any]:
        names = {"topology": self.topology.name, "representation": self.representation.name}
        return {**names, "sparsity": self.sparsity, "total_steps": self.total_steps}

    def state_dict(self) -> dict[str, Any]:
        """Return all state except that of the model and of the optimizer."""
        if self._final is None and self._outside.due:
            self._outside.look(self._pruned, self._step)
        return {
            "of": self._kind,
            "step": self._step,
            "masks": self.masks.state_dict(),
            "topology": self.topology.state_dict(),
            "representation": self.representation.state_dict(),
            "cost": self.cost.state_dict(),
            "event_counts": dict(self.event_counts),
            "emptied": list(self.emptied),
            "idle": dict(self.idle),
            "skipped": self.skipped,
            "levels": self.levels.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; load the model and the optimizer first, both after `attach`.

        If the network was loaded before `attach`, whose first masks pruned it, its weights are put back.

        Raises:
            ValueError: if it is no such state, or that of another method, sparsity, length or network.
            TrainingError: if the optimizer was loaded before `attach`, too, or after `finalize`.
        """
        if self._final is not None:
            raise TrainingError("finalize() has ended this training: call attach() for another one")
        if not (isinstance(state, Mapping) and {"of", "step", "masks"} <= set(state) and type(state["step"]) is int):
            raise ValueError("this is no state of a sparse training: it lacks 'of', 'step' or 'masks'")
        if not 0 <= state["step"] <= self.total_steps:
            raise ValueError(f"this state is after step {state['step']}, which is not one of {self.total_steps}")
        for key, own in self._kind.items():
            if state["of"].get(key) != own:
                raise ValueError(
                    f"this state is of another training: its {key} is {state['of'].get(key)!r}, not {own!r}"
                )
        device = self.weight(next(iter(self.masks))).device  # the network may have been moved since `attach`
        masks = MaskSet.from_state_dict(state["masks"], device)
        if {n: tuple(m.shape) for n, m in masks.items()} != dict(self.shapes):
            raise ValueError("the masks in this state belong to another network")
        if self._weights_before is not None:
            self._weights_before.restore(self.optimizer, masks)
        self._step = state["step"]
        self._adopt(masks)
        self.topology.load_state_dict(on_device(state["topology"], device))
        self.representation.load_state_dict(on_device(state["representation"], device))
        self.cost.load_state_dict(state["cost"])
        self.event_counts = dict(state["event_counts"])
        self.emptied = list(state["emptied"])
        self.idle = dict(state["idle"])
        self.skipped = state["skipped"]
        self.levels.load_state_dict(state["levels"])
        self.events = []
