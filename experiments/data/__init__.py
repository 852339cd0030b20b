"""Data sets by name. Importing this package loads no torch; `content_hash` needs none either.

A data set of one's own joins by an entry in `DATASETS`.
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
    """Look a data set up.

    Raises:
        UserError: if there is none of this name.
    """
    if name not in DATASETS:
        raise UserError(
            f"{name!r} is not a data set; allowed: {', '.join(sorted(DATASETS))}{nearest(name, DATASETS)}",
            where="data.name",
        )
    return DATASETS[name]


@cache
def content_hash(name: str, root: str | None) -> str:
    """Hash of a data set's content, for the identity of a run: it does not depend on where the files are.

    Remembered within a process, since a sweep asks once a cell.

    Raises:
        UserError: if the data set is unknown or cannot be loaded.
    """
    return find(name).content_hash(root)


def outline(spec: DataSettings) -> Outline:
    """Describe the data of a run without placing them.

    Args:
        spec: The section ``data`` of its configuration.

    Raises:
        UserError: naming the key that has to change; whatever `build` would refuse.
    """
    return find(spec.name).outline(spec)


def build(
    spec: DataSettings, seed: int, device: str | torch.device, channels_last: bool, shard: Shard | None = None
) -> Data:
    """Load, split and place the data of a run.

    Args:
        spec: The section ``data`` of its configuration.
        seed: Seed of the run; it decides the order of batches and the augmentation, nothing else.
        device: Where the tensors live.
        channels_last: Memory layout of the images.
        shard: Which rank's part of it, by default all.

    Returns:
        The data: in memory on the device, or read as it is used.

    Raises:
        UserError: naming the key that has to change.
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
