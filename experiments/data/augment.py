"""Random crops and flips of images in memory, for whole batches at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.seeding import derived_seed


@dataclass(frozen=True)
class CropFlip:
    """Pad an image, crop it back to its size at random, mirror every second one.

    What happens to an image is a function of seed, epoch and image alone: neither batches, nor ranks, nor a restart
    change it. The draws of an epoch are made at once for all images of the file, in file order.

    Attributes:
        size: Number of images in the file, held-out ones included.
        pad: Pixels added on each side.
        fill: Value of the added pixels by channel, float [C]; after normalisation, black is not zero.
        seed: Seed of the run.
    """

    size: int
    pad: int
    fill: Tensor
    seed: int

    def draws(self, epoch: int) -> Tensor:
        """Draw for an epoch: int64 [size, 3] on the CPU, row and column of the crop's corner, 0 or 1 for a mirror."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "augment", epoch))
        corners = torch.randint(2 * self.pad + 1, (self.size, 2), generator=generator)
        mirrored = torch.randint(2, (self.size, 1), generator=generator)
        return torch.cat([corners, mirrored], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop and mirror.

        Args:
            images: Float [n, C, H, W].
            draws: The rows of `draws` of these images, int64 [n, 3].

        Returns:
            Images of the same shape and device, laid out in memory as they were.
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
        # indices apart from the channels' slice put the channels last: the batch is put back in order
        chosen = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        last = images.is_contiguous(memory_format=torch.channels_last)
        return chosen.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
