"""Data sets by name. Importing this package does not import torch, and neither does `content_hash`.

To add a data set, add an entry to `DATASETS`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from experiments.errors import UserError, nearest

from . import cifar, fashion_mnist, synthetic
from .arrays import Arrays
from .imagenet import ImageNet
from .source import ArraySource, Data, DataSettings, Outline, Placement, Source

if TYPE_CHECKING:
    import torch

    from .sampler import Shard

__all__ = [
    "DATASETS",
    "ArraySource",
    "Arrays",
    "Data",
    "DataSettings",
    "Outline",
    "Placement",
    "Source",
    "build",
    "content_hash",
    "find",
    "outline",
]

DATASETS: dict[str, Source] = {
    "fashion_mnist": ArraySource(fashion_mnist.load, fashion_mnist.NUM_CLASSES, fashion_mnist.MEAN, fashion_mnist.STD),
    "synthetic": ArraySource(synthetic.load, synthetic.NUM_CLASSES, synthetic.MEAN, synthetic.STD),
    "cifar10": ArraySource(cifar.load_10, 10, cifar.MEAN_10, cifar.STD_10, cifar.PAD),
    "cifar100": ArraySource(cifar.load_100, 100, cifar.MEAN_100, cifar.STD_100, cifar.PAD),
    "imagenet": ImageNet(),
}


def find(name: str) -> Source:
    """Return the data set of a name.

    Raises:
        UserError: if there is no data set of this name.
    """
    if name not in DATASETS:
        raise UserError(
            f"{name!r} is not a data set; allowed: {', '.join(sorted(DATASETS))}{nearest(name, DATASETS)}",
            where="data.name",
        )
    return DATASETS[name]


@cache
def content_hash(name: str, root: str | None) -> str:
    """Return the hash of a data set's content, which is part of a run's identity in place of the files' location.

    Cached within a process, since a sweep asks for it once per cell.

    Raises:
        UserError: if the data set is unknown or cannot be loaded.
    """
    return find(name).content_hash(root)


def outline(spec: DataSettings) -> Outline:
    """Describe the data of a run without placing them.

    Args:
        spec: The section ``data`` of its configuration.

    Raises:
        UserError: in every case in which `build` raises one; the error names the key that has to change.
    """
    return find(spec.name).outline(spec)


def build(
    spec: DataSettings, seed: int, device: str | torch.device, channels_last: bool, shard: Shard | None = None
) -> Data:
    """Load, split and place the data of a run.

    Args:
        spec: The section ``data`` of its configuration.
        seed: Seed of the run; here it determines only the order of batches and the augmentation.
        device: Device of the tensors.
        channels_last: Whether images are stored in the channels-last memory layout.
        shard: The rank's part of the data; None is all of it.

    Returns:
        The data, either held in memory on the device or read from files when needed.

    Raises:
        UserError: if the section asks for something impossible; the error names the key that has to change.
    """
    import torch

    from .sampler import Shard

    source = find(spec.name)
    if spec.evaluate_on == "validation" and spec.validation == 0:
        raise UserError(
            "'validation' needs held-out images, but data.validation is 0; use 'test' or hold some out",
            where="data.evaluate_on",
        )
    return source.open(spec, Placement(seed, torch.device(device), channels_last, shard or Shard()))
