"""What a data set is to the rest of the suite: where it comes from, and what a run gets of it. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from experiments.errors import UserError

from .arrays import Arrays

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .sampler import Shard

PartName = Literal["train", "validation", "test"]


class DataSettings(Protocol):
    """The section ``data`` of a configuration, as far as it is read here."""

    @property
    def name(self) -> str:
        """A key of `DATASETS`."""
        ...

    @property
    def root(self) -> str | None:
        """Folder of the files; None for what comes with the package."""
        ...

    @property
    def image_size(self) -> int | None:
        """Height and width of an image in pixels; None for the data set's own."""
        ...

    @property
    def batch_size(self) -> int:
        """Images a training step, over all ranks."""
        ...

    @property
    def validation(self) -> int:
        """Images held out of the training part, a multiple of the classes; 0 for none."""
        ...

    @property
    def train_limit(self) -> int | None:
        """Images to train on, a multiple of the classes; None for all."""
        ...

    @property
    def evaluate_on(self) -> str:
        """The part of the headline accuracy: ``"test"`` or ``"validation"``."""
        ...

    @property
    def workers(self) -> int:
        """Processes a rank that read images; 0 reads in the training process."""
        ...


def lengths(spec: DataSettings) -> dict[str, Any]:
    """What the length of an epoch depends on."""
    return {"validation": spec.validation, "train_limit": spec.train_limit, "batch_size": spec.batch_size}


@dataclass(frozen=True)
class Placement:
    """How and for whom the batches of a run are made.

    Attributes:
        seed: Seed of the run; it decides the order of batches and the augmentation, nothing else.
        device: Where the tensors live.
        channels_last: Memory layout of the images.
        shard: Which rank's part of the data.
    """

    seed: int
    device: torch.device
    channels_last: bool
    shard: Shard


class Data(Protocol):
    """What a run needs of its data. Batches are pairs of images, float32 [n, C, H, W], and labels, int64 [n]."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        ...

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        ...

    @property
    def content_hash(self) -> str:
        """Hash of the whole data set, before the split."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        ...

    def count(self, part: PartName) -> int:
        """Number of images of a part, over all ranks."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this rank's part of the training batches of an epoch from batch `start` on.

        Nothing before `start` is read, and no global random state is touched.

        Raises:
            ValueError: if epoch or start is out of range.
        """
        ...

    def evaluate_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over this rank's share of a part; each image is in one rank's share."""
        ...

    def close(self) -> None:
        """End what reads ahead; no batches after it."""
        ...


@dataclass(frozen=True)
class Outline:
    """What is known of a run's data without placing them: form of an image, classes, length of an epoch.

    Attributes:
        num_classes: Number of classes.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        steps_per_epoch: Number of training batches in an epoch.
        rarest: Images of the rarest class that the batches of an epoch are sure to hold.
    """

    num_classes: int
    in_channels: int
    image_size: int
    steps_per_epoch: int
    rarest: int


class Source(Protocol):
    """A data set by its name, before any of it is read."""

    def content_hash(self, root: str | None) -> str:
        """Hash of the content, for the identity of a run: it does not depend on where the files are.

        Raises:
            UserError: if the files are not there or not right.
        """
        ...

    def outline(self, spec: DataSettings) -> Outline:
        """Describe the data of a run, split as it asks, without placing them.

        Raises:
            UserError: naming the key that has to change; whatever `open` would refuse.
        """
        ...

    def open(self, spec: DataSettings, placement: Placement) -> Data:
        """Make the data of a run.

        Raises:
            UserError: naming the key that has to change.
        """
        ...


@dataclass(frozen=True)
class ArraySource:
    """A set of images that is held in memory, how it is normalised and augmented.

    Attributes:
        load: Root folder or None to arrays.
        num_classes: Number of classes.
        mean: Mean of the training pixels on the scale 0 to 1; of each channel, where there are several.
        std: Their standard deviation.
        pad: Training images are cropped at random after so many pixels are added on each side, and mirrored at
            random; None leaves them as they are.
    """

    load: Callable[[str | Path | None], Arrays]
    num_classes: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    pad: int | None = None

    def content_hash(self, root: str | None) -> str:
        """See `Source`."""
        return self.load(root).content_hash

    def outline(self, spec: DataSettings) -> Outline:
        """See `Source`."""
        from .bundle import epoch_of

        arrays = self._arrays(spec)
        size = arrays.train_images.shape[-1]
        return Outline(
            self.num_classes,
            arrays.channels,
            size,
            *epoch_of(arrays.train_labels, self.num_classes, **lengths(spec)),
        )

    def _arrays(self, spec: DataSettings) -> Arrays:
        arrays = self.load(spec.root)
        own = arrays.train_images.shape[-1]
        if spec.image_size not in (None, own):
            raise UserError(
                f"{spec.image_size} is out of range: the images of {spec.name} have {own} pixels; write null",
                where="data.image_size",
            )
        return arrays

    def open(self, spec: DataSettings, placement: Placement) -> Data:
        """See `Source`."""
        from .bundle import make_bundle

        return make_bundle(
            self._arrays(spec),
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
            pad=self.pad,
            validation=spec.validation,
            train_limit=spec.train_limit,
            batch_size=spec.batch_size,
            seed=placement.seed,
            device=placement.device,
            channels_last=placement.channels_last,
            shard=placement.shard,
        )
