"""What new masks change in each layer, found before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsity.masks import MaskSet
from sparsity.options import MaskError, TrainingError
from sparsity.slots import Slot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """The new mask of a layer beside its old one.

    Attributes:
        slot: The layer's weight.
        mask: The new mask.
        again: Weights that are active before and after, and restart at zero; None if there are none.
        dropped: Weights that the old mask holds and the new one does not.
        grown: Weights that the new mask holds and the old one does not.
    """

    slot: Slot
    mask: Tensor
    again: Tensor | None
    dropped: Tensor
    grown: Tensor

    @property
    def grown_anew(self) -> Tensor:
        """Weights that begin at zero: those that grow, and those that restart."""
        return self.grown if self.again is None else self.grown | self.again

    @property
    def touched(self) -> Tensor:
        """Weights that are zero afterwards and whose moments restart."""
        return self.dropped | self.grown_anew


def check_masks(masks: Any, old: MaskSet) -> None:
    """Check what a method gives as masks.

    Raises:
        MaskError: with the layer, what came and what is allowed.
    """
    if not isinstance(masks, MaskSet):
        raise MaskError(f"masks are a {type(masks).__name__}: a sparsity.MaskSet is allowed")
    unknown = sorted(set(masks) - set(old))
    if unknown:
        raise MaskError(f"masks of {', '.join(unknown)}: there is no such weight; weights: {', '.join(old)}")
    for name, mask in masks.items():
        if mask.shape != old[name].shape:
            raise MaskError(f"the mask of {name} has shape {tuple(mask.shape)}, its weight {tuple(old[name].shape)}")


def changes(
    slots: Mapping[str, Slot], masks: MaskSet, old: MaskSet, restart: Mapping[str, Tensor]
) -> dict[str, Change]:
    """Compare new masks with old ones; a layer that is left out keeps its mask."""
    found = {}
    for name, slot in slots.items():
        new = masks[name].to(old[name].device) if name in masks else old[name]
        moved = new ^ old[name]
        again = restart[name].to(new.device) & old[name] & new if name in restart else None
        found[name] = Change(slot, new, again, moved & ~new, moved & new)
    return found


def counted(found: Mapping[str, Change]) -> dict[str, tuple[int, int, int]]:
    """Count in each layer what drops, what grows and what restarts (one host synchronisation)."""
    nothing = torch.zeros((), dtype=torch.bool)
    sums = [
        part.sum() if part is not None else nothing.to(change.mask.device).sum()
        for change in found.values()
        for part in (change.dropped, change.grown, change.again)
    ]
    numbers = torch.stack(sums).tolist()
    return {name: (*numbers[3 * i : 3 * i + 3],) for i, name in enumerate(found)}  # pyright: ignore[reportReturnType]


def leave_frozen(
    found: dict[str, Change], numbers: dict[str, tuple[int, int, int]], old: MaskSet, told: set[str]
) -> None:
    """Let layers that were frozen after `attach` keep their masks, where that leaves their number of weights.

    Args:
        found: The changes, from which those of frozen layers are removed.
        numbers: What they count, likewise.
        old: The present masks.
        told: Names of the layers that were named; grows.

    Raises:
        TrainingError: naming a frozen layer that would have another number of weights.
    """
    for name, change in found.items():
        dropped, grown, again = numbers[name]
        if dropped == grown == again == 0 or any(p.requires_grad for p in change.slot.parameters):
            continue
        if dropped != grown:
            raise TrainingError(
                f"{name} has been frozen (requires_grad = False) since attach(), but is to lose {dropped} weights and "
                f"gain {grown}: freeze it before attach(), which leaves it out of the count, or name it in dense"
            )
        nothing = torch.zeros_like(old[name])
        found[name] = Change(change.slot, old[name], None, nothing, nothing)
        numbers[name] = (0, 0, 0)
        if name not in told:
            told.add(name)
            log.warning("%s has been frozen since attach(): its mask stays as it is", name)
