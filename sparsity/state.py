"""`Stateful`: state that is saved and loaded by naming the attributes that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor


class Stateful:
    """Saves and loads the attributes whose names a class lists in `state`.

    Class attributes:
        state: Names of attributes. A subclass adds its own to those of its base classes; it does not repeat them. An
            attribute holds None, a number, a string, a tensor, a list or dict of these, or an object that has
            `state_dict` and `load_state_dict` itself.
    """

    state: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def state_names(cls) -> Iterator[str]:
        """Names of all attributes that are saved, those of base classes first."""
        for base in reversed(cls.__mro__):
            yield from vars(base).get("state", ())

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the attributes that `state` names."""
        return {name: _saved(getattr(self, name), f"{type(self).__name__}.{name}") for name in self.state_names()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the attributes that `state` names to what `state_dict` returned."""
        for name in self.state_names():
            held = getattr(self, name)
            if hasattr(held, "load_state_dict"):
                held.load_state_dict(state[name])
            else:
                setattr(self, name, _saved(state[name], name))


def on_device(state: Any, device: torch.device) -> Any:
    """Return a state in which all tensors are on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: on_device(item, device) for key, item in state.items()}
    if isinstance(state, list):
        return [on_device(item, device) for item in state]
    return state


def _saved(value: Any, where: str) -> Any:
    """A copy of a value that shares no tensor with it and that `torch.load(weights_only=True)` accepts."""
    if hasattr(value, "load_state_dict"):
        return value.state_dict()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _saved(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_saved(item, where) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which cannot be saved: see `sparsity.state.Stateful`")
