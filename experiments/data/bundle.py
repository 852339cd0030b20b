"""A data set in memory, normalised and split, as training and evaluation use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.errors import UserError

from .arrays import Arrays
from .augment import CropFlip
from .part import Part, Scale, make_part, normalised
from .sampler import WHOLE, SeekableSampler, Shard

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class DataBundle:
    """What a run needs of its data.

    Attributes:
        num_classes: Number of classes.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        content_hash: Hash of the whole data set as loaded, before the split.
        sampler: The order of training batches.
        train: The images trained on.
        validation: The images held out of the training part; may be empty.
        test: The test images.
        positions: Place of each training image in the file, int64 [N].
        augment: What is done to training images, or None.
    """

    num_classes: int
    in_channels: int
    image_size: int
    content_hash: str
    sampler: SeekableSampler
    train: Part
    validation: Part
    test: Part
    positions: Tensor
    augment: CropFlip | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        return self.sampler.steps_per_epoch

    def count(self, part: Literal["train", "validation", "test"]) -> int:
        """Number of images of a part, over all ranks."""
        return len({"train": self.train, "validation": self.validation, "test": self.test}[part])

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this rank's part of the training batches of an epoch from a given batch on.

        Args:
            epoch: Counted from 0.
            start: Batches of this epoch that are over already, 0 to `steps_per_epoch`.

        Returns:
            Pairs of images [batch_size / ranks, C, H, W] and labels [batch_size / ranks].

        Raises:
            ValueError: if epoch or start is out of range.
        """
        chosen = self.sampler.batches(epoch, start)
        draws = self.augment.draws(epoch) if self.augment is not None else None
        return (self._batch(index, draws) for index in chosen)

    def _batch(self, index: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        images, labels = self.train.images, self.train.labels
        here = index.to(labels.device)
        if self.augment is None or draws is None:
            return images[here], labels[here]
        return self.augment.apply(images[here], draws[self.positions[index]]), labels[here]

    def evaluate_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over this rank's share of a part, in file order; each image is in one rank's share.

        Args:
            part: ``"validation"`` (no batches where it is empty) or ``"test"``.

        Returns:
            Pairs of images and labels, `EVALUATION_BATCH` at a time; the last may be smaller.
        """
        held = {"validation": self.validation, "test": self.test}[part]
        share = self.sampler.shard.of(len(held))
        slices = (slice(e, min(e + EVALUATION_BATCH, share.stop)) for e in share[::EVALUATION_BATCH])
        return ((held.images[chosen], held.labels[chosen]) for chosen in slices)

    def close(self) -> None:
        """Do nothing: all of it is in memory."""


def split(
    labels: NDArray[np.int64], num_classes: int, validation: int, train_limit: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a training part, balanced and independent of any seed, so that all runs are compared on equal terms.

    Args:
        labels: int64 [N], 0 to num_classes - 1.
        num_classes: Number of classes.
        validation: Images to hold out: the last validation / num_classes of each class, in file order.
        train_limit: Images to train on: the first train_limit / num_classes of each class; None for all that are left.

    Returns:
        Indices into `labels` to train on and to hold out, both ascending.

    Raises:
        UserError: if a number is not a multiple of the classes or exceeds what is there.
    """
    members = [np.flatnonzero(labels == label) for label in range(num_classes)]
    rarest = min(len(member) for member in members)
    held = _per_class(validation, num_classes, "data.validation")
    if held >= rarest:
        raise UserError(
            f"{validation:,} leaves nothing to train on: the rarest class has {rarest:,} images, so at most "
            f"{(rarest - 1) * num_classes:,} can be held out",
            where="data.validation",
        )
    kept = [member[: len(member) - held] for member in members]
    if train_limit is not None:
        limit = _per_class(train_limit, num_classes, "data.train_limit")
        if not 0 < limit <= rarest - held:
            raise UserError(
                f"{train_limit:,} is out of range: {num_classes} to {(rarest - held) * num_classes:,} images can be "
                f"trained on ({validation:,} are held out), null means all",
                where="data.train_limit",
            )
        kept = [member[:limit] for member in kept]
    out = [member[len(member) - held :] for member in members]
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(out))


def _per_class(count: int, num_classes: int, where: str) -> int:
    if count < 0 or count % num_classes:
        raise UserError(f"{count:,} is not a multiple of the number of classes, {num_classes}", where=where)
    return count // num_classes


def make_bundle(
    arrays: Arrays,
    *,
    num_classes: int,
    mean: Scale,
    std: Scale,
    pad: int | None = None,
    validation: int,
    train_limit: int | None,
    batch_size: int,
    seed: int,
    device: str | torch.device,
    channels_last: bool,
    shard: Shard = WHOLE,
) -> DataBundle:
    """Split, normalise and place a data set; see `split`, `make_part` and `ArraySource` for the arguments.

    Raises:
        UserError: if the split is impossible or not even one batch fits into the training part.
    """
    train, held = split(arrays.train_labels, num_classes, validation, train_limit)
    check_batch(batch_size, len(train))

    def part(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Part:
        return make_part(images, labels, mean=mean, std=std, device=device, channels_last=channels_last)

    augment = None
    if pad is not None:
        black = normalised(torch.zeros(1, arrays.channels, 1, 1), mean, std).flatten()
        augment = CropFlip(len(arrays.train_labels), pad, black, seed)
    return DataBundle(
        num_classes=num_classes,
        in_channels=arrays.channels,
        image_size=arrays.train_images.shape[-1],
        content_hash=arrays.content_hash,
        sampler=SeekableSampler(len(train), batch_size, seed, shard),
        train=part(arrays.train_images[train], arrays.train_labels[train]),
        validation=part(arrays.train_images[held], arrays.train_labels[held]),
        test=part(arrays.test_images, arrays.test_labels),
        positions=torch.from_numpy(train),
        augment=augment,
    )


def epoch_of(
    labels: NDArray[np.int64], num_classes: int, *, validation: int, train_limit: int | None, batch_size: int
) -> tuple[int, int]:
    """Describe an epoch of a training part; see `split` for the arguments.

    Returns:
        Number of batches, and how many images of the rarest class they are sure to hold: a last batch that is not full
        is left out.

    Raises:
        UserError: if the split is impossible or not even one batch fits into the training part.
    """
    train, _ = split(labels, num_classes, validation, train_limit)
    check_batch(batch_size, len(train))
    steps = SeekableSampler(len(train), batch_size, 0, WHOLE).steps_per_epoch
    rarest = int(np.bincount(labels[train], minlength=num_classes).min())
    return steps, max(0, rarest - (len(train) - steps * batch_size))


def check_batch(batch_size: int, images: int) -> None:
    """Make sure that at least one batch fits into the training part.

    Raises:
        UserError: if none does.
    """
    if not 1 <= batch_size <= images:
        raise UserError(
            f"{batch_size:,} is out of range: 1 to {images:,}, the number of training images", where="data.batch_size"
        )


def check_divisible(batch_size: int, ranks: int, micro_batches: int = 1) -> None:
    """Make sure that all ranks get equally many images a step, or their mean gradient would not be the batch's.

    Raises:
        UserError: if they would not.
    """
    if batch_size % (ranks * micro_batches):
        shares = f"{ranks} ranks" + (f" × {micro_batches} micro-batches" if micro_batches > 1 else "")
        raise UserError(f"{batch_size:,} images a step cannot be shared evenly by {shares}", "data.batch_size")
