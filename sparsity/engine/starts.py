"""What `attach` finds: what a method does not prune, and weights that are sparse already, perhaps a checkpoint's."""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparsity.masks import MaskSet
from sparsity.options import TrainingError
from sparsity.representation import Representation

from .course import Course

log = logging.getLogger(__name__)

SPARSE = 0.01  # fraction of zeros from which on weights count as sparse


@torch.no_grad()
def pattern(representation: Representation) -> dict[str, Tensor]:
    """Return where the weights are not zero, of layers in which some are and some are not; empty if few are zero.

    Where θ = 0 has no gradient zeros stay zero whatever the masks say, and a soft threshold makes its own.
    """
    if not representation.grad_at_zero:
        return {}
    found, zeros, size = {}, 0, 0
    for name, theta in representation.weights():
        active = theta != 0
        number = int(active.sum())
        if 0 < number < active.numel():
            found[name] = active
            zeros += active.numel() - number
            size += active.numel()
    return found if zeros > SPARSE * size else {}


class WeightsBefore:
    """Puts back what the first masks pruned, if it turns out that the network had been loaded before `attach`.

    Frameworks differ in the order in which they load a checkpoint: Lightning loads the network, then asks for an
    optimizer, then loads the optimizer and with it the masks. Until the first step, the weights that were sparse at
    `attach` are kept as they were.

    Args:
        representation: The network, before the first masks are set.
        optimizer: Its optimizer.
        names: Names of the weights to keep, those that are sparse already.
    """

    def __init__(self, representation: Representation, optimizer: Optimizer, names: Collection[str]):
        self._slots = {name: representation.slots[name] for name in names}
        self._factors = {name: [f.detach().clone() for f in slot.factors] for name, slot in self._slots.items()}
        self._moments = _tensors(optimizer) if names else []
        self._first: MaskSet | None = None
        self._written: dict[str, list[int]] = {}

    def pruned_by(self, masks: MaskSet) -> None:
        """Remember the network as the first masks left it; what is written later is not touched."""
        self._first, self._written = masks, self._versions()

    @torch.no_grad()
    def restore(self, optimizer: Optimizer, masks: MaskSet) -> None:
        """Put back weights that the first masks pruned and the loaded ones do not, where nothing was written since.

        Raises:
            TrainingError: if the first masks have cleared moments of these weights, and no others were loaded.
        """
        assert self._first is not None
        versions = self._versions()
        for name, factors in self._factors.items():
            lost = masks[name] & ~self._first[name].to(masks[name].device)
            if versions[name] != self._written[name] or not lost.any():
                continue
            if {id(tensor) for tensor in self._moments} & {id(tensor) for tensor in _tensors(optimizer)}:
                raise TrainingError(
                    "the optimizer was loaded before attach(), whose first masks have cleared moments: load it after "
                    "attach(), and the masks after that"
                )
            for factor, kept in zip(self._slots[name].factors, factors, strict=True):
                if factor.shape == lost.shape:
                    factor[lost] = kept.to(factor.device)[lost]
        self._written = self._versions()

    def _versions(self) -> dict[str, list[int]]:
        return {name: [factor._version for factor in slot.factors] for name, slot in self._slots.items()}


def _tensors(optimizer: Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def tell(training: Course, before: dict[str, Tensor]) -> None:
    """Log what a user might not expect of the training that begins.

    Args:
        training: The training.
        before: The `pattern` of the weights before masks were set.
    """
    representation = training.representation
    if training.sparsity > 0 and representation.uncounted:
        counted = sum(mask.numel() for mask in training.masks.values())
        total = counted + sum(representation.uncounted.values())
        shares = [f"{name} ({100 * size / total:.2g} %)" for name, size in representation.uncounted.items()]
        more = f" and {len(shares) - 5} more, {100 * (1 - counted / total):.2g} % in all," if len(shares) > 5 else ""
        log.warning("not pruned and not counted: %s%s of all matrices", ", ".join(shares[:5]), more)
    if before:
        size = sum(active.numel() for active in before.values())
        held = sum(int(active.sum()) for active in before.values())
        kept = sum(int((active & training.masks[name]).sum()) for name, active in before.items())
        woken = sum(int((~active & training.masks[name]).sum()) for name, active in before.items())
        if kept < held or woken > 0:
            log.warning(
                "the weights are sparse already (%.1f %% zeros): under the masks of %s %.1f %% of the others remain, "
                "and %.1f %% of the zeros are active; to resume a training, attach first and load the network, the "
                "optimizer and the masks afterwards (a network that was loaded before comes back with its masks)",
                *(100 * (1 - held / size), training.topology.name, 100 * kept / held, 100 * woken / (size - held)),
            )
    if training.levels.count > 1:
        log.info(
            "%s trains %d times: call next_level() whenever level_ended is true; total_steps counts all",
            *(training.topology.name, training.levels.count),
        )
