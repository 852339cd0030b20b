"""`Probe`: the batches, loss and input shape that a topology may score weights with before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from .options import Infeasible, OptionError

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def _itself(scores: Tensor) -> Tensor:
    return scores


@dataclass(frozen=True)
class Probe:
    """Data and loss for scores at initialisation.

    Example:
        >>> import sparsity, torch
        >>> batches = [(torch.randn(8, 10), torch.arange(8) % 4) for _ in range(5)]
        >>> loss = torch.nn.functional.cross_entropy
        >>> probe = sparsity.Probe(lambda: iter(batches), loss, input_shape=(10,), num_classes=4)
        >>> [len(labels) for _, labels in probe.micro_batches(2)]
        [8, 8]

    Attributes:
        batches: Starts one pass over the training data and yields pairs of images and labels on the network's device.
            Each call yields the same batches on every rank, and changes neither a random state nor the order of
            training.
        loss: Mean loss of (logits, labels), as in training.
        input_shape: Shape of one input without the batch dimension.
        num_classes: Number of classes.
        parts: Number of equal parts that a batch is split into, as a training step does with micro-batches and ranks.
        agree: Called with each tensor of scores; returns the same values on every rank.
        size: Number of batches of one pass, if known beforehand.
        rarest: Number of images of the rarest class that one pass is sure to hold, if known beforehand.
    """

    batches: Callable[[], Iterator[Batch]]
    loss: Loss
    input_shape: tuple[int, ...]
    num_classes: int
    parts: int = 1
    agree: Callable[[Tensor], Tensor] = _itself
    size: int | None = None
    rarest: int | None = None

    def check(self, batches: int | None = None, per_class: int | None = None) -> None:
        """Refuse, before anything is read, to read more than one pass holds, as far as its size is known.

        Raises:
            OptionError: for ``batches`` or ``per_class``.
        """
        if batches is not None and self.size is not None and batches > self.size:
            raise OptionError("batches", f"{batches} is out of range: the training data have {self.size} batches")
        if per_class is not None and self.rarest is not None and per_class > self.rarest:
            raise OptionError(
                "per_class",
                f"{per_class} is out of range: the batches of one epoch are sure to have {self.rarest} of each class",
            )

    def micro_batches(self, number: int) -> Iterator[Batch]:
        """Yield the first `number` batches, in parts.

        Raises:
            Infeasible: if the training data have fewer batches.
        """
        found = 0
        for images, labels in islice(self.batches(), number):
            found += 1
            yield from zip(images.chunk(self.parts), labels.chunk(self.parts), strict=True)
        if found < number:
            raise Infeasible(f"batches: {number} batches are asked for, but the training data have {found}")

    def class_balanced(self, per_class: int) -> Iterator[Batch]:
        """Yield the first `per_class` images of each class, in parts as large as those of a batch.

        Raises:
            Infeasible: if the batches of one pass have fewer of some class.
        """
        images, labels, part = [], [], 0
        taken = torch.zeros(self.num_classes, dtype=torch.long)
        for batch_images, batch_labels in self.batches():
            part = part or len(batch_labels) // self.parts
            chosen = []
            for index, label in enumerate(batch_labels.tolist()):
                if taken[label] < per_class:
                    taken[label] += 1
                    chosen.append(index)
            images.append(batch_images[chosen])
            labels.append(batch_labels[chosen])
            if bool((taken == per_class).all()):
                yield from zip(torch.cat(images).split(part), torch.cat(labels).split(part), strict=True)
                return
        rare = int(taken.argmin())
        raise Infeasible(
            f"per_class: {per_class} images of each class are asked for, but the batches of one epoch have "
            f"{int(taken[rare])} of class {rare}"
        )


@contextmanager
def own_randomness(network: nn.Module, seed: int) -> Iterator[None]:
    """Let dropout and the like draw from a seed of their own; the global random state is restored afterwards."""
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
