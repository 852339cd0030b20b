"""A data set in memory, normalised and split for training and evaluation."""

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
    """The `Data` of a set of images in memory.

    Attributes:
        num_classes: Number of classes.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        content_hash: Hash of the whole data set as loaded, before the split.
        sampler: The order of training batches.
        train: The images to train on.
        validation: The images held out of the training part; may be empty.
        test: The test images.
        positions: Position of each training image in the file, int64 [N].
        augment: Augmentation of training images, or None.
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
        """Number of training batches per epoch."""
        return self.sampler.steps_per_epoch

    @property
    def last_batch(self) -> int:
        """Images of the last training batch of an epoch, over all ranks."""
        return self.sampler.last_batch

    def count(self, part: Literal["train", "validation", "test"]) -> int:
        """Return the number of images of a part, over all ranks."""
        return len({"train": self.train, "validation": self.validation, "test": self.test}[part])

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this rank's part of the training batches of an epoch, from batch `start` on.

        Args:
            epoch: Counted from 0.
            start: Number of batches of this epoch to skip, 0 to `steps_per_epoch`.

        Returns:
            Pairs of images [batch_size / ranks, C, H, W] and labels [batch_size / ranks]; the last may be smaller.

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
        """Iterate once over this rank's share of a part, in file order; each image is in exactly one rank's share.

        Args:
            part: ``"validation"`` (no batches if it is empty) or ``"test"``.

        Returns:
            Pairs of images and labels, `EVALUATION_BATCH` per pair; the last may be smaller.
        """
        held = {"validation": self.validation, "test": self.test}[part]
        share = self.sampler.shard.of(len(held))
        slices = (slice(e, min(e + EVALUATION_BATCH, share.stop)) for e in share[::EVALUATION_BATCH])
        return ((held.images[chosen], held.labels[chosen]) for chosen in slices)

    def close(self) -> None:
        """Do nothing, since all data are in memory."""


def split(
    labels: NDArray[np.int64], num_classes: int, validation: int, train_limit: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a training part into images to train on and images to hold out.

    The split is balanced over the classes and does not depend on a seed, so that all runs share it.

    Args:
        labels: int64 [N], 0 to num_classes - 1.
        num_classes: Number of classes.
        validation: Images to hold out: the last validation / num_classes of each class, in file order.
        train_limit: Images to train on: the first train_limit / num_classes of each class; None for all that are not
            held out.

    Returns:
        Indices into `labels` of the images to train on and to hold out, both ascending.

    Raises:
        UserError: if a number is not a multiple of the number of classes or exceeds the available images.
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
    drop_last: bool = True,
    seed: int,
    device: str | torch.device,
    channels_last: bool,
    shard: Shard = WHOLE,
) -> DataBundle:
    """Split and normalise a data set and move it to the device.

    See `split`, `make_part` and `ArraySource` for the arguments.

    Raises:
        UserError: if the split is impossible or the batch is larger than the training part.
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
        sampler=SeekableSampler(len(train), batch_size, seed, shard, drop_last),
        train=part(arrays.train_images[train], arrays.train_labels[train]),
        validation=part(arrays.train_images[held], arrays.train_labels[held]),
        test=part(arrays.test_images, arrays.test_labels),
        positions=torch.from_numpy(train),
        augment=augment,
    )


def epoch_of(
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    validation: int,
    train_limit: int | None,
    batch_size: int,
    drop_last: bool = True,
) -> tuple[int, int, int]:
    """Describe an epoch of a training part; see `split` for the arguments.

    Returns:
        Number of batches, how many images of the rarest class they are sure to hold, where a last batch that is not
        full may be left out, and how many images the last one has.

    Raises:
        UserError: if the split is impossible or the batch is larger than the training part.
    """
    train, _ = split(labels, num_classes, validation, train_limit)
    check_batch(batch_size, len(train))
    sampler = SeekableSampler(len(train), batch_size, 0, WHOLE, drop_last)
    rarest = int(np.bincount(labels[train], minlength=num_classes).min())
    left_out = max(0, len(train) - sampler.steps_per_epoch * batch_size)
    return sampler.steps_per_epoch, max(0, rarest - left_out), sampler.last_batch


def check_batch(batch_size: int, images: int) -> None:
    """Check that the training part holds at least one batch.

    Raises:
        UserError: if it does not.
    """
    if not 1 <= batch_size <= images:
        raise UserError(
            f"{batch_size:,} is out of range: 1 to {images:,}, the number of training images", where="data.batch_size"
        )


def check_divisible(batch_size: int, last_batch: int, ranks: int, micro_batches: int = 1) -> None:
    """Check that all ranks get equally many images per step, of the last batch of an epoch two at least.

    Raises:
        UserError: if they do not.
    """
    shares = f"{ranks} ranks" + (f" × {micro_batches} micro-batches" if micro_batches > 1 else "")
    if last_batch < batch_size and last_batch < 2 * ranks * micro_batches:
        raise UserError(
            f"the last batch of an epoch has {last_batch:,} images, too few for {shares} with two each, which batch "
            "statistics need; write true, or another data.batch_size",
            where="data.drop_last",
        )
    if batch_size % (ranks * micro_batches):
        raise UserError(f"{batch_size:,} images a step cannot be shared evenly by {shares}", "data.batch_size")
