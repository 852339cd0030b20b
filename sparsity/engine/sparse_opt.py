"""SparseOpt: scale the gradients of sparse neurons to undo what normalisation does to them.

Adnan et al., "SparseOpt: Addressing Normalization-induced Gradient Skew in Sparse Training" (ICML 2026, arXiv
2605.27541): normalisation after a layer amplifies the gradient of a neuron of sparsity s_i by 1/√(1 − s_i), so the
gradient of its incoming weights is multiplied by √(1 − s_i) / √(1 − s_avg). Whether s_avg is the mean over the neurons
of the layer or over the network is not stated in anything reachable (a summary of the paper says layer): both are
here, *unverified*.

The scale acts on dL/dθ before penalties, masking and clipping, so the optimizer, HAM and SAM receive scaled gradients,
while the topology reads unscaled ones; weight decay belongs to the optimizer and is not scaled. A factor of a product
has the gradient ∂θ/∂factor · dL/dθ, so scaling the factors' gradients of a neuron alike scales its dL/dθ by just that
number. The sparsity is that of the masks: zeros that a representation makes without a mask (STR) do not count.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sparsity.masks import MaskSet

AVERAGES = ("layer", "network")


def neuron_density(mask: Tensor, module: nn.Module) -> Tensor:
    """Return the fraction of active weights among those into each output neuron, shaped to multiply the weight.

    Args:
        mask: Mask of the layer's weight, ``(out, in, ...)``; of a transposed convolution ``(in, out / groups, ...)``.
        module: The layer.
    """
    active = mask.float()
    if not getattr(module, "transposed", False):
        return active.mean(dim=tuple(range(1, mask.ndim)), keepdim=True)
    groups = int(module.groups)  # pyright: ignore[reportArgumentType]
    by_group = active.view(groups, -1, *mask.shape[1:])
    mean = by_group.mean(dim=(1, *range(3, by_group.ndim)), keepdim=True)
    # all input channels of a group lead to the same output neurons
    rows = mean.expand(-1, by_group.shape[1], *mean.shape[2:])
    return rows.reshape(mask.shape[0], *mean.shape[2:])


def scales(masks: MaskSet, modules: Mapping[str, nn.Module], average: str) -> dict[str, Tensor]:
    """Compute √(1 − s_i) / √(1 − s_avg) for the layers in which it is not 1 everywhere.

    Args:
        masks: Present masks.
        modules: The layer of each mask.
        average: ``"layer"``: s_avg is the sparsity of the neuron's layer; ``"network"``: that of all layers.

    Returns:
        Factors by weight name, shaped to multiply the weight. A layer without active weights has none.
    """
    densities, overall = masks.densities(), masks.density
    found = {}
    for name, mask in masks.items():
        reference = densities[name] if average == "layer" else overall
        if densities[name] > 0 and (average == "network" or densities[name] < 1):
            found[name] = (neuron_density(mask, modules[name]) / reference).sqrt()
    return found
