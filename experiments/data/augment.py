"""Random crops and flips of images in memory, applied to whole batches at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.seeding import derived_seed


@dataclass(frozen=True)
class CropFlip:
    """Random cropping and mirroring: pad an image, crop it back to its size, and mirror it with probability 1/2.

    The transformation of an image depends on seed, epoch and image alone, not on batches, ranks or restarts: the
    random numbers of an epoch are drawn at once for all images of the file, in file order.

    Attributes:
        size: Number of images in the file, including held-out ones.
        pad: Pixels added on each side.
        fill: Value of the added pixels per channel, float [C]: black, which is not zero after normalisation.
        seed: Seed of the run.
    """

    size: int
    pad: int
    fill: Tensor
    seed: int

    def draws(self, epoch: int) -> Tensor:
        """Draw the random numbers of an epoch.

        Returns:
            Row and column of each crop's corner, and 1 where the image is mirrored; int64 [size, 3] on the CPU.
        """
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "augment", epoch))
        corners = torch.randint(2 * self.pad + 1, (self.size, 2), generator=generator)
        mirrored = torch.randint(2, (self.size, 1), generator=generator)
        return torch.cat([corners, mirrored], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop and mirror images.

        Args:
            images: Float [n, C, H, W].
            draws: The rows of `draws` for these images, int64 [n, 3].

        Returns:
            Images of the same shape, device and memory layout.
        """
        count, channels, height, width = images.shape
        pad, device = self.pad, images.device
        fill = self.fill.to(images).view(1, -1, 1, 1)
        padded = fill.expand(count, channels, height + 2 * pad, width + 2 * pad).clone()
        padded[:, :, pad : pad + height, pad : pad + width] = images
        top, left, mirrored = draws.to(device, non_blocking=True).unbind(1)
        rows = top[:, None] + torch.arange(height, device=device)
        columns = left[:, None] + torch.arange(width, device=device)
        columns = torch.where(mirrored[:, None] == 1, columns.flip(1), columns)
        image = torch.arange(count, device=device)
        # advanced indices on both sides of a slice move the channels to the end; permute restores their place
        chosen = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        last = images.is_contiguous(memory_format=torch.channels_last)
        return chosen.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
