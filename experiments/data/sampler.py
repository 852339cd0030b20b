"""The order of training images: seekable, so that a resumed run sees the same batches as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.seeding import derived_seed


@dataclass(frozen=True)
class Shard:
    """The part of the data that belongs to one of several ranks.

    Attributes:
        rank: 0 to `size` - 1.
        size: Number of ranks.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> range:
        """Return this rank's positions among `count`.

        The ranges of all ranks are contiguous and disjoint, cover all positions, and differ in length by at most one.
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)


WHOLE = Shard()


@dataclass(frozen=True)
class SeekableSampler:
    """A sampler of random batches of indices without replacement.

    The permutation of an epoch depends on seed and epoch alone. The sampler therefore has no state that would have to
    be saved, and can start at any position at once. Ranks share each batch.

    Attributes:
        size: Number of images, at least `batch_size`.
        batch_size: Images per batch over all ranks, a multiple of their number.
        seed: Seed of the run.
        shard: The rank whose part of each batch `batches` yields.
        drop_last: Whether the last batch of an epoch is left out if it is smaller than the others.
    """

    size: int
    batch_size: int
    seed: int
    shard: Shard = WHOLE
    drop_last: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch_size {self.batch_size} must be between 1 and the {self.size} images")
        if self.batch_size % self.shard.size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of the {self.shard.size} ranks")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        full, left = divmod(self.size, self.batch_size)
        return full if self.drop_last or not left else full + 1

    @property
    def last_batch(self) -> int:
        """Images of the last batch of an epoch, over all ranks."""
        return min(self.batch_size, self.size - (self.steps_per_epoch - 1) * self.batch_size)

    def permutation(self, epoch: int) -> Tensor:
        """Return the order of an epoch (counted from 0), a permutation of all indices, int64 [size]."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        return torch.randperm(self.size, generator=generator)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Iterate over the batches of an epoch, from batch `start` on.

        Args:
            epoch: Counted from 0.
            start: Number of batches of this epoch to skip, 0 to `steps_per_epoch`.

        Returns:
            `steps_per_epoch` - `start` tensors of indices, int64 [batch_size / ranks]; the last may be shorter.

        Raises:
            ValueError: if epoch or start is out of range.
        """
        if epoch < 0:
            raise ValueError(f"epoch {epoch} is negative")
        if not 0 <= start <= self.steps_per_epoch:
            raise ValueError(f"start {start} is not between 0 and the {self.steps_per_epoch} batches of an epoch")
        order = self.permutation(epoch)
        sizes = [self.batch_size] * (self.steps_per_epoch - 1) + [self.last_batch]
        parts = ((step * self.batch_size, self.shard.of(sizes[step])) for step in range(start, len(sizes)))
        return (order[edge + part.start : edge + part.stop] for edge, part in parts)
