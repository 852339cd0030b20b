"""The order of training images: seekable, so that a resumed run sees exactly what an unbroken one would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.seeding import derived_seed


@dataclass(frozen=True)
class Shard:
    """The part of the data that one of several ranks works on.

    Attributes:
        rank: 0 to `size` - 1.
        size: Number of ranks.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> range:
        """This rank's positions among `count`: contiguous, disjoint, all covered, lengths at most one apart."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


WHOLE = Shard()


@dataclass(frozen=True)
class SeekableSampler:
    """Random batches of indices without replacement; the incomplete last batch of an epoch is dropped.

    The permutation of an epoch is a function of seed and epoch alone. No state survives between calls, hence none has
    to be saved, and any position is reached without walking there. Ranks share each batch.

    Attributes:
        size: Number of images, at least `batch_size`.
        batch_size: Images a batch over all ranks, a multiple of their number.
        seed: Seed of the run.
        shard: Whose part of each batch `batches` yields.
    """

    size: int
    batch_size: int
    seed: int
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch_size {self.batch_size} must be between 1 and the {self.size} images")
        if self.batch_size % self.shard.size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of the {self.shard.size} ranks")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.size // self.batch_size

    def permutation(self, epoch: int) -> Tensor:
        """Return the order of an epoch (counted from 0): int64 [size], each index once."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        return torch.randperm(self.size, generator=generator)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Iterate over the rest of an epoch.

        Args:
            epoch: Counted from 0.
            start: Batches of this epoch that are over already, 0 to `steps_per_epoch`.

        Returns:
            `steps_per_epoch` - `start` tensors of indices, int64 [batch_size / ranks].

        Raises:
            ValueError: if epoch or start is out of range.
        """
        if epoch < 0:
            raise ValueError(f"epoch {epoch} is negative")
        if not 0 <= start <= self.steps_per_epoch:
            raise ValueError(f"start {start} is not between 0 and the {self.steps_per_epoch} batches of an epoch")
        order = self.permutation(epoch)
        edges = range(start * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size)
        part = self.shard.of(self.batch_size)
        return (order[edge + part.start : edge + part.stop] for edge in edges)
