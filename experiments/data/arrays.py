"""Images and labels as read from a file, before normalisation and splitting."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Arrays:
    """A labelled set of images of equal size, with a training and a test part.

    Example:
        >>> import numpy as np
        >>> from experiments.data import Arrays
        >>> images, labels = np.zeros((20, 3, 8, 8), np.uint8), np.arange(20) % 2
        >>> Arrays(images, labels, test_images=images[:4], test_labels=labels[:4]).channels
        3

    Attributes:
        train_images: uint8, shape [N, H, W] (greyscale) or [N, C, H, W], 0 to 255.
        train_labels: int64, shape [N], 0 to classes - 1.
        test_images: uint8, shape [M, H, W] or [M, C, H, W].
        test_labels: int64, shape [M].
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return 1 if self.train_images.ndim == 3 else self.train_images.shape[1]

    @cached_property
    def content_hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of dtypes, shapes and bytes.

        It represents the data in the identity of a run: the folder may move, but the pixels may not change.
        """
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little).data)
        return digest.hexdigest()[:16]
