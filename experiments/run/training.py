"""The training of one run: what happens in a step, at the end of an epoch and of a level, in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.config.schema import Spec
from experiments.errors import Interrupted, RunFailure
from experiments.ranks.distributed import StepVote, World, share_buffers
from experiments.rundir import checkpoint
from experiments.rundir.attempts import Attempt
from experiments.rundir.checkpoint import Checkpoints
from experiments.seeding import derived_seed
from sparsity.options import TrainingError

from . import reuse, state
from .build import build
from .diagnostics import Diagnostics, Pace
from .ham_watch import HamWatch
from .metrics import EpochMeter, density_of, evaluate
from .numerics import autocast
from .schedule import lr_multiplier
from .writer import RunWriter

log = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]  # steps done, steps of the whole run
Stop = Callable[[], bool]


class Training:
    """One run under way, from fresh objects or from its last checkpoint; `start` comes before `train`.

    Args:
        spec: The resolved specification.
        attempt: The claim on the run directory; on ranks other than 0 a claim of rank 0's.
        identity: Identity hash of the run.
        on_step: Called after every step.
        stop: Asked after every step; True on any rank ends the run on all of them at a checkpoint.
        world: The ranks.
    """

    def __init__(
        self,
        spec: Spec,
        attempt: Attempt,
        identity: str,
        on_step: OnStep,
        stop: Stop,
        world: World,
    ):
        self.spec, self.identity, self.world = spec, identity, world
        self.folder = attempt.folder
        self._attempt = attempt
        self._on_step, self._stop = on_step, stop
        torch.manual_seed(derived_seed(spec.seed, *(("train", world.rank) if world.rank else ("train",))))
        resumes = world.broadcast(bool(checkpoint.found(self.folder)) if world.is_main else None)
        self.objects = build(spec, world, resumes=resumes)
        self.progress = state.Progress(EpochMeter(self.objects.device))
        self.checkpoints = Checkpoints(self.folder, identity, spec.seed, spec.checkpoint.keep)
        self._watch = HamWatch(self.objects, is_main=world.is_main)
        self.diagnostics = Diagnostics(self.objects.sparse, is_main=world.is_main)
        self._pace = Pace(self.objects.device)
        self._vote = StepVote(world, questions=2)
        self._saved = time.monotonic()
        self._seen: dict[str, Any] = {}  # of the epoch that ends

    def start(self) -> None:
        """Resume from the newest checkpoint, if there is one, and open the files of this attempt."""
        good, digest = state.restore(
            self.objects, self.progress, self._watch, self.diagnostics, self.checkpoints, self.world
        )
        run = self.objects
        reuse.check_used(self.spec, self.identity, run.data.content_hash, run.initial_weights, self.folder)
        per_epoch, is_main = run.data.steps_per_epoch, self.world.is_main
        self.writer = RunWriter(self._attempt, self.spec, per_epoch, good, is_main=is_main)
        self.writer.start(self.progress.step, digest)

    def train(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: if `stop` said so on any rank; a checkpoint is written first.
            RunFailure: if the run diverges.
        """
        run, progress, per_epoch = self.objects, self.progress, self.objects.data.steps_per_epoch
        self.record_events()  # of the initial masks
        while progress.step < run.total_steps:
            epoch, start = divmod(progress.step, per_epoch)
            self._pace.begin(progress.step)
            for images, labels in run.data.batches(epoch, start):
                self._train_step(images, labels)
                self.writer.beat(progress.step, run.total_steps)
                self._on_step(progress.step, run.total_steps)
                epoch_ended = progress.step % per_epoch == 0
                if epoch_ended:
                    self._end_epoch()
                    self._next_level()
                stop, late = self._vote.cast(self._stop(), self._late())
                if stop and progress.step < run.total_steps:
                    self._interrupt()
                if epoch_ended or late or self._checkpoint_due():
                    self._save()
        self._vote.settle()

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        run, spec = self.objects, self.spec
        for group in run.optimizer.param_groups:
            group["lr"] = spec.optimizer.lr * lr_multiplier(
                spec.schedule, run.sparse.step_in_level, run.data.steps_per_epoch
            )
        passes = count()  # one per step; SAM makes a second
        epoch_ends = (self.progress.step + 1) % run.data.steps_per_epoch == 0
        total = run.data.last_batch if epoch_ends else spec.data.batch_size
        # In order: forward and backward; the topology reads the dense gradient and may change masks; gradients of
        # pruned weights become zero; the optimizer steps, HAM's factor included; pruned weights become zero.
        try:
            run.sparse.step(
                lambda: self._forward_backward(images, labels, total, first=next(passes) == 0),
                scaler=run.scaler,
                metrics=self._epoch_metrics,
                look=self._look if epoch_ends else None,
            )
        except TrainingError as error:
            raise RunFailure(str(error), where=str(self.folder)) from None
        if run.average is not None:
            run.average.update()
        self.progress.step += 1
        self._watch.after_step(self.progress.step, self.writer)
        self.record_events()

    def _forward_backward(self, images: Tensor, labels: Tensor, in_batch: int, *, first: bool) -> Tensor:
        """Compute the loss of a step's batch and its gradients; SAM's second pass counts for no metric.

        Ranks average their gradients, so a part counts as its share of `in_batch`, the images of all ranks: shares
        differ where the last batch of an epoch cannot be divided evenly.
        """
        run, spec = self.objects, self.spec
        parts, total = spec.runtime.accumulate, torch.zeros((), device=run.device)
        run.optimizer.zero_grad(set_to_none=True)
        for part, (inputs, targets) in enumerate(
            zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True), 1
        ):
            with self._exchange(last=part == parts, first=first):
                with self.autocast():
                    logits = run.forward(inputs)
                    loss = cross_entropy(logits, targets, label_smoothing=spec.loss.label_smoothing)
                shares = in_batch / (len(targets) * self.world.size)
                scaled = loss if shares == 1 else loss / shares
                (scaled if run.scaler is None else run.scaler.scale(scaled)).backward()
            total += scaled.detach()
            if first:
                self.progress.meter.add(loss, logits, targets, self.progress.step)
        return total

    def _exchange(self, *, last: bool, first: bool) -> AbstractContextManager[Any]:
        """Let ranks average gradients in the last micro-batch only, and not at all for a perturbation of their own."""
        sam = self.spec.optimizer.sam
        local = first and sam is not None and sam.perturbation == "local"
        if self.world.size == 1 or (last and not local):
            return nullcontext()
        return self.objects.forward.no_sync()  # pyright: ignore

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that sets the precision of forward passes."""
        return autocast(self.spec.runtime, self.objects.device)

    def record_events(self) -> None:
        """Record what the methods did, and make sure that all ranks did the same."""
        run, step = self.objects, self.progress.step
        if not run.sparse.events:
            return
        if self.world.size > 1:
            self.world.check_equal(f"masks after step {step}", run.sparse.masks.digest())
        for event in run.sparse.events:
            self.writer.write({"kind": "event", **event})
        run.sparse.events.clear()

    def _end_epoch(self) -> None:
        run, step = self.objects, self.progress.step
        loss, accuracy, bad = self.progress.meter.result(self.world)
        if bad is not None:
            raise RunFailure(
                f"the loss is not finite at step {bad}, in epoch {bad // run.data.steps_per_epoch + 1}: the run "
                "diverged; a lower optimizer.lr, optimizer.ham.alpha or a clip_grad_norm may help",
                where=str(self.folder),
            )
        self.progress.meter = EpochMeter(run.device)
        self.writer.write(
            {
                "kind": "epoch",
                **({"level": run.sparse.level} if run.sparse.levels.count > 1 else {}),
                "epoch": step // run.data.steps_per_epoch,
                "step": step,
                "loss": loss,
                "train_accuracy": accuracy,
                "lr": run.optimizer.param_groups[0]["lr"],
                "train_flops_fraction": run.sparse.cost.fraction(run.macs),
                **self._seen,
                "seconds": round(self.progress.elapsed(), 3),
            }
        )

    def _look(self) -> None:
        """Validate what an epoch has trained, and note its signs and masks, which may change at the epoch's end."""
        run, validation = self.objects, None
        pace = self._pace.end(self.progress.step + 1, self.spec.data.batch_size)
        if run.data.count("validation"):
            share_buffers(run.model, self.world)
            with self.autocast():
                validation = evaluate(run.model, run.data.evaluate_batches("validation"), self.world)
        self._seen = {
            "validation_loss": validation[0] if validation else None,
            "validation_accuracy": validation[1] if validation else None,
            "density": density_of(run.sparse),
            **self.diagnostics.look(),
            **pace,
        }

    def _epoch_metrics(self) -> dict[str, float]:
        """Return what a representation may ask of an epoch that has just ended; all ranks must call it."""
        loss, accuracy, _ = self.progress.meter.result(self.world)
        return {"train_loss": loss, "train_accuracy": accuracy}

    def _next_level(self) -> None:
        """Begin the next level where one has ended; a checkpoint of this step holds the new level."""
        run = self.objects
        if run.sparse.level_ended:
            run.sparse.next_level()
            self._watch.new_level()
            self.diagnostics.restart()
            if run.average is not None:
                run.average.restart()
            self.record_events()

    def _checkpoint_due(self) -> bool:
        every = self.spec.checkpoint.every_steps
        return bool(every and self.progress.step % every == 0)

    def _late(self) -> bool:
        """Ask this rank's clock whether a checkpoint is due; the ranks vote, since clocks differ."""
        minutes = self.spec.checkpoint.every_minutes
        return minutes is not None and time.monotonic() - self._saved > 60 * minutes

    def _save(self) -> None:
        # all ranks give their part
        content = state.collect(
            self.objects, self.progress, self._watch, self.diagnostics, self.writer.sync(), self.world
        )
        if self.world.is_main:
            self.writer.saved(self.checkpoints.save(self.progress.step, content, self.writer.check))
        self._saved = time.monotonic()

    def _interrupt(self) -> None:
        self._vote.settle()
        self._save()
        raise Interrupted(
            f"stopped at step {self.progress.step} of {self.objects.total_steps}; the same command resumes it",
            where=str(self.folder),
        )
