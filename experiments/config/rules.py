"""Rules between keys of a configuration, of different sections or of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .problems import Problem
from .schema import ScheduleSpec, Spec

CPU_ONLY = "to train without a GPU all the same, write resources.cpu_only=true"
_FULL_SIZE, _LARGE = 224, 128  # pixels of an ImageNet image, and from where CPUs are hopeless


def contradictions(spec: Spec) -> list[Problem]:
    """Find all keys that are valid alone and not together."""
    return [*_optimizer(spec), *_schedule(spec.schedule), *_rest(spec)]


def takes_gpu(spec: Spec) -> Problem | None:
    """Say why a run takes a GPU: its precision, or ImageNet at a size that CPUs need months for; None if it does not.

    Nor does one that says `resources.cpu_only`.
    """
    size = spec.data.image_size or _FULL_SIZE
    if spec.resources.cpu_only:
        return None
    if spec.runtime.amp != "none":
        return Problem(("runtime", "amp"), f"{spec.runtime.amp} is for GPUs")
    if spec.data.name == "imagenet" and size >= _LARGE:
        return Problem(("data", "name"), f"imagenet at {size} pixels takes a GPU")
    return None


def _optimizer(spec: Spec) -> Iterator[Problem]:
    optimizer, key = spec.optimizer, ("optimizer", "nesterov")
    if optimizer.nesterov and optimizer.name != "sgd":
        yield Problem(key, f"only sgd has Nesterov momentum, not {optimizer.name}; write false")
    elif optimizer.nesterov and optimizer.momentum == 0:
        yield Problem(key, "Nesterov momentum needs optimizer.momentum > 0")
    yield from _sam(spec)


def _sam(spec: Spec) -> Iterator[Problem]:
    sam = spec.optimizer.sam
    if sam is None:
        return
    if spec.runtime.amp == "fp16":
        yield Problem(
            ("runtime", "amp"), "fp16 needs a loss scaler, which optimizer.sam cannot have; write bf16 or none"
        )
    if sam.gradient == "first" and spec.optimizer.ham is None:
        yield Problem(("optimizer", "sam", "gradient"), "'first' says what HAM sees, but optimizer.ham is null")
    elif sam.gradient == "first" and sam.perturbation == "local":
        text = "'local' gives each rank a first gradient of its own, so HAM cannot take it: write reduced, or perturbed"
        yield Problem(("optimizer", "sam", "perturbation"), f"{text} for optimizer.sam.gradient")
    if sam.perturbation == "local" and _acts_before_steps(spec.representation.name):
        text = f"'local' gives each rank gradients of its own, which {spec.representation.name} goes by; write reduced"
        yield Problem(("optimizer", "sam", "perturbation"), text)


def _acts_before_steps(name: str) -> bool:
    from sparsity import Representation, registry

    return registry.representation(name).before_step is not Representation.before_step


def _schedule(schedule: ScheduleSpec) -> Iterator[Problem]:
    warmup, key = schedule.warmup_epochs, ("schedule", "warmup_epochs")
    if warmup >= schedule.epochs:
        yield Problem(key, f"{warmup:g} is out of range: must be < schedule.epochs, which is {schedule.epochs}")
    elif warmup and schedule.name == "triangular":
        yield Problem(key, f"{warmup:g} is out of range: triangular has a warm-up of its own; write 0")
    elif warmup % 1 and schedule.per == "epoch":
        yield Problem(key, f"{warmup:g} is not a whole number, which schedule.per: epoch needs")
    if schedule.name == "triangular" and schedule.per == "epoch":
        yield Problem(("schedule", "per"), "triangular changes the rate each step; write step")
    yield from _milestones(schedule)


def _milestones(schedule: ScheduleSpec) -> Iterator[Problem]:
    milestones, key = schedule.milestones, ("schedule", "milestones")
    listed = ", ".join(f"{milestone:g}" for milestone in milestones)
    if schedule.name != "multistep":
        if milestones:
            yield Problem(key, f"only multistep has milestones, not {schedule.name}; write []")
    elif not milestones:
        text = "multistep needs schedule.milestones, the epochs after which the rate falls, such as [30, 60]"
        yield Problem(("schedule", "name"), text)
    elif any(later <= earlier for earlier, later in pairwise(milestones)):
        yield Problem(key, f"{listed} do not ascend")
    elif milestones[0] < schedule.warmup_epochs or milestones[-1] >= schedule.epochs:
        limits = f"schedule.warmup_epochs, {schedule.warmup_epochs:g}, and < schedule.epochs, {schedule.epochs}"
        yield Problem(key, f"{listed} are out of range: must be >= {limits}")


def _rest(spec: Spec) -> Iterator[Problem]:
    from experiments.models.networks import MODELS

    if spec.data.evaluate_on == "validation" and spec.data.validation == 0:
        yield Problem(("data", "evaluate_on"), "'validation' needs held-out images, but data.validation is 0")
    if spec.model.options and spec.model.name in MODELS:
        text = f"the suite's own model {spec.model.name!r} takes no options; write {{}}"
        yield Problem(("model", "options"), text)
    if spec.runtime.sync_batch_norm and spec.runtime.device == "cpu":
        yield Problem(("runtime", "sync_batch_norm"), "batch statistics over all ranks need GPUs; write false")
