"""Where the trained tensors of a weight stand in the network, and the module through which torch makes θ of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from .representation import Representation


class Parametrization(nn.Module):
    """The module that `torch.nn.utils.parametrize` calls; all algebra is the representation's."""

    def __init__(self, representation: Representation):
        super().__init__()
        # inside a tuple, so that nn.Module does not look into it and deepcopy still copies it along
        self._owner = (representation,)

    @property
    def representation(self) -> Representation:
        """The representation whose algebra this is."""
        return self._owner[0]

    def forward(self, *factors: Tensor) -> Tensor:
        """θ from the trained tensors."""
        return self.representation.materialise(*factors)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The trained tensors from θ."""
        return self.representation.factorise(weight)


@dataclass(frozen=True)
class Slot:
    """One represented weight: its name, its layer, and access to the tensors that are trained."""

    name: str
    module: nn.Module
    factor_names: tuple[str, ...]

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        """The trained tensors, looked up anew so that `model.to(...)` cannot leave stale ones behind."""
        if not parametrize.is_parametrized(self.module, "weight"):
            return (self.module.weight,)  # pyright: ignore[reportReturnType]
        held = self.module.parametrizations["weight"]  # pyright: ignore
        return tuple(getattr(held, f"original{i}") for i in range(len(self.factor_names)))

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:
        """θ, detached."""
        return self.module.weight.detach()  # pyright: ignore
