"""What is said once, when a method is attached: what it does not prune, and weights that were sparse before."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

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
        log.warning(
            "not pruned and not counted: %s%s of all matrices", ", ".join(shares[:5]), " …" if len(shares) > 5 else ""
        )
    if before:
        size = sum(active.numel() for active in before.values())
        held = sum(int(active.sum()) for active in before.values())
        kept = sum(int((active & training.masks[name]).sum()) for name, active in before.items())
        woken = sum(int((~active & training.masks[name]).sum()) for name, active in before.items())
        if kept < held or woken > 0:
            log.warning(
                "the weights are sparse already (%.1f %% zeros): under the masks of %s %.1f %% of the others remain, "
                "and %.1f %% of the zeros are active; to resume a training, attach first and load the network, the "
                "optimizer and the masks afterwards",
                *(100 * (1 - held / size), training.topology.name, 100 * kept / held, 100 * woken / (size - held)),
            )
    if training.levels.count > 1:
        log.info(
            "%s trains %d times: call next_level() whenever level_ended is true; total_steps counts all",
            *(training.topology.name, training.levels.count),
        )
