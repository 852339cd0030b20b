"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747): ten kinds of clothing in 28x28 greyscale images.

A part of it comes with the package: the first 500 training images of each class and all 10,000 test images, extracted
by `scripts/make_fashion_mnist.py`. The full set of 60,000 training images is read from a folder.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import UserError

from .arrays import Arrays
from .idx import IdxError, read_idx

NUM_CLASSES = 10
IMAGE_SIZE = 28
# Of the 60,000 training images, on the scale 0 to 1; also used for the embedded part, so that equal images become
# equal inputs.
MEAN, STD = 0.2860, 0.3530

EMBEDDED = Path(__file__).with_name("fashion_mnist_5k.npz")
EMBEDDED_SHA256 = "fb0b6fbf48df394c26ee5c91ea1954a3439d7e7d831b5e409c521894696cefb2"

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_KEY = "data.root"


def load(root: str | Path | None) -> Arrays:
    """Load the embedded part or the full set.

    Args:
        root: None for the embedded part; otherwise a folder with the four idx files, gzipped or not, or a root folder
            of torchvision's (which holds them in ``FashionMNIST/raw``).

    Returns:
        Images uint8 [N, 28, 28] and labels int64 [N]: 5,000 and 10,000 embedded, 60,000 and 10,000 in the full set.

    Raises:
        UserError: if files are missing, damaged or not in the format of Fashion-MNIST.
    """
    return _load_embedded(EMBEDDED) if root is None else _load_folder(Path(root).expanduser())


def _load_embedded(path: Path) -> Arrays:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the embedded Fashion-MNIST cannot be read: {error}; reinstall the package", where=_KEY
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != EMBEDDED_SHA256:
        raise UserError(
            f"the embedded Fashion-MNIST {path} is damaged: SHA-256 {found}, expected {EMBEDDED_SHA256}; "
            "reinstall the package or make the file anew with scripts/make_fashion_mnist.py",
            where=_KEY,
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return _arrays({name: archive[name] for name in FILES})


def _load_folder(root: Path) -> Arrays:
    folder = _find_folder(root)
    paths = {key: _find_file(folder, name) for key, name in FILES.items()}
    missing = [name for key, name in FILES.items() if paths[key] is None]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(f'{name}[.gz]' for name in missing)}", where=_KEY)
    arrays = {key: _read(path) for key, path in paths.items() if path is not None}
    for part in ("train", "test"):
        _check_part(folder, part, arrays[f"{part}_images"], arrays[f"{part}_labels"])
    return _arrays(arrays)


def _find_folder(root: Path) -> Path:
    folders = (root, root / "FashionMNIST" / "raw")
    for folder in folders:
        if any(_find_file(folder, name) for name in FILES.values()):
            return folder
    state = "holds no Fashion-MNIST" if root.is_dir() else "is not a folder"
    raise UserError(
        f"{root} {state}; expected are {', '.join(f'{name}[.gz]' for name in FILES.values())} in {folders[0]} or in "
        f"{folders[1]}; null means the 5,000 embedded training images",
        where=_KEY,
    )


def _find_file(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return read_idx(path)
    except IdxError as error:
        raise UserError(f"{path} {error}", where=_KEY) from error


def _check_part(folder: Path, part: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    if (
        images.ndim != 3
        or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE)
        or labels.ndim != 1
        or len(images) != len(labels)
    ):
        raise UserError(
            f"{folder}: the {part} part has images of shape {list(images.shape)} and labels of shape "
            f"{list(labels.shape)}; expected are [N, {IMAGE_SIZE}, {IMAGE_SIZE}] and [N]",
            where=_KEY,
        )
    classes = sorted({int(label) for label in np.unique(labels)})
    if classes != list(range(NUM_CLASSES)):
        raise UserError(
            f"{folder}: the labels of the {part} part are {classes}; Fashion-MNIST has each of 0 to {NUM_CLASSES - 1}",
            where=_KEY,
        )


def _arrays(arrays: dict[str, NDArray[np.uint8]]) -> Arrays:
    labels = {name: arrays[name].astype(np.int64) for name in ("train_labels", "test_labels")}
    return Arrays(train_images=arrays["train_images"], test_images=arrays["test_images"], **labels)
