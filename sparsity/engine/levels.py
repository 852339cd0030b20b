"""Several trainings in one run: where each of them ends, and the weights that a rewinding method resets to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsity.topology import Plan


class Levels:
    """The position of a run in its plan. Keeps one copy of the network if the plan rewinds, and none otherwise.

    The copy holds all trained tensors and statistics, the factors of a product themselves, so that a rewound network is
    bit-equal to the earlier one.

    Args:
        plan: The plan.
        steps: Steps of one level.
        model: The represented network.

    Attributes:
        count: Number of levels.
        steps: Steps of one level.
        index: The present level, from 0.
    """

    def __init__(self, plan: Plan, steps: int, model: nn.Module):
        self.count, self.steps, self.index = plan.levels, steps, 0
        self._model = model
        self._origin_step: int | None = None  # the step that the plan rewinds to
        if plan.rewind is not None and plan.levels > 1:
            self._origin_step = max(1, round(plan.rewind * steps)) if plan.rewind else 0
        self._origin: dict[str, Tensor] = {}
        self.remember(0)

    def ended(self, step: int) -> bool:
        """Whether the present level ends at a step and another one follows."""
        return self.index + 1 < self.count and step == (self.index + 1) * self.steps

    def remember(self, step: int) -> None:
        """Keep a copy of the network if this is the step that the plan rewinds to."""
        if step == self._origin_step:
            self._origin = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}

    @torch.no_grad()
    def rewind(self) -> None:
        """Restore the kept network, if there is one."""
        if self._origin:
            for name, tensor in self._model.state_dict().items():
                tensor.copy_(self._origin[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the present level and the kept network."""
        return {"index": self.index, "origin": dict(self._origin)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            KeyError: if the kept network has other tensors.
        """
        self.index = state["index"]
        live = self._model.state_dict() if state["origin"] else {}
        self._origin = {name: state["origin"][name].to(tensor.device) for name, tensor in live.items()}
