"""Reading of images: decoding, augmentation, cropping; runs in worker processes or in the training process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from experiments.errors import UserError
from experiments.seeding import derived_seed

from .folder import ImageFolder


@dataclass(frozen=True)
class Request:
    """One batch to read.

    Attributes:
        part: Part of the folder that holds the images.
        indices: Indices of the images in that part, int64 [n].
        epoch: Epoch to augment for; None crops the centre, for evaluation.
    """

    part: Literal["train", "test"]
    indices: NDArray[np.int64]
    epoch: int | None


class Reader(Dataset):
    """A reader of batches by request: images uint8 [n, 3, size, size] and labels int64 [n].

    Training images are cropped at random (8 % to 100 % of the area, sides 3:4 to 4:3), resized and mirrored, which is
    the published augmentation of all recipes here. Other images are resized to size · 256 / 224 on the shorter side
    and cropped in the centre. Decoding and bilinear resizing are Pillow's, as in the code of AC/DC and STR; FFCV, which
    TurboPrune uses, differs in single pixel values.

    Args:
        folder: The images.
        size: Height and width of the returned images in pixels.
        seed: Seed of the run.
    """

    def __init__(self, folder: ImageFolder, size: int, seed: int):
        self.folder = folder
        self.seed = seed
        self.augment = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        self.crop = v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | UserError:
        """Read a batch.

        A `UserError` is returned, not raised: the data loader would wrap a raised one in a page of traceback.
        """
        files = self.folder.train if request.part == "train" else self.folder.test
        try:
            images = [self._image(files.path(int(i)), int(i), request.epoch) for i in request.indices]
        except UserError as error:
            return error
        return torch.stack(images), torch.from_numpy(files.labels[request.indices])

    def _image(self, path: str, index: int, epoch: int | None) -> Tensor:
        image = decode(path)
        if epoch is None:
            return self.crop(image)
        # the seed depends on epoch and image alone, so that workers, ranks and restarts do not change an image
        with drawing_from(derived_seed(self.seed, "augment", epoch, index)):
            return self.augment(image)


def decode(path: str) -> Image.Image:
    """Decode an image to RGB.

    The format is recognised by content, since ImageNet holds a PNG named .JPEG.

    Raises:
        UserError: if the file cannot be decoded, or has more pixels than Pillow takes for harmless (90 million).
    """
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            if image.mode.startswith(("I", "F")):  # Pillow would clip the values
                raise ValueError("more than 8 bits a channel")
            return image.convert("RGB")
    except Exception as error:  # Pillow's readers of damaged files raise errors of many kinds
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"this image cannot be decoded ({reason}); replace or remove it", where=path) from error


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator, from which torchvision draws, and restore it at the end of the block."""
    generator = torch.default_generator  # not torch.manual_seed, which would reach the GPUs' generators too
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
