"""FLOPs of sparse networks: multiply-adds of the prunable layers, scaled by their densities.

Conventions of the RigL paper (appendix): a training step costs one forward and two backward passes, 3 f; a step that
also needs the dense weight gradient costs 2 f_sparse + f_dense, and a second pass over the batch (SAM) 3 f more;
everything but convolutions and linear layers is neglected. Masks only simulate sparsity: these are the operations a
sparse implementation would need, not measured time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsity.state import Stateful
from sparsity.targets import targets


@torch.no_grad()
def layer_macs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count the multiply-adds of each prunable layer for one input.

    Args:
        model: The network; it is run once in evaluation mode and left as it was.
        input_shape: Shape of one input without the batch dimension, e.g. ``(3, 224, 224)``.

    Returns:
        Multiply-adds by weight name; a layer that the input does not reach has 0.
    """
    found = targets(model)
    macs = dict.fromkeys((target.name for target in found), 0)
    handles = []
    for target in found:

        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = target.name) -> None:
            # one multiply-add per output entry and weight of its channel; per input entry if transposed
            entries = inputs[0] if getattr(module, "transposed", False) else output
            macs[name] += entries[0].numel() * math.prod(module.weight.shape[1:])  # pyright: ignore

        handles.append(target.module.register_forward_hook(count))
    modes = {module: module.training for module in model.modules()}
    first = next(model.parameters())
    try:
        model.eval()
        model(torch.zeros((1, *input_shape), device=first.device, dtype=first.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return macs


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
