"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"). Loads no torch.

60,000 colour photographs of 32x32 pixels in ten or a hundred classes, read from a folder in either form that the
author publishes: the python version (``cifar-10-batches-py``, ``cifar-100-python``) or the binary one
(``cifar-10-batches-bin``, ``cifar-100-binary``). Both forms of the same images have the same content hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import UserError

from .arrays import Arrays
from .plain_pickle import MOST_BYTES, PickleError, read_plain_pickle

CHANNELS, IMAGE_SIZE = 3, 32
PIXELS = CHANNELS * IMAGE_SIZE**2
# Width of the black border added to a training image before it is cropped at random (He et al. 2016, arXiv:1512.03385).
PAD = 4

# Of the training images, on the scale 0 to 1.
MEAN_10, STD_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_100, STD_100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

_KEY = "data.root"
ArrayPart = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, 3, 32, 32] and labels [N]


@dataclass(frozen=True)
class Layout:
    """One published form of a data set.

    Attributes:
        folder: Name of its folder.
        train: Files of the training part, in order.
        test: File of the test part.
        read: Function that reads one file; raises ValueError with a text that says what is wrong with the file.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    read: Callable[[Path], ArrayPart]

    @property
    def files(self) -> tuple[str, ...]:
        """All files of this layout."""
        return (*self.train, self.test)


def load_10(root: str | Path | None) -> Arrays:
    """Load CIFAR-10.

    Args:
        root: The folder of the batches, or its parent.

    Returns:
        Images uint8 [N, 3, 32, 32] and labels int64 [N]; the published set has 50,000 to train on and 10,000 to test.

    Raises:
        UserError: if files are missing, damaged or of another format.
    """
    return _load("CIFAR-10", root, LAYOUTS_10, num_classes=10)


def load_100(root: str | Path | None) -> Arrays:
    """Load CIFAR-100 with its hundred fine classes; otherwise as `load_10`."""
    return _load("CIFAR-100", root, LAYOUTS_100, num_classes=100)


def _load(title: str, root: str | Path | None, layouts: tuple[Layout, ...], num_classes: int) -> Arrays:
    if root is None:
        raise UserError(f"{title} does not come with the package; give the folder that holds {_names(layouts)}", _KEY)
    folder, layout = _find(title, Path(root).expanduser(), layouts)
    missing = [name for name in layout.files if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}", where=_KEY)
    parts = [_read(folder / name, layout, num_classes) for name in layout.files]
    images, labels = zip(*parts[:-1], strict=True)
    train = np.concatenate(images), np.concatenate(labels)
    for part, held in (("training", train[1]), ("test", parts[-1][1])):
        if len(np.unique(held)) < num_classes:
            raise UserError(f"{folder}: its {part} part has {len(np.unique(held))} of {num_classes} classes", _KEY)
    return Arrays(*train, *parts[-1])


def _names(layouts: tuple[Layout, ...]) -> str:
    return " or ".join(layout.folder for layout in layouts)


def _find(title: str, root: Path, layouts: tuple[Layout, ...]) -> tuple[Path, Layout]:
    places = ((folder, layout) for layout in layouts for folder in (root, root / layout.folder))
    for folder, layout in places:
        if any((folder / name).is_file() for name in layout.files):
            return folder, layout
    state = f"holds no {title}" if root.is_dir() else "is not a folder"
    raise UserError(f"{root} {state}; expected is {_names(layouts)}, or the folder that holds it", where=_KEY)


def _read(path: Path, layout: Layout, num_classes: int) -> ArrayPart:
    try:
        images, labels = layout.read(path)
        if not len(labels):
            raise ValueError("has no images")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"has labels from {labels.min()} to {labels.max()}; expected are 0 to {num_classes - 1}")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", where=_KEY) from error
    except ValueError as error:
        raise UserError(f"{path} {error}", where=_KEY) from error
    return images, labels


def _pickled(label_key: str) -> Callable[[Path], ArrayPart]:
    def read(path: Path) -> ArrayPart:
        try:
            found = read_plain_pickle(path)
        except PickleError as error:
            raise ValueError(f"is not a batch of CIFAR's python version: {error}") from error
        data, labels = (found.get(key.encode(), found.get(key)) for key in ("data", label_key))
        if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
            raise ValueError(f"has no 'data' of shape [N, {PIXELS}]")
        if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 2**31 for label in labels):
            raise ValueError(f"has no {label_key!r}, a list of whole numbers")
        if len(labels) != len(data):
            raise ValueError(f"has {len(data):,} images and {len(labels):,} labels")
        return data.reshape(-1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE), np.array(labels, dtype=np.int64)

    return read


def _binary(label_bytes: int) -> Callable[[Path], ArrayPart]:
    """Return a reader of files whose rows are `label_bytes` labels, the fine one last, followed by the pixels."""

    def read(path: Path) -> ArrayPart:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES:,} bytes")
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        row = label_bytes + PIXELS
        if len(content) % row:
            raise ValueError(f"has {len(content):,} bytes, which is no multiple of {row:,}")
        rows = content.reshape(-1, row)
        images = np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
        return images, rows[:, label_bytes - 1].astype(np.int64)

    return read


def _batches(suffix: str) -> Iterator[str]:
    return (f"data_batch_{number}{suffix}" for number in range(1, 6))


LAYOUTS_10 = (
    Layout("cifar-10-batches-py", tuple(_batches("")), "test_batch", _pickled("labels")),
    Layout("cifar-10-batches-bin", tuple(_batches(".bin")), "test_batch.bin", _binary(1)),
)
LAYOUTS_100 = (
    Layout("cifar-100-python", ("train",), "test", _pickled("fine_labels")),
    Layout("cifar-100-binary", ("train.bin",), "test.bin", _binary(2)),
)
