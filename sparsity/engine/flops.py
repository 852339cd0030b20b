"""FLOPs of sparse networks: multiply-adds of the prunable layers, scaled by their densities.

Conventions of the RigL paper (appendix): a training step costs one forward and two backward passes, 3 f; a step that
also needs the dense weight gradient costs 2 f_sparse + f_dense, and a second pass over the batch (SAM) 3 f more;
everything but convolutions and linear layers is neglected. Masks only simulate sparsity: these are the operations a
sparse implementation would need, not measured time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsity.options import Infeasible
from sparsity.representation import of
from sparsity.state import Stateful
from sparsity.targets import Target, targets, unwrapped

_aten = torch.ops.aten
# product -> positions of its two operands
_PRODUCTS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
}
# entry-wise operations whose result is zero where their first operand is, as in the head of a cosine classifier
_KEEP_ZEROS = {
    _aten.div.Tensor,
    _aten.div.Scalar,
    _aten.mul.Tensor,
    _aten.mul.Scalar,
    _aten.neg.default,
    _aten.clone.default,
    _aten._to_copy.default,
}


@torch.no_grad()
def layer_macs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count the multiply-adds of each prunable layer for one input.

    What counts are the products that the forward pass takes with a layer's weight, whoever calls them: attention reads
    the weights of its projections without calling the layers.

    Args:
        model: The network; it is run once in evaluation mode and left as it was.
        input_shape: Shape of one input without the batch dimension, e.g. ``(3, 224, 224)``.

    Returns:
        Multiply-adds by weight name.

    Raises:
        Infeasible: if the forward pass does not multiply by a prunable weight, which a mask would then not act on.
    """
    held = of(model)
    model = unwrapped(model) if held is None else held.plain_copy()
    first = next(model.parameters())
    counted = _Macs(targets(model))
    with _evaluated(model), counted:
        model(torch.zeros((1, *input_shape), device=first.device, dtype=first.dtype))
    unused = [name for name, number in counted.macs.items() if number == 0]
    if unused:
        raise Infeasible(
            f"the forward pass does not multiply by {', '.join(unused[:3])}{' …' if len(unused) > 3 else ''}, so "
            "pruning it would mean nothing: remove the layer, or freeze its weight (requires_grad = False)"
        )
    return counted.macs


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode, without the fused attention in which single products cannot be seen."""
    modes = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode


class _Macs(TorchDispatchMode):
    """Counts, while it is entered, the multiply-adds with each target, which it knows by the memory of its weight."""

    def __init__(self, found: list[Target]):
        super().__init__()
        self.macs = dict.fromkeys((target.name for target in found), 0)
        # memory -> name, first entry and number of entries of each target in it
        self._by_memory: dict[int, list[tuple[str, int, int]]] = {}
        self._derived: list[Tensor] = []  # kept, so that no other tensor gets their memory
        for target in found:
            place = target.name, int(target.weight.storage_offset()), target.weight.numel()
            self._by_memory.setdefault(_memory(target.parameter), []).append(place)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is _aten.convolution.default:
            inputs, weight, transposed = args[0], args[1], args[6]
            # one multiply-add per output entry and weight of its channel; per input entry if transposed
            entries = inputs if transposed else output
            self._add(weight, entries.numel() * weight[0].numel())
        elif func in _PRODUCTS:
            left, right = (args[position] for position in _PRODUCTS[func])
            for operand in (left, right):
                self._add(operand, output.numel() * left.shape[-1])
        elif func in _KEEP_ZEROS:
            self._follow(
                [arg for arg in args if isinstance(arg, Tensor)][: 2 if func is _aten.mul.Tensor else 1], output
            )
        return output

    def _follow(self, operands: list[Tensor], output: Tensor) -> None:
        """Take a tensor for a weight from which it was computed, if it is zero where that is."""
        for operand in operands:
            places = self._by_memory.get(_memory(operand), [])
            whole = sum(size for _, _, size in places)
            if places and operand.numel() == whole and output.shape == operand.shape:
                self._by_memory[_memory(output)] = places
                self._derived.append(output)

    def _add(self, operand: Tensor, macs: int) -> None:
        """Give the targets in an operand's memory their share of the multiply-adds of one product."""
        begin = int(operand.storage_offset())
        # an operand that is expanded over a batch has its entries in memory once
        extent = math.prod(n for n, stride in zip(operand.shape, operand.stride(), strict=True) if stride)
        for target, first, size in self._by_memory.get(_memory(operand), ()):
            common = min(begin + extent, first + size) - max(begin, first)
            if common > 0:
                self.macs[target] += macs * common // extent


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # the same for all views of a tensor, on the meta device too


def inference_fraction(macs: Mapping[str, int], densities: Mapping[str, float]) -> float:
    """Return the multiply-adds of the sparse network as a fraction of those of the dense one."""
    return sum(macs[name] * densities[name] for name in macs) / sum(macs.values())


class TrainingCost(Stateful):
    """The sum of each layer's density over the steps of training, from which training FLOPs follow.

    Args:
        names: Names of the prunable weights.
    """

    state = ("_sum", "_dense_grad", "_since", "_pending_dense", "_pending_passes")

    def __init__(self, names: list[str]):
        self._sum = dict.fromkeys(names, 0.0)
        self._dense_grad = dict.fromkeys(names, 0.0)
        self._since = 0
        self._pending_dense = 0
        self._pending_passes = 0

    def count_step(self, dense_gradient: bool, passes: int = 1) -> None:
        """Count a step: whether it needs the dense weight gradient, and its passes over the batch."""
        self._pending_dense += dense_gradient
        self._pending_passes += passes - 1

    def advance(self, step: int, densities: Mapping[str, float]) -> None:
        """Add the steps since the last call at the given densities; call it before they change."""
        for name, density in densities.items():
            self._sum[name] += density * (step - self._since + self._pending_passes)
            self._dense_grad[name] += (1 - density) * self._pending_dense
        self._since = step
        self._pending_dense = self._pending_passes = 0

    def fraction(self, macs: Mapping[str, int]) -> float:
        """Return training FLOPs so far as a fraction of dense training for as many steps; 1 before the first step.

        A step of dense training is one pass over the batch.
        """
        if self._since == 0:
            return 1.0
        spent = sum(macs[name] * (3 * self._sum[name] + self._dense_grad[name]) for name in macs)
        return spent / (3 * self._since * sum(macs.values()))
