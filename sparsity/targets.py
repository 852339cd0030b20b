"""Which parameters can be pruned, and over which weights sparsity is counted.

One definition for masks, representations, FLOPs and tables: the `weight` of every convolution and every linear layer,
first and last included. Biases and normalisation parameters are never pruned and never counted. For ResNet-50 that is
53 convolutions and the classifier, 25,502,912 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

COUNTED_OVER = "all convolution and linear weights, first and last layer included; biases and normalisation excluded"


@dataclass(frozen=True)
class Target:
    """One prunable tensor.

    Attributes:
        name: Dotted name in the unwrapped model, e.g. ``"layer1.0.conv1.weight"``.
        module: The layer that owns it.
    """

    name: str
    module: nn.Module


def plain_name(name: str) -> str:
    """Remove from a parameter's or module's name what `DistributedDataParallel` and `torch.compile` add to it."""
    parts = [part for part in name.split(".") if part not in ("", "_orig_mod")]
    if parts and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside `DistributedDataParallel`, `DataParallel` and `torch.compile`."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif "_orig_mod" in dict(model.named_children()):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def targets(model: nn.Module) -> list[Target]:
    """List the prunable weights in the order of `model.named_modules()`.

    Args:
        model: Any network, also wrapped or with parametrised weights.

    Raises:
        ValueError: if a layer shares a parameter with another module (a mask could not belong to one of them
            alone), or if there is nothing to prune.
    """
    found: list[Target] = []
    owners: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(plain_name(f"{module_name}.{own_name}"))
    for module_name, module in model.named_modules():
        if not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        found.append(Target(plain_name(f"{module_name}.weight" if module_name else "weight"), module))
        for parameter in module.parameters():
            if len(owners[id(parameter)]) > 1:
                names = " and ".join(owners[id(parameter)])
                raise ValueError(f"{names} share a parameter: tied weights cannot be pruned apart; untie them")
    if not found:
        raise ValueError("the model has no convolution and no linear layer, so nothing can be pruned")
    return found
