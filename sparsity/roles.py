"""Which layer of a network is its first and which its last: by the order of calls, not by that of registration."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import fx, nn

from .targets import Target

_ROLES: tuple[str, ...] = ("first", "last")


def first_and_last(model: nn.Module, found: Sequence[Target]) -> tuple[str, str] | None:
    """Return the names of the targets that a forward pass reaches first and last.

    The forward pass is traced symbolically on a copy without data, so nothing in the model changes.

    Args:
        model: The network.
        found: Its targets.

    Returns:
        The two names, or None if the forward pass cannot be traced (its control flow depends on the input).
    """
    tensors = [*model.parameters(), *model.buffers()]
    empty: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else tensor.detach().to("meta")
        for tensor in tensors
    }
    try:
        graph = _Tracer().trace(copy.deepcopy(model, empty))
    except Exception:  # whatever a forward pass raises when its input has no values
        return None
    modules = {id(module): name for name, module in model.named_modules()}
    names = [modules[id(target.module)] for target in found]
    reached: list[str] = []
    for node in graph.nodes:
        if node.op == "call_module":
            inside = [t.name for t, n in zip(found, names, strict=True) if f"{n}.".startswith(f"{node.target}.")]
            reached += inside[:1] + inside[-1:]
    return (reached[0], reached[-1]) if reached else None


class _Tracer(fx.Tracer):
    """Does not look into layers with weights, nor into torch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = any(True for _ in m.parameters(recurse=False))
        return own or hasattr(m, "parametrizations") or super().is_leaf_module(m, module_qualified_name)


class CallOrder:
    """Watches one forward pass for the first and the last target that is called, where tracing was not possible.

    Args:
        found: The targets, in the order that is assumed.
        roles: The roles that matter: first, last.
    """

    def __init__(self, found: Sequence[Target], roles: Collection[str]):
        ends = zip(_ROLES, (found[0].name, found[-1].name), strict=True)
        self._expected = {role: name for role, name in ends if role in roles}
        self._called: list[str] = []
        self._handles = [target.module.register_forward_hook(self._note(target.name)) for target in found]

    def _note(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not torch.compiler.is_compiling():
                self._called.append(name)

        return hook

    def check(self) -> None:
        """End the watch and compare.

        Raises:
            ValueError: if other layers are first and last than was assumed.
        """
        for handle in self._handles:
            handle.remove()
        ends = dict(zip(_ROLES, self._called[:1] + self._called[-1:], strict=False))
        for role, expected in self._expected.items():
            if (actual := ends.get(role, expected)) != expected:
                raise ValueError(
                    f"dense: {expected} was taken for the {role} layer, since it is registered {role}, but {actual} is "
                    f"called {role}: name the layers that stay dense, such as dense: [{actual.removesuffix('.weight')}]"
                )
