"""Data sets by name. Importing this package loads no torch; `content_hash` needs none either.

A data set of one's own joins by an entry in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from experiments.errors import UserError, nearest

from . import fashion_mnist, synthetic
from .arrays import Arrays

if TYPE_CHECKING:
    import torch

    from .bundle import DataBundle

__all__ = ["DATASETS", "Arrays", "DataSpec", "Source", "build", "content_hash", "find"]


class DataSpec(Protocol):
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
    def batch_size(self) -> int:
        """Images a training step."""
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


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how it is normalised.

    Attributes:
        load: Root folder or None to arrays.
        num_classes: Number of classes.
        mean: Mean of the training pixels on the scale 0 to 1.
        std: Their standard deviation.
    """

    load: Callable[[str | Path | None], Arrays]
    num_classes: int
    mean: float
    std: float


DATASETS: dict[str, Source] = {
    "fashion_mnist": Source(fashion_mnist.load, fashion_mnist.NUM_CLASSES, fashion_mnist.MEAN, fashion_mnist.STD),
    "synthetic": Source(synthetic.load, synthetic.NUM_CLASSES, synthetic.MEAN, synthetic.STD),
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
    return find(name).load(root).content_hash


def build(spec: DataSpec, seed: int, device: str | torch.device, channels_last: bool) -> DataBundle:
    """Load, split and place the data of a run.

    Args:
        spec: The section ``data`` of its configuration.
        seed: Seed of the run; it decides the order of batches and nothing else.
        device: Where the tensors live.
        channels_last: Memory layout of the images.

    Returns:
        The data, in memory on the device.

    Raises:
        UserError: naming the key that has to change.
    """
    from .bundle import make_bundle

    source = find(spec.name)
    if spec.evaluate_on == "validation" and spec.validation == 0:
        raise UserError(
            "'validation' needs held-out images, but data.validation is 0; use 'test' or hold some out",
            where="data.evaluate_on",
        )
    return make_bundle(
        source.load(spec.root),
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
        validation=spec.validation,
        train_limit=spec.train_limit,
        batch_size=spec.batch_size,
        seed=seed,
        device=device,
        channels_last=channels_last,
    )
