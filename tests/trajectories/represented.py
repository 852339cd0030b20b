"""Representations beside the authors' layers: STR and spred."""

from __future__ import annotations

from typing import Any

import torch
from follow import cosine, passes, set_rate
from recordings import Recording, Tally, filled, network
from torch import Tensor, nn
from torch.optim import SGD

import ham
import sparsity
from sparsity.representation import Representation
from sparsity.representations.cut import largest

NO_TIES: Any = None  # a run is asked for draws alone


def _model(recording: Recording) -> nn.Module:
    """Build the network; the layers of STR's perceptron have no biases."""
    if "str" not in recording.label or recording.kind == "cnn":
        return network(recording.kind)
    sizes = ((20, 64), (64, 64), (64, 5))
    layers = [layer for size in sizes for layer in (nn.Linear(*size, bias=False), nn.ReLU())]
    return filled(nn.Sequential(*layers[:-1]))


def _tensors(representation: Representation, names: tuple[str, str]) -> dict[str, Tensor]:
    """Return θ and the trained tensors under the recordings' names, and all other parameters."""
    found = {name: p for name, p in representation.model.named_parameters() if "parametrizations" not in name}
    for name, slot in representation.slots.items():
        layer = name.removesuffix("weight")
        values = (slot.weight, *slot.factors)
        found |= {f"{layer}{key}": value for key, value in zip(("theta", *names), values, strict=True)}
    return found


def _follow(
    tally: Tally,
    recording: Recording,
    representation: Representation,
    names: tuple[str, str],
    *,
    hamed: dict[str, Any] | None = None,
) -> None:
    """Train without a topology, at a cosine schedule."""
    decay, rate, momentum, nesterov = recording.value("set").tolist()[-4:]
    groups = representation.param_groups(decay, weight_decay_on="all")
    if hamed is not None and hamed["scalars"]:
        groups = [{**group, "ham": True} for group in groups]
    optimizer = SGD(groups, lr=rate, momentum=momentum, nesterov=bool(nesterov))
    if hamed is not None:
        optimizer = ham.HAM(optimizer, alpha=20.0, beta=0.01, **hamed)
    total = len(recording.steps)
    settings = {"total_steps": total, "steps_per_epoch": total}
    training = sparsity.attach("dense", representation.model, optimizer, sparsity=0.0, **settings)
    for step in recording.steps:
        set_rate(optimizer, cosine(rate, step, total))
        passes(optimizer, representation.model, recording.kind, step)
        training.step()
        tally.compare(recording, step, recording.select(_tensors(representation, names)))


def _str(tally: Tally, case: str, hamed: dict[str, Any] | None = None) -> None:
    recording = Recording("str", case)
    start = float(recording.value("set")[0])
    representation = sparsity.represent(_model(recording), "str", initial_threshold=start)
    _follow(tally, recording, representation, ("weight", "s"), hamed=hamed)


def soft_threshold(tally: Tally) -> None:
    """Follow weights and thresholds, from a threshold that is on and one that turns on."""
    for case in ("mlp", "cnn", "cold", "nesterov"):
        _str(tally, case)


def soft_threshold_ham(tally: Tally) -> None:
    """Follow HAM's listing on everything, and on everything but thresholds, which is the default here."""
    _str(tally, "ham", {"scalars": True})
    _str(tally, "ham_weights", {"scalars": False})


def spred(tally: Tally) -> None:
    """Follow both factors; then compare three cuts."""
    for case in ("mlp", "cnn", "clone"):
        recording = Recording("spred", case)
        start = str(recording.value("init"))
        representation = sparsity.represent(_model(recording), "spred", init=start)
        _follow(tally, recording, representation, ("m", "w"))
        for target in (0.5, 0.9, 0.95):
            cut = largest(NO_TIES, dict(representation.weights()), target, "uniform")
            ours = torch.cat([mask.flatten() for mask in cut.values()])
            tally.flags(f"{recording.label}, cut at {target}", ours, torch.from_numpy(recording.value(f"cut{target}")))
