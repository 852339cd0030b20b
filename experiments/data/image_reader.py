"""Images from files: decoded, augmented, cropped. Runs in worker processes as well as in the training process."""

from __future__ import annotations

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
        part: Where the images lie.
        indices: Which of them, int64 [n].
        epoch: Epoch they are augmented for; None: they are evaluated on.
    """

    part: Literal["train", "test"]
    indices: NDArray[np.int64]
    epoch: int | None


class Reader(Dataset):
    """Batches by request: uint8 [n, 3, size, size] and labels int64 [n].

    Training images are cropped at random (8 % to 100 % of the area, sides 3:4 to 4:3), resized and mirrored, the
    published augmentation of all recipes here; the others are resized to size · 256 / 224 on the shorter side and
    cropped in the centre. Decoding and bilinear resizing are Pillow's, as in the code of AC/DC and STR; TurboPrune's
    FFCV differs in single pixel values.

    Args:
        folder: The images.
        size: Height and width of what is returned, in pixels.
        seed: Seed of the run.
    """

    def __init__(self, folder: ImageFolder, size: int, seed: int):
        self.folder = folder
        self.seed = seed
        self.augment = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        self.crop = v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | UserError:
        """Read a batch. An error is returned: raised, it would reach the training process as a page of text."""
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
        # of seed, epoch and image alone, so that neither workers, nor ranks, nor a restart change an image
        with drawing_from(derived_seed(self.seed, "augment", epoch, index)):
            return self.augment(image)


def decode(path: str) -> Image.Image:
    """Decode a JPEG or PNG to RGB; told apart by content, since ImageNet has a PNG named .JPEG.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut the values off
                raise ValueError("more than 8 bits a channel")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow says of damage
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"this image cannot be decoded ({reason}); replace or remove it", where=path) from error


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let torchvision, which draws from torch's global CPU generator, draw from a seed of its own meanwhile."""
    generator = torch.default_generator  # not torch.manual_seed, which would reach the GPUs' generators too
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)
