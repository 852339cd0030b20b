"""A tiny set of noisy images in ten classes, learnable within seconds: for tests and first steps, not for results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import UserError

from .arrays import Arrays

NUM_CLASSES = 10
IMAGE_SIZE = 28
# Mean and standard deviation of the training pixels on the scale 0 to 1, rounded.
MEAN, STD = 0.490, 0.263

_TRAIN_PER_CLASS, _TEST_PER_CLASS = 40, 20
_CELLS = 7


def load(root: str | Path | None) -> Arrays:
    """Generate the images: a coarse random pattern of 7x7 cells for each class, plus noise on every pixel.

    Args:
        root: Must be None, since there are no files.

    Returns:
        400 training and 200 test images [N, 28, 28] with the classes in turn; the same images at every call.

    Raises:
        UserError: if a root is given.
    """
    if root is not None:
        raise UserError(f"the synthetic data set has no files, but root is {str(root)!r}; use null", where="data.root")
    # RandomState, not Generator: numpy guarantees that its streams never change between versions.
    random = np.random.RandomState(20170825)
    coarse = random.uniform(40.0, 215.0, size=(NUM_CLASSES, _CELLS, _CELLS))
    prototypes = coarse.repeat(IMAGE_SIZE // _CELLS, axis=1).repeat(IMAGE_SIZE // _CELLS, axis=2)

    def draw(per_class: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        labels = np.tile(np.arange(NUM_CLASSES, dtype=np.int64), per_class)
        noise = random.randint(-80, 81, size=(len(labels), IMAGE_SIZE, IMAGE_SIZE))
        return np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8), labels

    train_images, train_labels = draw(_TRAIN_PER_CLASS)
    test_images, test_labels = draw(_TEST_PER_CLASS)
    return Arrays(train_images, train_labels, test_images, test_labels)
