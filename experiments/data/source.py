"""The protocols of a data set: a `Source`, known by name, and the `Data` that a run gets of it. Loads no torch."""

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
    """The keys of the section ``data`` of a configuration that this package reads."""

    @property
    def name(self) -> str:
        """A key of `DATASETS`."""
        ...

    @property
    def root(self) -> str | None:
        """Folder of the files; None for files that come with the package."""
        ...

    @property
    def image_size(self) -> int | None:
        """Height and width of an image in pixels; None for the data set's own."""
        ...

    @property
    def batch_size(self) -> int:
        """Images per training step, over all ranks."""
        ...

    @property
    def drop_last(self) -> bool:
        """Whether the last batch of an epoch is left out if it is smaller than the others."""
        ...

    @property
    def validation(self) -> int:
        """Images held out of the training part, a multiple of the number of classes; 0 for none."""
        ...

    @property
    def train_limit(self) -> int | None:
        """Images to train on, a multiple of the number of classes; None for all."""
        ...

    @property
    def evaluate_on(self) -> str:
        """The part on which the reported accuracy is measured: ``"test"`` or ``"validation"``."""
        ...

    @property
    def workers(self) -> int:
        """Processes per rank that read images; 0 reads in the training process."""
        ...


def lengths(spec: DataSettings) -> dict[str, Any]:
    """Return the settings that determine the length of an epoch."""
    keys = ("validation", "train_limit", "batch_size", "drop_last")
    return {key: getattr(spec, key) for key in keys}


@dataclass(frozen=True)
class Placement:
    """Seed, device, memory layout and rank of the batches of a run.

    Attributes:
        seed: Seed of the run; here it determines only the order of batches and the augmentation.
        device: Device of the tensors.
        channels_last: Whether images are stored in the channels-last memory layout.
        shard: The rank's part of the data.
    """

    seed: int
    device: torch.device
    channels_last: bool
    shard: Shard


class Data(Protocol):
    """The data of a run. Batches are pairs of images, float32 [n, C, H, W], and labels, int64 [n]."""

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
        """Number of training batches per epoch."""
        ...

    @property
    def last_batch(self) -> int:
        """Images of the last training batch of an epoch, over all ranks."""
        ...

    def count(self, part: PartName) -> int:
        """Return the number of images of a part, over all ranks."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over this rank's part of the training batches of an epoch, from batch `start` on.

        Batches before `start` are not read, and no global random state changes.

        Raises:
            ValueError: if epoch or start is out of range.
        """
        ...

    def evaluate_batches(self, part: Literal["validation", "test"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over this rank's share of a part; each image is in exactly one rank's share."""
        ...

    def close(self) -> None:
        """Stop reading ahead; no batches can be read afterwards."""
        ...


@dataclass(frozen=True)
class Outline:
    """The properties of a run's data that are known without placing them on a device.

    Attributes:
        num_classes: Number of classes.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        steps_per_epoch: Number of training batches per epoch.
        rarest: Images of the rarest class that the batches of an epoch are sure to hold.
        last_batch: Images of the last training batch of an epoch.
    """

    num_classes: int
    in_channels: int
    image_size: int
    steps_per_epoch: int
    rarest: int
    last_batch: int


class Source(Protocol):
    """A data set that is known by name, and of which nothing has been read yet."""

    def content_hash(self, root: str | None) -> str:
        """Return the hash of the content, which is part of a run's identity in place of the files' location.

        Raises:
            UserError: if files are missing or wrong.
        """
        ...

    def outline(self, spec: DataSettings) -> Outline:
        """Describe the data of a run, split as configured, without placing them.

        Raises:
            UserError: in every case in which `open` raises one; the error names the key that has to change.
        """
        ...

    def open(self, spec: DataSettings, placement: Placement) -> Data:
        """Return the data of a run.

        Raises:
            UserError: if a key has to change; the error names it.
        """
        ...


@dataclass(frozen=True)
class ArraySource:
    """A `Source` whose images are held in memory.

    Example:
        >>> import numpy as np
        >>> from experiments.data import DATASETS, Arrays, ArraySource
        >>> def load(root):
        ...     images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
        ...     return Arrays(images, labels, images[:4], labels[:4])
        >>> DATASETS["stripes"] = ArraySource(load, num_classes=2, mean=0.5, std=0.25)

    Attributes:
        load: Function from the root folder (or None) to arrays.
        num_classes: Number of classes.
        mean: Mean of the training pixels on the scale 0 to 1; one per channel for colour images.
        std: Their standard deviation, likewise.
        pad: Pixels added on each side of a training image before it is cropped and mirrored at random; None turns the
            augmentation off.
    """

    load: Callable[[str | Path | None], Arrays]
    num_classes: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    pad: int | None = None

    def content_hash(self, root: str | None) -> str:
        """Return the hash of dtypes, shapes and pixels, see `Arrays.content_hash`."""
        return self.load(root).content_hash

    def outline(self, spec: DataSettings) -> Outline:
        """Describe the data of a run, see `Source.outline`."""
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
        """Return the data of a run, see `Source.open`."""
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
            drop_last=spec.drop_last,
            seed=placement.seed,
            device=placement.device,
            channels_last=placement.channels_last,
            shard=placement.shard,
        )
