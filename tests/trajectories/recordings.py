"""Numbers that the authors' released code gave, step by step, and the networks and batches that they belong to.

`data/README.md` says what was run. Networks, initial weights and batches come from numpy's `RandomState`, whose streams
are frozen, so that they need not be stored. A tensor is stored as its projection on a fixed random vector: equal
projections mean equal tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"
TOLERANCE = (
    1e-9  # of a projection, relative to the norm of a tensor if that is above 1; for CPUs that add up differently
)
CLASSES = 5
Masks = dict[str, Tensor]


def filled(model: nn.Module) -> nn.Module:
    """Give a network, in float64, the initial weights of the recordings."""
    stream = np.random.RandomState(0)
    for name, parameter in model.double().named_parameters():
        value = stream.randn(*parameter.shape)
        if parameter.ndim > 1:
            value *= np.sqrt(2.0 / np.prod(parameter.shape[1:]))
        else:
            value = 1 + 0.1 * value if name.endswith("weight") else 0.1 * value
        parameter.data.copy_(torch.from_numpy(value))
    return model


def mlp(activation: Callable[[], nn.Module]) -> nn.Module:
    """Build 20-64-64-5 with biases: 5,696 weights."""
    layers = [nn.Linear(20, 64), activation(), nn.Linear(64, 64), activation(), nn.Linear(64, CLASSES)]
    return filled(nn.Sequential(*layers))


def cnn(activation: Callable[[], nn.Module]) -> nn.Module:
    """Build three 3x3 convolutions with batch normalisation and a linear head: 3,752 weights."""
    layers: list[nn.Module] = []
    for ins, outs, stride in ((3, 8, 1), (8, 16, 2), (16, 16, 1)):
        layers += [nn.Conv2d(ins, outs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outs), activation()]
    return filled(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)))


def network(kind: str) -> nn.Module:
    """Build `mlp` or `cnn`; `_smooth` has SiLU for ReLU, so that no gradient is exactly zero and nothing ties."""
    return {"mlp": mlp, "cnn": cnn}[kind.removesuffix("_smooth")](nn.SiLU if kind.endswith("_smooth") else nn.ReLU)


def input_shape(kind: str) -> tuple[int, ...]:
    """Return the shape of one input."""
    return (20,) if kind.startswith("mlp") else (3, 8, 8)


def batch(kind: str, index: int, images: int = 16) -> tuple[Tensor, Tensor]:
    """Return a batch, whose labels follow a fixed noisy linear rule."""
    stream = np.random.RandomState(10_000 + index)
    x = stream.randn(images, *input_shape(kind))
    rule = np.random.RandomState(77).randn(int(np.prod(input_shape(kind))), CLASSES)
    y = (x.reshape(images, -1) @ rule + 2 * stream.randn(images, CLASSES)).argmax(1)
    return torch.from_numpy(x), torch.from_numpy(y)


def projection(name: str, tensor: Tensor) -> float:
    """Return the dot product of a tensor with the random vector that belongs to its name and size."""
    flat = tensor.detach().reshape(-1).numpy()
    return float(flat @ _direction(len(flat) % 9973 + sum(map(ord, name)) % 9973, len(flat)))


@cache
def _direction(seed: int, size: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(size)


class Recording:
    """One case of a file: a training with the authors' code.

    Attributes:
        kind: The network, see `network`.
        steps: Indices of the steps that were recorded; -1 is the state before the first.
    """

    def __init__(self, file: str, case: str, kind: str = ""):
        self._arrays, self._key = arrays(file), case
        self.label = f"{file} {case}"
        self.kind = kind or str(self.value("kind"))
        self.steps = [int(step) for step in self._arrays[f"{case}|steps"]]
        self._names = [str(name) for name in self._arrays[f"{case}|names"]]
        self._shapes = {name: tuple(p.shape) for name, p in network(self.kind).named_parameters()}
        self._changes: dict[str, list[int]] = {}
        for key in self._arrays:
            if key.startswith(f"{case}|mask|"):
                _, _, step, name = key.split("|")
                self._changes.setdefault(name, []).append(int(step))

    def value(self, key: str) -> np.ndarray:
        """Return a setting, or what else was logged."""
        return self._arrays[f"{self._key}|x|{key}"]

    def mask(self, step: int, name: str) -> Tensor:
        """Return the mask of a weight after a step; it is stored where it changed."""
        changed = max(before for before in self._changes[name] if before <= step)
        bits = np.unpackbits(self._arrays[f"{self._key}|mask|{changed}|{name}"])
        shape = self._shapes[name]
        return torch.from_numpy(bits[: int(np.prod(shape))].reshape(shape).astype(bool))

    def masks(self, step: int) -> Masks:
        """Return all masks after a step, in the order of the network."""
        return {name: self.mask(step, name) for name in self._shapes if name in self._changes}

    def projections(self, step: int) -> dict[str, float]:
        """Return the projections of all tensors after a step."""
        row = self._arrays[f"{self._key}|proj"][self.steps.index(step)]
        return dict(zip(self._names, row.tolist(), strict=True))

    def select(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the tensors that were recorded."""
        return {name: tensor for name, tensor in tensors.items() if name in self._names}


@cache
def arrays(file: str) -> dict[str, Any]:
    """Return all arrays of a file."""
    with np.load(DATA / f"{file}.npz") as stored:
        return dict(stored)


@dataclass
class Tally:
    """What was compared, and found equal: cases, steps, tensors or numbers, entries of masks.

    Attributes:
        surplus: Entries of masks that differ because one of them has a weight more.
    """

    cases: list[str] = field(default_factory=list)
    steps: int = 0
    tensors: int = 0
    bits: int = 0
    surplus: int = 0

    def compare(
        self, recording: Recording, step: int, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> None:
        """Compare tensors and masks of ours after a step with theirs.

        Raises:
            AssertionError: naming the case, the step and the tensor that differs.
        """
        where = f"{recording.label}, step {step}"
        for name, mask in (masks or {}).items():
            self.flags(f"{where}, mask of {name}", mask, recording.mask(step, name))
        theirs = recording.projections(step) if tensors else {}
        for name, tensor in tensors.items():
            scale = max(1.0, float(tensor.detach().norm()))
            self._near(f"{where}, {name}", projection(name, tensor) / scale, theirs[name] / scale)
        self.steps += 1
        self._case(recording.label)

    def compare_selection(self, recording: Recording, masks: Mapping[str, Tensor]) -> None:
        """Compare the masks of a selection, of which one may keep more weights than the other but none else.

        Raises:
            AssertionError: naming the case.
        """
        surplus = different = 0
        for name, mask in masks.items():
            theirs = recording.mask(0, name)
            surplus += int(mask.sum()) - int(theirs.sum())
            different += int((mask ^ theirs).sum())
            self.bits += mask.numel()
        assert abs(surplus) <= 1, f"{recording.label}: {surplus} weights more than theirs"
        assert different == abs(surplus), f"{recording.label}: {different} entries differ, {surplus} by number"
        self.surplus += different
        self._case(recording.label)

    def flags(self, where: str, ours: Tensor, theirs: Tensor) -> None:
        """Compare bits exactly."""
        different = int((ours ^ theirs).sum())
        assert different == 0, f"{where}: {different} of {ours.numel()} entries differ"
        self.bits += ours.numel()

    def numbers(self, case: str, ours: list[float], theirs: list[float]) -> None:
        """Compare numbers to the tolerance."""
        for a, b in zip(ours, theirs, strict=True):
            self._near(case, a, b)
        self._case(case)

    def _near(self, where: str, ours: float, theirs: float) -> None:
        off = abs(ours - theirs)
        assert off <= TOLERANCE, f"{where}: off by {off:.1e}"
        self.tensors += 1

    def _case(self, label: str) -> None:
        if label not in self.cases:
            self.cases.append(label)
