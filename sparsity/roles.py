"""Which layer of a network is its first and which its last: by the flow of data, not by the order of registration."""

from __future__ import annotations

import copy
import inspect
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from .targets import Target, plain_name

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


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
        graph = _traced(model)
    except Exception as error:  # whatever a forward pass raises when its input has no values
        raise UnclearRole(
            f"which layer is {role} cannot be told, since the forward pass cannot be followed without data "
            f"({type(error).__name__})"
        ) from None
    flow = _Flow(model, found, graph)
    names = flow.first() if role == "first" else flow.last(graph)
    if len(names) != 1:
        several = f"{', '.join(names)} are all {role}" if names else "data reach none of the layers"
        raise UnclearRole(f"which layer is {role} cannot be told: {several}")
    return names[0]


def refuse_filled(model: nn.Module, found: Sequence[Target]) -> None:
    """Refuse a forward pass that multiplies by a changed copy of a weight in which pruned entries are not zero.

    What it computes from a weight alone is tried with numbers. A forward pass that cannot be traced is let through.

    Args:
        model: The network.
        found: Its targets.

    Raises:
        ValueError: naming the first such weight.
    """
    try:
        graph = _traced(model)
    except Exception:  # as above
        return
    filled = _Flow(model, found, graph).filled()
    if filled:
        raise ValueError(
            f"{filled[0]}: the forward pass reads it and multiplies by a tensor computed from it, which is not zero "
            "where the weight is (standardised, added to?), so its masks would mean nothing: multiply by the weight, "
            "or freeze it (requires_grad = False)"
        )


def _traced(model: nn.Module) -> fx.Graph:
    """Trace a copy; neither the random streams of the process nor anybody's hooks notice."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            network = _empty_copy(model)
            return _Tracer().trace(network, _defaults(network))
    finally:
        random.setstate(state)


def _empty_copy(model: nn.Module) -> nn.Module:
    """Copy a network without its data, without what `torch.compile` wraps around its parts, in evaluation mode."""
    empty: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else tensor.detach().to("meta")
        for tensor in (*model.parameters(), *model.buffers())
    }
    for module in model.modules():
        empty |= {id(getattr(module, hooks)): OrderedDict() for hooks in _HOOKS}
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

    def __init__(self, model: nn.Module, found: Sequence[Target], graph: fx.Graph):
        modules = {id(module): plain_name(name) for name, module in model.named_modules()}
        self._layers = [(modules[id(target.module)], target) for target in found]
        self._values: dict[fx.Node, _Value] = {}
        for node in graph.nodes:
            self._add(node)

    def _add(self, node: fx.Node) -> None:
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

    def filled(self) -> list[str]:
        """Names of the targets whose zeros are filled before data are multiplied by them."""
        shapes = {target.name: target.weight.shape for _, target in self._layers}
        tried: dict[fx.Node, Any] = {}
        found: list[str] = []
        for node, value in self._values.items():
            held = self._held(node)
            if value.data:
                made = [parent for parent in node.all_input_nodes if not self._values[parent].data and parent in tried]
                for parent in made:
                    names, result = self._values[parent].weights, tried[parent]
                    whole = len(set(names)) == 1 and isinstance(result, Tensor)
                    if whole and result.numel() == shapes[names[0]].numel():
                        nonzero = int(_sample(shapes[names[0]]).count_nonzero())
                        found += [names[0]] if int(result.count_nonzero()) > nonzero else []
            elif len(held) == 1 and held == value.weights:
                tried[node] = _sample(shapes[held[0]])
            elif node.op in ("call_function", "call_method") and all(p in tried for p in node.all_input_nodes):
                with suppress(Exception):  # whatever an operation raises; what is made of it is not known then
                    tried[node] = _computed(node, tried)
        return found


@torch.no_grad()
def _computed(node: fx.Node, tried: Mapping[fx.Node, Any]) -> Any:
    """Compute the value of a node from those of its inputs."""
    args = fx.map_arg(node.args, lambda parent: tried[parent])
    kwargs = fx.map_arg(node.kwargs, lambda parent: tried[parent])
    with torch.random.fork_rng(devices=[]):
        if isinstance(node.target, str):
            return getattr(args[0], node.target)(*args[1:], **kwargs)  # pyright: ignore
        return node.target(*args, **kwargs)  # pyright: ignore


def _sample(shape: torch.Size) -> Tensor:
    """A weight whose every second entry is zero."""
    entries = torch.arange(1.0, shape.numel() + 1)
    return torch.where(entries % 2 == 0, 0.0, entries / shape.numel()).view(shape)


def _names(values: Mapping[fx.Node, _Value], nodes: Any, end: int) -> list[str]:
    return sorted({values[node].uses[end] for node in nodes})
