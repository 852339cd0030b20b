"""Several trainings in one run: where each of them ends, and the weights that a rewinding method goes back to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsity.topology import Plan


class Levels:
    """Where a run stands in its plan. Keeps one copy of the network where the plan rewinds, and none otherwise.

    The copy is of all trained tensors and statistics, the factors of a product themselves, so that a rewound network is
    the earlier one bit for bit.

    Args:
        plan: The plan.
        steps: Steps of one level.
        model: The represented network.

    Attributes:
        count: Number of levels.
        steps: Steps of one level.
        index: The level under way, from 0.
    """

    def __init__(self, plan: Plan, steps: int, model: nn.Module):
        self.count, self.steps, self.index = plan.levels, steps, 0
        self._model = model
        self._origin_step: int | None = None
        if plan.rewind is not None and plan.levels > 1:
            self._origin_step = max(1, round(plan.rewind * steps)) if plan.rewind else 0
        self._origin: dict[str, Tensor] = {}
        self.remember(0)

    def ended(self, step: int) -> bool:
        """Whether the level under way is over after so many steps and another one follows."""
        return self.index + 1 < self.count and step == (self.index + 1) * self.steps

    def remember(self, step: int) -> None:
        """Keep the network as it is, if this is the step that the plan rewinds to."""
        if step == self._origin_step:
            self._origin = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}

    @torch.no_grad()
    def rewind(self) -> None:
        """Put the kept network back, if there is one."""
        if self._origin:
            for name, tensor in self._model.state_dict().items():
                tensor.copy_(self._origin[name])

    def state_dict(self) -> dict[str, Any]:
        """The level under way, and the kept network."""
        return {"index": self.index, "origin": dict(self._origin)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`.

        Raises:
            KeyError: if the kept network is another one.
        """
        self.index = state["index"]
        live = self._model.state_dict() if state["origin"] else {}
        self._origin = {name: state["origin"][name].to(tensor.device) for name, tensor in live.items()}
