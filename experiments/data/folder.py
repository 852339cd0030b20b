"""The listing of a folder of images, ``train/CLASS/*`` and ``val/CLASS/*``. Opens no image and imports no torch."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # in either case
_KEY = "data.root"
log = logging.getLogger(__name__)
_LAYOUT = "expected are train/CLASS/*.jpg and val/CLASS/*.jpg (or .jpeg, .png, .webp, .bmp)"
# listing is limited by the file system, often a network's, and not by the processor
_THREADS = 16
_NAMED = 3  # names that a message spells out of a long list


@dataclass(frozen=True)
class Files:
    """The images of one part, sorted by class and, within a class, by name.

    Names are held in one array of bytes, since each worker process would copy a million Python strings.

    Attributes:
        folder: ``ROOT/train`` or ``ROOT/val``.
        classes: Names of the class folders, sorted; a class's position is its label.
        names: File names, bytes [N].
        labels: int64 [N].
    """

    folder: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return the path of one image."""
        return os.path.join(self.folder, self.classes[self.labels[index]], os.fsdecode(bytes(self.names[index])))


@dataclass(frozen=True)
class ImageFolder:
    """The training and the test part of a folder of images; both have the same classes."""

    train: Files
    test: Files

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted; a class's position is its label."""
        return self.train.classes

    @cached_property
    def content_hash(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over the listing of the folder, not over the pixels.

        The hash covers the names of all classes and images, the part and class of each image, and the size in bytes of
        the first image of each class in both parts. It changes if images are removed, added, renamed, moved to another
        class, or all encoded again (resized, for instance). It does not change if one image is replaced by another of
        the same name, unless that is the first of its class and differs in size. Hashing the pixels would mean reading
        1.3 million files, which takes an hour.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            starts = np.searchsorted(part.labels, np.arange(len(part.classes) + 1))
            digest.update(f"{len(part.classes)} classes\n".encode())
            for name, start, end in zip(part.classes, starts[:-1], starts[1:], strict=True):
                size = os.stat(part.path(int(start))).st_size
                digest.update(os.fsencode(name) + f"/{end - start}/{size}\n".encode())
                digest.update(b"\n".join(part.names[start:end].tolist()))
        return digest.hexdigest()[:16]


@lru_cache(maxsize=2)
def scan(root: str | None) -> ImageFolder:
    """List a folder of images.

    Cached within a process, which first needs the listing for the identity and then for training.

    Args:
        root: Folder with ``train`` and ``val``. Files without the name of an image are left out and counted in the log
            by what their names end in; so is, without a word, everything whose name starts with a dot.

    Raises:
        UserError: if root is None, the layout is different, a class is empty, or the parts have different classes.
    """
    if root is None:
        raise UserError(f"is null, so there are no images to read; give data.root=DIR; in it, {_LAYOUT}", where=_KEY)
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", where=_KEY)
    try:
        return _scanned(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror or error}", where=_KEY) from error


def _scanned(folder: Path) -> ImageFolder:
    classes = {name: _classes(folder / name) for name in ("train", "val")}
    if classes["train"] != classes["val"]:
        told = [
            f"only in {one}: {_few(sorted(set(classes[one]) - set(classes[other])))}"
            for one, other in (("train", "val"), ("val", "train"))
            if set(classes[one]) - set(classes[other])
        ]
        raise UserError(
            f"{folder / 'train'} and {folder / 'val'} must hold the same classes; {'; '.join(told)}", where=_KEY
        )
    return ImageFolder(*(_files(folder / name, found) for name, found in classes.items()))


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; {_LAYOUT}", where=_KEY)
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not found:
        loose = len(_images(folder)[0])
        where = f", but {loose:,} images, which have to be sorted into one" if loose else ""
        raise UserError(f"{folder} holds no folder of a class{where}; {_LAYOUT}", where=_KEY)
    return tuple(found)


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(_images, [folder / name for name in classes]))
    listed = [images for images, _ in found]
    others = sum((left for _, left in found), Counter())
    if others:
        endings = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common(_NAMED))
        log.warning(
            "%s: %d files are no images by their names (%s) and are left out; images end in %s",
            *(folder, others.total(), endings, ", ".join(EXTENSIONS)),
        )
    empty = [name for name, names in zip(classes, listed, strict=True) if not names]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(classes)} classes in {folder} hold no image ({', '.join(EXTENSIONS)}): "
            f"{_few(empty)}",
            where=_KEY,
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in listed])
    return Files(folder, classes, np.array([name for names in listed for name in names]), labels)


def _images(folder: Path) -> tuple[list[bytes], Counter[str]]:
    """Return the sorted names of the images in a folder, and how many other files there are by what their names end in.

    Images are recognised by name alone, to save calls to the file system, which also says what is a pipe or a folder.
    """
    names, others = [], Counter[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] == "." or not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                continue
            if entry.name.lower().endswith(EXTENSIONS):
                names.append(os.fsencode(entry.name))
            else:
                others[os.path.splitext(entry.name)[1].lower() or "without an ending"] += 1
    return sorted(names), others


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
