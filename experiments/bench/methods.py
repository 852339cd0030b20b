"""The cost of mask work: a training step and a mask update of every method, relative to a step of plain SGD.

Everything runs on random weights and gradients; no network is evaluated, and the masks are meaningless.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from experiments.errors import UserError, nearest
from experiments.run.build import pick_device
from sparsity import registry

from .memory import Peak
from .trial import SPARSITY, Trial, build_network

# The training whose steps are sampled: ImageNet, 512 images per step.
EPOCHS, STEPS_PER_EPOCH, BATCH = 100, 1_281_167 // 512, 512
STEPS = EPOCHS * STEPS_PER_EPOCH
Calendar = dict[int, list[str]]  # index of a step -> kinds of its events


@dataclass(frozen=True)
class Cost:
    """The cost of one method; times in units of a step of the plain optimizer, memory in copies of the weights.

    Attributes:
        kind: ``topology`` (on plain weights) or ``representation`` (without a topology).
        name: Registered name.
        step: Cost of an ordinary step, beyond the optimizer's step.
        updates: Cost of a step with an event, beyond the optimizer's step, by the kind of event; an update that
            replaces the weight step saves that step.
        share: Mean cost per step beyond the optimizer's over a whole training, including updates.
        per_training: Number of events of each kind in such a training.
        memory: Peak memory beyond that of plain training, in copies of the prunable weights.
        initial_seconds: Time to set the method up, including initial masks; measured once.
    """

    kind: str
    name: str
    step: float | None
    updates: Mapping[str, float]
    share: float | None
    per_training: Mapping[str, int]
    memory: float
    initial_seconds: float


@dataclass(frozen=True)
class Found:
    """The results of a benchmark of methods.

    Attributes:
        model: Network that the shapes are from.
        device: Device of the measurements.
        weights: Number of prunable weights.
        sparsity: Fraction of pruned weights.
        optimizer_ms: Milliseconds per step of SGD with momentum.
        costs: The cost of each method.
    """

    model: str
    device: str
    weights: int
    sparsity: float
    optimizer_ms: float
    costs: Sequence[Cost] = field(default_factory=tuple)


def methods(names: Sequence[str] = (), *, model: str, device: str = "cpu", rounds: int = 5) -> Found:
    """Measure methods one after the other; the steps of each alternate with plain steps, to which they are compared.

    Args:
        names: Topologies and representations; empty for all.
        model: Network that the shapes are from, as in ``model.name``.
        device: ``cpu``, ``cuda`` or ``auto``.
        rounds: Number of repetitions, whose median is reported.

    Raises:
        UserError: for a name that is not registered or a device that is not available.
    """
    known = [("topology", name) for name in registry.topologies()]
    known += [("representation", name) for name in registry.representations()]
    every = [name for _, name in known]
    for name in names:
        if name not in every:
            raise UserError(f"{name!r} is not a method; allowed: {', '.join(every)}{nearest(name, every)}", "NAME")
    place = pick_device(device, where="--device")
    plain = _Plain(model, place)
    costs = []
    for kind, name in known:
        if not names or name in names:
            print(f"{kind} {name}", file=sys.stderr, flush=True)
            costs.append(_measure(kind, name, model, plain, rounds))
    return Found(model, str(place), plain.weights, SPARSITY, 1e3 * median(plain.seconds), tuple(costs))


class _Plain:
    """Plain training, and its time and memory: the reference for all methods."""

    def __init__(self, model: str, device: torch.device):
        self.device = device
        self.seconds: list[float] = []
        before = Peak.before(device)
        self._trial = Trial("dense", "plain", build_network(model, device), steps=1, steps_per_epoch=1)
        self.weights = sum(theta.numel() for _, theta in self._trial.rep.weights())
        self._trial.backward()
        self._optimizer = self._trial.sparse.optimizer
        self._optimizer.step()  # creates the momentum buffers
        masks = list(self._trial.sparse.masks.values())
        with Peak(device, before) as peak:
            self._trial.backward()
            self._optimizer.step()
            # without the masks, which dense training does not need
            self.peak = peak.bytes - sum(mask.nbytes for mask in masks)

    def step(self) -> float:
        """Take a step of the plain optimizer and return its seconds."""
        self._trial.backward()  # brings gradients into the caches, as for the other methods
        self.seconds.append(self._trial.timed(self._optimizer.step))
        return self.seconds[-1]


def _measure(kind: str, name: str, model: str, plain: _Plain, rounds: int) -> Cost:
    topology, representation = (name, "plain") if kind == "topology" else ("dense", name)
    calendar = _calendar(topology, representation)
    before = Peak.before(plain.device)
    network = build_network(model, plain.device)
    trial = Trial(topology, representation, network, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    memory = (_peak(trial, before, calendar) - plain.peak) / (4 * plain.weights)
    ordinary, updates = _timed(trial, plain, calendar, rounds)
    numbers = _per_training(trial)
    steps = trial.sparse.total_steps
    costs = {event: median(found) for event, found in updates.items()}
    step = median(ordinary) if ordinary else None
    share = None
    if numbers.keys() <= costs.keys():
        rates = {event: number / steps for event, number in numbers.items()}
        rest = max(0.0, 1 - sum(rates.values()))
        share = (step or 0.0) * rest + sum(rates[event] * costs[event] for event in rates)
    return Cost(kind, name, step, costs, share, numbers, memory, trial.initial_seconds)


def _peak(trial: Trial, before: Any, calendar: Calendar) -> int:
    """Return the peak bytes over one event of each kind, each followed by an ordinary step."""
    trial.step()  # creates the momentum buffers
    saved, most = trial.save(), 0
    for step in _visited(calendar, 1):
        trial.jump(step)
        with Peak(trial.device, before) as peak:
            for _ in range(min(2, trial.sparse.total_steps - step)):
                trial.step()
            most = max(most, peak.bytes)
    trial.load(saved)
    return most - sum(leaf.nbytes for leaf in tree_leaves(saved) if getattr(leaf, "device", None) == trial.device)


def _calendar(topology: str, representation: str) -> Calendar:
    """Return the steps at which events happen, found with a tiny network that takes one step per epoch, the last.

    An update that was due earlier in the epoch happens at that step, since methods catch up on steps that a loss scaler
    has skipped.
    """
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.Linear(256, 10))
    trial = Trial(topology, representation, network, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    found: Calendar = {}
    for step in range(STEPS_PER_EPOCH - 1, trial.sparse.total_steps, STEPS_PER_EPOCH):
        trial.jump(step)
        _, events = trial.step()
        if events:
            found[step] = events
    return found


def _visited(calendar: Calendar, rounds: int) -> list[int]:
    """Return the first steps with an event of each kind, up to `rounds` per kind; ``[1]`` if there are no events."""
    seen: Counter[str] = Counter()
    chosen = []
    for step, kinds in sorted(calendar.items()):
        if any(seen[kind] < rounds for kind in kinds):
            chosen.append(step)
            seen.update(kinds)
    return chosen or [1]


def _timed(trial: Trial, plain: _Plain, calendar: Calendar, rounds: int) -> tuple[list[float], dict[str, list[float]]]:
    """Return the costs of ordinary steps, and of steps with events by kind.

    Each is the time beyond that of a plain step taken just before, in units of that step.
    """
    ordinary: list[float] = []
    updates: dict[str, list[float]] = {}
    visited = _visited(calendar, rounds)
    following = 1 + math.ceil(rounds / len(visited))

    def sample(start: int) -> None:
        trial.jump(start)
        for step in range(start, min(start + 1 + following, trial.sparse.total_steps)):
            if step > start and step in calendar:
                break
            beside = plain.step()
            seconds, kinds = trial.step()
            cost = seconds / beside - 1
            for kind in set(kinds):
                updates.setdefault(kind, []).append(cost)
            if not kinds:
                ordinary.append(cost)

    for step in visited:
        sample(step)
    if not ordinary:  # the only event is in the last step
        sample(1)
    return ordinary, updates


def _per_training(trial: Trial) -> dict[str, int]:
    """Return the number of events of each kind in the whole training, as the method itself expects."""
    return {kind: number for kind, number in trial.sparse.expected_events().items() if kind != "initial" and number}
