"""The state of one run under way, and the order of calls in its training."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sparsity.flops import inference_fraction

from . import checkpoint, outcome
from .build import Run, build
from .errors import Interrupted, RunFailure
from .files import JsonLines, read_json_lines, write_json, write_text
from .loop import EpochMeter, evaluate
from .schedule import factor
from .seeding import derived_seed
from .spec import Spec
from .tracking import WandbMirror
from .yaml_io import dump

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # steps done, steps in all
Stop = Callable[[], bool]


class Training:
    """One run under way: builds its objects, goes on from the checkpoint if there is one.

    Args:
        spec: The resolved specification.
        folder: The run directory; the caller holds its lock.
        identity: Identity hash of the run.
        group: W&B group.
        progress: Called after every step.
        stop: Asked after every step; True ends the run at a checkpoint.
    """

    def __init__(self, spec: Spec, folder: Path, identity: str, group: str, progress: Progress, stop: Stop):
        self.spec = spec
        self.folder = folder
        self.identity = identity
        self.progress = progress
        self.stop = stop
        write_text(folder / "spec.yaml", dump(spec.model_dump()))
        write_json(folder / "environment.json", outcome.environment())
        torch.manual_seed(derived_seed(spec.seed, "train"))
        self.objects: Run = build(spec)
        self.meter = EpochMeter(self.objects.device)
        self.step = 0
        self.seconds = 0.0
        self.empty_layers: list[str] = []
        self._started = self._saved = time.monotonic()
        kept = self._restore()
        self.metrics = JsonLines(folder / "metrics.jsonl", keep=kept)
        self.mirror = WandbMirror(spec, identity, folder, group)

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def carry_out(self) -> dict[str, Any]:
        """Train to the end, evaluate once, write and return the result.

        Raises:
            RunFailure: if the run diverges or its method did not act as it must.
            Interrupted: if `stop` said so.
        """
        try:
            self._train()
            return self._finish()
        finally:
            self.mirror.close()
            self.metrics.close()

    def _train(self) -> None:
        run, per_epoch = self.objects, self.objects.data.steps_per_epoch
        self._drain_events()
        while self.step < run.total_steps:
            epoch, start = divmod(self.step, per_epoch)
            for images, labels in run.data.batches(epoch, start):
                self._train_step(images, labels)
                self.progress(self.step, run.total_steps)
                if self.step % per_epoch == 0:
                    self._end_epoch()
                    self._save()
                elif self._checkpoint_due():
                    self._save()
                if self.stop() and self.step < run.total_steps:
                    self._save()
                    raise Interrupted(
                        f"stopped at step {self.step} of {run.total_steps}; the same command resumes it",
                        where=str(self.folder),
                    )

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        run, schedule = self.objects, self.spec.schedule
        warmup = round(schedule.warmup_epochs * run.data.steps_per_epoch)
        share = factor(schedule.name, self.step, run.total_steps, warmup)
        for group in run.optimizer.param_groups:
            group["lr"] = self.spec.optimizer.lr * share
        run.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = run.model(images)
            loss = cross_entropy(logits, labels)
        loss.backward()
        run.sparse.step()
        self.meter.add(loss, logits, labels, self.step)
        self.step += 1
        self._drain_events()

    def _autocast(self) -> Any:
        if self.spec.runtime.amp == "none":
            return nullcontext()
        return torch.autocast(self.objects.device.type, dtype=torch.bfloat16)

    def _drain_events(self) -> None:
        run = self.objects
        if not run.sparse.events:
            return
        for event in run.sparse.events:
            self._write({"kind": "event", **event})
        run.sparse.events.clear()
        for name, density in run.sparse.densities().items():
            if density == 0 and name not in self.empty_layers:
                self.empty_layers.append(name)
                log.warning("step %d: layer %s has no weights left", self.step, name)

    def _end_epoch(self) -> None:
        run = self.objects
        loss, accuracy, bad = self.meter.result()
        if bad is not None:
            raise RunFailure(
                f"the loss is not finite at step {bad}, in epoch {bad // run.data.steps_per_epoch + 1}: the run "
                "diverged; a lower optimizer.lr, optimizer.ham.alpha or a clip_grad_norm may help",
                where=str(self.folder),
            )
        self.meter = EpochMeter(run.device)
        validation = None
        if len(run.data.validation):
            with self._autocast():
                validation = evaluate(run.model, run.data.evaluate_batches("validation"))
        densities, sizes = run.sparse.densities(), run.sparse.masks.sizes
        self._write(
            {
                "kind": "epoch",
                "epoch": self.step // run.data.steps_per_epoch,
                "step": self.step,
                "loss": loss,
                "train_accuracy": accuracy,
                "validation_loss": validation[0] if validation else None,
                "validation_accuracy": validation[1] if validation else None,
                "lr": run.optimizer.param_groups[0]["lr"],
                "density": sum(densities[n] * sizes[n] for n in sizes) / sum(sizes.values()),
                "train_flops_fraction": run.sparse.cost.fraction(run.macs),
                "seconds": round(self._elapsed(), 3),
            }
        )

    def _write(self, record: dict[str, Any]) -> None:
        self.metrics.write(record)
        self.mirror.log(record)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        every, minutes = self.spec.checkpoint.every_steps, self.spec.checkpoint.every_minutes
        late = minutes is not None and time.monotonic() - self._saved > 60 * minutes
        return late or bool(every and self.step % every == 0)

    def _save(self) -> None:
        run = self.objects
        state = {
            "step": self.step,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "sparse": run.sparse.state_dict(),
            "meter": self.meter.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if run.device.type == "cuda" else [],
            "metrics_bytes": self.metrics.sync(),
            "seconds": self._elapsed(),
            "empty_layers": self.empty_layers,
        }
        checkpoint.save(self._path, self.identity, self.spec.seed, state)
        self._saved = time.monotonic()

    def _restore(self) -> int:
        """Load the checkpoint, if any; return how much of the metrics it vouches for."""
        if not self._path.exists():
            log.info("started")
            return 0
        state = checkpoint.load(self._path, self.identity, self.spec.seed)
        run = self.objects
        try:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            run.sparse.load_state_dict(state["sparse"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise RunFailure(
                f"this checkpoint does not fit the run ({reason}); remove it to start anew", where=str(self._path)
            ) from None
        self.meter.load_state_dict(state["meter"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.empty_layers = list(state["empty_layers"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        log.info("resumed at step %d", self.step)
        return state["metrics_bytes"]

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _finish(self) -> dict[str, Any]:
        run, spec = self.objects, self.spec
        outcome.check_events(run.sparse, read_json_lines(self.folder / "metrics.jsonl"), spec, self.folder)
        try:
            nonzero = run.sparse.finalize()
        except RuntimeError as error:  # a topology that holds another number of weights than it states
            raise RunFailure(str(error), where=str(self.folder)) from None
        self._drain_events()
        with self._autocast():
            loss, accuracy, images = evaluate(run.model, run.data.evaluate_batches(spec.data.evaluate_on))
        sizes = run.sparse.masks.sizes
        densities = {name: nonzero[name] / size for name, size in sizes.items()}
        result = outcome.summarise(
            spec,
            self.identity,
            read_json_lines(self.folder / "metrics.jsonl"),
            {
                "accuracy": accuracy,
                "loss": loss,
                "evaluated": images,
                "sparsity": 1 - sum(nonzero.values()) / sum(sizes.values()),
                "prunable_weights": sum(sizes.values()),
                "nonzero": sum(nonzero.values()),
                "inference_flops_fraction": inference_fraction(run.macs, densities),
                "training_flops_fraction": run.sparse.cost.fraction(run.macs),
                "layers": {name: {"size": size, "nonzero": nonzero[name]} for name, size in sizes.items()},
                "events": run.sparse.event_counts,
                "empty_layers": self.empty_layers,
                "steps": self.step,
                "seconds": round(self._elapsed(), 3),
            },
        )
        if not math.isfinite(loss):
            raise RunFailure("the final loss is not finite: the run diverged in its last steps", where=str(self.folder))
        checkpoint.save(self.folder / "weights.pt", self.identity, spec.seed, {"model": run.model.state_dict()})
        write_json(self.folder / "result.json", result)
        self._path.unlink(missing_ok=True)
        self.mirror.finish(result)
        log.info("done: accuracy %.4f on %s, sparsity %.4f", accuracy, spec.data.evaluate_on, result["sparsity"])
        return result
