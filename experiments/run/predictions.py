"""The class that a trained network gives to each evaluated image, kept for tests between networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.ranks.distributed import World
from experiments.rundir import names
from experiments.rundir.files import atomic


def gather(seen: list[Tensor], world: World) -> NDArray[np.int64]:
    """Return predicted classes and labels of all ranks, (2, images), in the order of the part; all ranks must call it.

    Args:
        seen: This rank's batches, see `metrics.evaluate`; its share is contiguous.
        world: The ranks.
    """
    own = torch.cat([torch.empty(2, 0, dtype=torch.long), *seen], dim=1)
    return np.concatenate(world.gather(own.numpy()), axis=1)


def write(folder: Path, predicted: NDArray[np.int64], check: Callable[[], None] = lambda: None) -> None:
    """Write predicted classes and labels in the smallest type that holds them; equal content gives equal bytes.

    Args:
        folder: The run directory.
        predicted: Predicted classes and labels, (2, images).
        check: Makes sure that this process still holds the run.
    """
    small = predicted.astype(np.min_scalar_type(int(predicted.max(initial=0))))
    with atomic(folder / names.PREDICTIONS, check) as file:
        np.savez_compressed(file, predicted=small[0], labels=small[1])
