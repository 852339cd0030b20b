"""Images and labels of one part of a data set, normalised for a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scale = float | tuple[float, ...]  # one value for all pixels, or one per channel


@dataclass(frozen=True)
class Part:
    """Images float32 [N, C, H, W], normalised, and labels int64 [N], both on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def make_part(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    mean: Scale,
    std: Scale,
    device: str | torch.device,
    channels_last: bool,
) -> Part:
    """Make a part on the device, with pixels of 0 to 255 normalised to (pixel / 255 - mean) / std.

    Args:
        images: uint8 [N, H, W] or [N, C, H, W].
        labels: int64 [N].
        mean: Mean of all pixels, or of each channel's, on the scale 0 to 1.
        std: Their standard deviation.
        device: Device of the tensors.
        channels_last: Store the channels of each pixel side by side, which is faster for convolutions on CPUs.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = torch.tensor(images, device=device)
    scaled = normalised((pixels.unsqueeze(1) if pixels.ndim == 3 else pixels).float(), mean, std)
    return Part(scaled.to(memory_format=layout), torch.tensor(labels, device=device))


def normalised(pixels: Tensor, mean: Scale, std: Scale) -> Tensor:
    """Compute (pixels / 255 - mean) / std in place, for pixels float [N, C, H, W] of 0 to 255."""
    # a single value stays a number: as a tensor it could round differently
    shift, scale = (
        torch.tensor(value, device=pixels.device).view(1, -1, 1, 1) if isinstance(value, tuple) else value
        for value in (mean, std)
    )
    return pixels.div_(255).sub_(shift).div_(scale)
