"""`Slot`: where the trained tensors of a weight are in the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Slot:
    """One represented weight: its name, its layer, and access to its trained tensors."""

    name: str
    module: nn.Module
    factor_names: tuple[str, ...]

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        """The trained tensors, looked up at each access because `model.to(...)` may replace them."""
        if not parametrize.is_parametrized(self.module, "weight"):
            return (self.module.weight,)  # pyright: ignore[reportReturnType]
        held = self.module.parametrizations["weight"]  # pyright: ignore
        return tuple(getattr(held, f"original{i}") for i in range(len(self.factor_names)))

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:
        """θ, detached."""
        return self.module.weight.detach()  # pyright: ignore
