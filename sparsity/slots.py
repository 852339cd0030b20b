"""`Slot`: where the trained tensors of a weight are in the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .targets import Target


@dataclass(frozen=True)
class Slot:
    """One represented weight: its target, and access to its trained tensors."""

    target: Target
    factor_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the weight."""
        return self.target.name

    @property
    def module(self) -> nn.Module:
        """The layer that owns it."""
        return self.target.module

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The trained tensors as the optimizer owns them, looked up anew because `model.to(...)` may replace them."""
        module, tensor = self.target.module, self.target.tensor
        if not parametrize.is_parametrized(module, tensor):
            return (self.target.parameter,)
        held = module.parametrizations[tensor]  # pyright: ignore
        return tuple(getattr(held, f"original{i}") for i in range(len(self.factor_names)))

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        """The trained tensors of this weight: `parameters`, or those rows of them that belong to it."""
        parameters, rows = self.parameters, self.target.rows
        if rows is None:
            return parameters
        shape = parameters[0].shape  # a threshold of another shape belongs to all rows
        return tuple(_part(p, rows) if p.shape == shape else p for p in parameters)

    @property
    def weight(self) -> Tensor:
        """θ, detached."""
        return self.target.weight


def _part(parameter: nn.Parameter, rows: slice) -> nn.Parameter:
    """Return some rows of a parameter and of its gradient, as tensors that share their memory."""
    part = parameter.detach()[rows]
    if parameter.grad is not None:
        part.grad = parameter.grad[rows]
    part.whole = parameter, rows  # pyright: ignore[reportAttributeAccessIssue]
    return part  # pyright: ignore[reportReturnType]


def whole_of(factor: Tensor) -> tuple[Tensor, slice | None]:
    """Return the parameter that a factor is rows of, and which; the factor itself and None if it is no part."""
    return getattr(factor, "whole", (factor, None))
