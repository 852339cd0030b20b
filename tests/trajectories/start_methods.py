"""Methods that prune before training, beside the authors' code: the masks alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from follow import sgd
from recordings import CLASSES, Recording, Tally, arrays, batch, input_shape, network
from torch import Tensor, nn

import sparsity
from sparsity.probe import Batch


def cases(method: str) -> Iterator[tuple[Recording, str, list[float]]]:
    """Yield recording, kind of network and numbers of the cases of a method."""
    for key in arrays("init"):
        name, _, rest = key.removesuffix("|steps").partition("_")
        if name == method and key.endswith("|steps"):
            kind, *numbers = rest.split("_")
            yield Recording("init", key.removesuffix("|steps"), kind), kind, [float(number) for number in numbers]


def compare(
    tally: Tally, recording: Recording, topology: str, model: nn.Module, data: list[Batch], **values: Any
) -> None:
    """Prune a network as a method does, in float64, and compare the masks; one of them may keep a weight more."""
    probe = sparsity.Probe(
        batches=lambda: iter(data),
        loss=F.cross_entropy,
        input_shape=input_shape(recording.kind),
        num_classes=CLASSES,
        parts=values.pop("parts", 1),
    )
    training = sparsity.attach(topology, model, sgd(model, "sgd"), total_steps=10, probe=probe, **values)
    tally.compare_selection(recording, dict(training.masks))


def snip(tally: Tally) -> None:
    """Compare one batch of 64 images."""
    for recording, kind, (target,) in cases("snip"):
        compare(tally, recording, "snip", network(kind), [batch(kind, 0, 64)], sparsity=target)


def _three(kind: str) -> list[Batch]:
    return [batch(kind, 200 + index, 32) for index in range(3)]


def snip_mean(tally: Tally) -> None:
    """Compare the mean gradient over three batches."""
    for recording, kind, (target,) in cases("snip3"):
        compare(tally, recording, "snip", network(kind), _three(kind), sparsity=target, batches=3)


def grasp(tally: Tally) -> None:
    """Compare eight images of each class, in halves, grouped by class as theirs are."""
    for recording, kind, (target,) in cases("grasp"):
        found: list[list[Tensor]] = [[] for _ in range(CLASSES)]
        for index in range(10):
            for image, label in zip(*batch(kind, 100 + index, 64), strict=True):
                if len(found[label]) < 8:
                    found[label].append(image)
        images = torch.cat([torch.stack(group) for group in found])
        data = [(images, torch.arange(CLASSES).repeat_interleave(8))]
        compare(tally, recording, "grasp", network(kind), data, sparsity=target, per_class=None, parts=2)


def grasp_mean(tally: Tally) -> None:
    """Compare three batches in order."""
    for recording, kind, (target,) in cases("grasp3"):
        data = _three(kind)
        compare(tally, recording, "grasp", network(kind), data, sparsity=target, per_class=None, batches=3)


def synflow(tally: Tally) -> None:
    """Compare 1, 10 and 100 rounds; batch statistics are drawn, so that they matter."""
    for recording, kind, (target, rounds) in cases("synflow"):
        model, stream = network(kind), np.random.RandomState(5)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(torch.from_numpy(0.3 * stream.randn(layer.num_features)))
                layer.running_var.copy_(torch.from_numpy(0.5 + stream.rand(layer.num_features)))
        compare(tally, recording, "synflow", model, [], sparsity=target, rounds=int(rounds))
