"""Which layer of a network is its first and which its last: by the flow of data, not by the order of registration."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from .targets import Target, plain_name


class UnclearRole(ValueError):
    """Which layer is first or last cannot be told."""


def layer_called(role: str, model: nn.Module, found: Sequence[Target]) -> str:
    """Return the name of the target that data reach first, or that makes the output: ``first`` or ``last``.

    The forward pass is traced symbolically, in evaluation mode, on a copy without data, so nothing in the model
    changes. Weights that a forward pass reads itself, as in ``F.linear(x, F.normalize(self.head.weight))``, are seen.

    Args:
        role: ``first`` or ``last``.
        model: The network.
        found: Its targets.

    Raises:
        UnclearRole: if the forward pass cannot be traced (its control flow depends on the input), or several layers
            have the role, such as the heads of a network with several outputs.
    """
    try:
        graph = _Tracer().trace(network := _empty_copy(model), _defaults(network))
    except Exception as error:  # whatever a forward pass raises when its input has no values
        raise UnclearRole(
            f"which layer is {role} cannot be told, since the forward pass cannot be followed without data "
            f"({type(error).__name__})"
        ) from None
    flow = _Flow(model, found)
    for node in graph.nodes:
        flow.add(node)
    names = flow.first() if role == "first" else flow.last(graph)
    if len(names) != 1:
        several = f"{', '.join(names)} are all {role}" if names else "data reach none of the layers"
        raise UnclearRole(f"which layer is {role} cannot be told: {several}")
    return names[0]


def _empty_copy(model: nn.Module) -> nn.Module:
    """Copy a network without its data, without what `torch.compile` wraps around its parts, in evaluation mode."""
    empty: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else tensor.detach().to("meta")
        for tensor in (*model.parameters(), *model.buffers())
    }
    for module in model.modules():
        if "_orig_mod" in module._modules:  # compiled code cannot be copied
            empty[id(module)] = copy.deepcopy(module._modules["_orig_mod"], empty)
    return copy.deepcopy(model, empty).eval()


def _defaults(model: nn.Module) -> dict[str, Any]:
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


class _Tracer(fx.Tracer):
    """Does not look into layers with weights, nor into torch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = any(True for _ in m.parameters(recurse=False))
        return own or hasattr(m, "parametrizations") or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class _Value:
    """What is known of the value of a node.

    Attributes:
        data: Whether it depends on the input.
        weights: Names of the targets that it is computed from, if it does not.
        uses: First and last target that it is a product of data with, if it is one.
        before: Nodes with `uses` that it depends on, itself left out.
    """

    data: bool = False
    weights: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    before: frozenset[fx.Node] = field(default_factory=frozenset)


class _Flow:
    """Follows data through a graph from one product with a target to the next."""

    def __init__(self, model: nn.Module, found: Sequence[Target]):
        modules = {id(module): plain_name(name) for name, module in model.named_modules()}
        self._layers = [(modules[id(target.module)], target) for target in found]
        self._values: dict[fx.Node, _Value] = {}

    def add(self, node: fx.Node) -> None:
        """Add the next node."""
        inputs = [self._values[parent] for parent in node.all_input_nodes]
        data = node.op == "placeholder" or any(value.data for value in inputs)
        before = frozenset[fx.Node]().union(*(value.before for value in inputs))
        before |= {parent for parent in node.all_input_nodes if self._values[parent].uses}
        weights = self._held(node) + tuple(name for value in inputs if not value.data for name in value.weights)
        uses = (weights[0], weights[-1]) if data and weights else ()
        self._values[node] = _Value(data, () if data else weights, uses, before)

    def _held(self, node: fx.Node) -> tuple[str, ...]:
        """Names of the targets that a node reads by itself."""
        place = str(node.target)
        if node.op == "get_attr":
            return tuple(target.name for _, target in self._layers if target.path == place)
        if node.op != "call_module":
            return ()
        layer, made, tensor = place.rpartition(".parametrizations.")
        if made:  # the weight of a represented layer, which is not called itself
            return tuple(t.name for name, t in self._layers if name == layer and t.tensor == tensor)
        return tuple(t.name for name, t in self._layers if f"{name}.".startswith(f"{place}."))

    def first(self) -> list[str]:
        """Names of the targets that no other one comes before."""
        return _names(self._values, [node for node, v in self._values.items() if v.uses and not v.before], 0)

    def last(self, graph: fx.Graph) -> list[str]:
        """Names of the targets that no other one comes between and the output."""
        (output,) = (node for node in graph.nodes if node.op == "output")
        reached = self._values[output].before
        inner = frozenset[fx.Node]().union(*(self._values[node].before for node in reached))
        return _names(self._values, reached - inner, -1)


def _names(values: Mapping[fx.Node, _Value], nodes: Any, end: int) -> list[str]:
    return sorted({values[node].uses[end] for node in nodes})
