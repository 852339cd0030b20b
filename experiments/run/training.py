"""One run under way: the order of calls in its training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from experiments.config.resolve import Spec
from experiments.config.yaml_text import dump
from experiments.errors import Interrupted, RunFailure
from experiments.ranks.distributed import Ballot, World, lost_ranks_named
from experiments.rundir import outcome
from experiments.rundir.attempts import Attempt, ending
from experiments.rundir.checkpoint import Checkpoints
from experiments.rundir.files import write_json, write_text
from experiments.seeding import derived_seed

from . import schedule, state
from .build import Run, build
from .final import finish
from .ham_watch import HamWatch
from .loop import EpochMeter, evaluate
from .record import Record

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # steps done, steps in all
Stop = Callable[[], bool]


class Training:
    """One run under way: builds its objects, goes on from the checkpoint if there is one.

    Args:
        spec: The resolved specification.
        attempt: The claim on the run directory; on ranks other than 0 a claim of rank 0's.
        identity: Identity hash of the run.
        group: W&B group.
        progress: Called after every step.
        stop: Asked after every step; True on any rank ends the run on all of them at a checkpoint.
        world: The ranks.
    """

    def __init__(
        self,
        spec: Spec,
        attempt: Attempt,
        identity: str,
        group: str,
        progress: Progress,
        stop: Stop,
        world: World,
    ):
        self.spec = spec
        self.folder = attempt.folder
        self.identity = identity
        self.progress = progress
        self.stop = stop
        self.world = world
        if world.leads:
            write_text(self.folder / "spec.yaml", dump(spec.model_dump()))
            write_json(self.folder / "environment.json", outcome.environment())
        torch.manual_seed(derived_seed(spec.seed, *(("train", world.rank) if world.rank else ("train",))))
        self.objects: Run = build(spec, world)
        self.ham_watch = HamWatch(self.objects, leads=world.leads)
        self.meter = EpochMeter(self.objects.device)
        self.step = 0
        self.seconds = 0.0
        self.empty_layers: list[str] = []
        self._ballot = Ballot(world, questions=2)
        self._started = self._saved = time.monotonic()
        self.checkpoints = Checkpoints(self.folder, identity, spec.seed, spec.checkpoint.keep)
        kept, digest = state.restore(self)
        self.record = Record(attempt, spec, identity, group, kept, leads=world.leads)
        self.record.start(self.step, digest)

    def carry_out(self) -> dict[str, Any]:
        """Train to the end, evaluate once, write and return the result.

        Raises:
            RunFailure: if the run diverges or its method did not act as it must.
            Interrupted: if `stop` said so.
            LostRank: if another rank died.
        """
        try:
            with ending(lambda reason: self.record.end(self.step, reason)), lost_ranks_named(self.world):
                self._train()
                return finish(self)
        finally:
            self.objects.data.close()

    def _train(self) -> None:
        run, per_epoch = self.objects, self.objects.data.steps_per_epoch
        self.drain_events()
        while self.step < run.total_steps:
            epoch, start = divmod(self.step, per_epoch)
            for images, labels in run.data.batches(epoch, start):
                self._train_step(images, labels)
                self.record.beat(self.step, run.total_steps)
                self.progress(self.step, run.total_steps)
                due = self._checkpoint_due()
                if self.step % per_epoch == 0:
                    self._end_epoch()
                    self._next_level()
                    due = True
                stop, late = self._ballot.cast(self.stop(), self._late())
                if stop and self.step < run.total_steps:
                    self._ballot.settle()
                    self._save()
                    raise Interrupted(
                        f"stopped at step {self.step} of {run.total_steps}; the same command resumes it",
                        where=str(self.folder),
                    )
                if due or late:
                    self._save()
        self._ballot.settle()

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        run, spec = self.objects, self.spec
        share = schedule.share(spec.schedule, run.sparse.step_in_level, run.data.steps_per_epoch)
        for group in run.optimizer.param_groups:
            group["lr"] = spec.optimizer.lr * share
        passes = count()
        run.sparse.step(lambda: self._pass(images, labels, next(passes)), scaler=run.scaler, metrics=self._metrics)
        if run.average is not None:
            run.average.update()
        self.step += 1
        self.ham_watch.after_step(self.step, self.record)
        self.drain_events()

    def _pass(self, images: torch.Tensor, labels: torch.Tensor, index: int) -> torch.Tensor:
        """Forward and backward of a step's batch; SAM makes a second pass, which counts for no metric."""
        run, spec = self.objects, self.spec
        sam, total = spec.optimizer.sam, torch.zeros((), device=run.device)
        alone = index == 0 and sam is not None and sam.perturbation == "local"
        run.optimizer.zero_grad(set_to_none=True)
        parts = spec.runtime.accumulate
        for part, (inputs, targets) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True), 1):
            with self._silent(until=part == parts and not alone):
                with self.autocast():
                    logits = run.forward(inputs)
                    loss = cross_entropy(logits, targets, label_smoothing=spec.loss.label_smoothing)
                scaled = loss if parts == 1 else loss / parts
                (scaled if run.scaler is None else run.scaler.scale(scaled)).backward()
            total += scaled.detach()
            if index == 0:
                self.meter.add(loss, logits, targets, self.step)
        return total

    def _metrics(self) -> dict[str, float]:
        """What a representation may ask of an epoch that has just ended; all ranks must call it."""
        loss, accuracy, _ = self.meter.result(self.world)
        return {"train_loss": loss, "train_accuracy": accuracy}

    def _silent(self, *, until: bool) -> AbstractContextManager[Any]:
        """Ranks exchange gradients in the last micro-batch only, and not at all for a perturbation of their own."""
        return nullcontext() if until or self.world.size == 1 else self.objects.forward.no_sync()  # pyright: ignore

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        if self.spec.runtime.amp == "none":
            return nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.spec.runtime.amp]
        return torch.autocast(self.objects.device.type, dtype=dtype)

    def drain_events(self) -> None:
        """Record what the methods did, and make sure that all ranks did the same."""
        run = self.objects
        if not run.sparse.events:
            return
        if self.world.size > 1:
            self.world.check_equal(f"masks after step {self.step}", run.sparse.masks.digest())
        for event in run.sparse.events:
            self.record.write({"kind": "event", **event})
        run.sparse.events.clear()
        for name, density in run.sparse.densities().items():
            if density == 0 and name not in self.empty_layers:
                self.empty_layers.append(name)
                log.warning("step %d: layer %s has no weights left", self.step, name)

    def _end_epoch(self) -> None:
        run = self.objects
        loss, accuracy, bad = self.meter.result(self.world)
        if bad is not None:
            raise RunFailure(
                f"the loss is not finite at step {bad}, in epoch {bad // run.data.steps_per_epoch + 1}: the run "
                "diverged; a lower optimizer.lr, optimizer.ham.alpha or a clip_grad_norm may help",
                where=str(self.folder),
            )
        self.meter = EpochMeter(run.device)
        validation = None
        if run.data.count("validation"):
            state.share_buffers(run.model, self.world)
            with self.autocast():
                validation = evaluate(run.model, run.data.evaluate_batches("validation"), self.world)
        densities, sizes = run.sparse.densities(), run.sparse.masks.sizes
        self.record.write(
            {
                "kind": "epoch",
                **({"level": run.sparse.level} if run.sparse.levels.count > 1 else {}),
                "epoch": self.step // run.data.steps_per_epoch,
                "step": self.step,
                "loss": loss,
                "train_accuracy": accuracy,
                "validation_loss": validation[0] if validation else None,
                "validation_accuracy": validation[1] if validation else None,
                "lr": run.optimizer.param_groups[0]["lr"],
                "density": sum(densities[n] * sizes[n] for n in sizes) / sum(sizes.values()),
                "train_flops_fraction": run.sparse.cost.fraction(run.macs),
                "seconds": round(self.elapsed(), 3),
            }
        )

    def _next_level(self) -> None:
        """Begin the next training where one has ended; a checkpoint of this step is of what then begins."""
        run = self.objects
        if run.sparse.level_ended:
            run.sparse.next_level()
            self.ham_watch.new_level()
            if run.average is not None:
                run.average.restart()
            self.drain_events()

    def elapsed(self) -> float:
        """Seconds of training in all attempts."""
        return self.seconds + time.monotonic() - self._started

    def _checkpoint_due(self) -> bool:
        every = self.spec.checkpoint.every_steps
        return bool(every and self.step % every == 0)

    def _late(self) -> bool:
        """Whether this rank's clock says it is time; the ranks vote, since clocks differ."""
        minutes = self.spec.checkpoint.every_minutes
        return minutes is not None and time.monotonic() - self._saved > 60 * minutes

    def _save(self) -> None:
        content = state.collect(self)  # all ranks give their part
        if self.world.leads:
            self.record.saved(self.checkpoints.save(self.step, content))
        self._saved = time.monotonic()
