"""`OutsideMasks`: finds weights that somebody has written where the masks have none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsity.representation import Representation

log = logging.getLogger(__name__)


class _Loads:
    """Counts the calls of `load_state_dict`. Copies of a network take it along, and count theirs."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, module: nn.Module, keys: Any) -> None:
        self.times += 1


class OutsideMasks:
    """Looks for weights outside the masks that are not zero, and tells of them.

    Masks and weights that belong together have none; a network that was loaded without its masks, or a hook that
    writes weights, leaves some. Looking costs a synchronisation, so it is done where a look is `due` and once an epoch.

    Args:
        representation: The represented network.
    """

    def __init__(self, representation: Representation):
        self._representation = representation
        self._loads = _Loads()
        self._seen = -1  # before the first step something may have been written in any way
        self._told = -1
        modules = {id(slot.module): slot.module for slot in representation.slots.values()}.values()
        self._handles = [module.register_load_state_dict_post_hook(self._loads) for module in modules]

    @property
    def due(self) -> bool:
        """Whether weights were loaded since the last look, or nobody has looked yet."""
        return self._seen < self._loads.times

    @torch.no_grad()
    def look(self, pruned: Mapping[str, Tensor], step: int) -> None:
        """Tell, once for each load, of weights that are not zero where masks prune.

        Args:
            pruned: True where weights are pruned, of the layers that have such.
            step: Number of steps done.
        """
        self._seen = self._loads.times
        thetas = self._representation.weights()
        sums = {name: ((theta != 0) & pruned[name]).sum() for name, theta in thetas if name in pruned}
        if not sums or self._told == self._seen:
            return
        numbers = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        found = [f"{name} ({number})" for name, number in numbers.items() if number]
        if found:
            self._told = self._seen
            log.warning(
                "step %d: weights outside the masks are not zero, in %s%s: the network was loaded or written after its "
                "masks were set. They are set to zero now; to go on from a checkpoint, load its network, its optimizer "
                "and the state of its sparse training together",
                *(step, ", ".join(found[:3]), f" and {len(found) - 3} more layers" if len(found) > 3 else ""),
            )

    def end(self) -> None:
        """Let go of the network."""
        for handle in self._handles:
            handle.remove()
