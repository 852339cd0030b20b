"""Which parameters can be pruned, and over which weights sparsity is counted.

One definition for masks, representations, FLOPs and tables: the weight of every convolution and every linear layer and
the projections of `nn.MultiheadAttention`, first and last layer included. Biases and normalisation parameters are never
pruned and never counted, nor is a frozen weight. For ResNet-50 that is 53 convolutions and the classifier, 25,502,912
weights. `uncounted` lists the matrices that are left, such as embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from .foreign import refuse_foreign

COUNTED_OVER = "all convolution and linear weights, first and last layer included; biases and normalisation excluded"


@dataclass(frozen=True)
class Target:
    """One prunable matrix: a parameter, or some rows of one.

    Attributes:
        name: Dotted name in the unwrapped model, e.g. ``"layer1.0.conv1.weight"``; for a part of a packed projection
            with the part added, e.g. ``"attention.in_proj_weight.q"``.
        module: The layer that owns it.
        tensor: Name of the parameter in that layer.
        rows: Which rows of the parameter it is, or None for all.
    """

    name: str
    module: nn.Module
    tensor: str = "weight"
    rows: slice | None = None

    @property
    def path(self) -> str:
        """Dotted name of the parameter that holds the matrix."""
        return self.name if self.rows is None else self.name.rpartition(".")[0]

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that holds the matrix."""
        return getattr(self.module, self.tensor)

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:
        """The matrix, detached; it shares its memory with a plain parameter."""
        return self.part(self.parameter.detach())

    def part(self, whole: Tensor) -> Tensor:
        """Return the rows that belong to this matrix of a tensor that has the parameter's shape."""
        return whole if self.rows is None else whole[self.rows]


def plain_name(name: str) -> str:
    """Remove from a parameter's or module's name what `torch.compile` adds to it."""
    return ".".join(part for part in name.split(".") if part not in ("", "_orig_mod"))


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
        model: Any network, also wrapped or represented.

    Raises:
        ValueError: if a layer shares a parameter with another module (a mask could not belong to one of them
            alone), if another library makes a layer's weight of other tensors, or if there is nothing to prune.
    """
    model = unwrapped(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{plain_name(name)} has no shape yet: run one batch through the network first (lazy layers)"
            )
    owners: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(plain_name(f"{module_name}.{own_name}"))
    found: list[Target] = []
    layers = 0
    for target in _candidates(model):
        layers += 1
        if _is_frozen(target):
            continue
        for parameter in target.module.parameters():
            if len(owners[id(parameter)]) > 1:
                names = " and ".join(owners[id(parameter)])
                raise ValueError(f"{names} share a parameter: tied weights cannot be pruned apart; untie them")
        found.append(target)
    if not found:
        frozen = " that is not frozen" if layers else ""
        raise ValueError(f"the model has no convolution and no linear layer{frozen}, so nothing can be pruned")
    refuse_foreign((target.name, target.module, target.tensor) for target in found)
    return found


def uncounted(model: nn.Module, found: Sequence[Target]) -> dict[str, int]:
    """List the matrices that are neither pruned nor counted: embeddings, position tables, frozen weights and the like.

    Call it with a plain network. A tensor with one extent above 1, such as a layer scale, is no matrix.

    Args:
        model: The network.
        found: Its targets.

    Returns:
        Number of entries by name, in the order of the parameters; frozen ones have ``" (frozen)"`` after their name.
    """
    counted = {id(target.parameter) for target in found}
    left = {}
    for name, parameter in unwrapped(model).named_parameters():
        if id(parameter) not in counted and sum(extent > 1 for extent in parameter.shape) >= 2:
            left[plain_name(name) + ("" if parameter.requires_grad else " (frozen)")] = parameter.numel()
    return left


def _candidates(model: nn.Module) -> Iterator[Target]:
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            yield from _projections(plain_name(prefix + "in_proj_weight")[: -len("in_proj_weight")], module)
        elif isinstance(module, (_ConvNd, nn.Linear)):
            yield Target(plain_name(f"{prefix}weight"), module)


def _projections(prefix: str, attention: nn.MultiheadAttention) -> Iterator[Target]:
    """Yield the projections of queries, keys and values; that of the output is a linear layer of its own."""
    parts = ("q", "k", "v")
    if attention._qkv_same_embed_dim:
        size = attention.embed_dim
        for index, part in enumerate(parts):
            rows = slice(index * size, (index + 1) * size)
            yield Target(f"{prefix}in_proj_weight.{part}", attention, "in_proj_weight", rows)
    else:
        for part in parts:
            yield Target(f"{prefix}{part}_proj_weight", attention, f"{part}_proj_weight")


def _is_frozen(target: Target) -> bool:
    if parametrize.is_parametrized(target.module, target.tensor):
        held = target.module.parametrizations[target.tensor]  # pyright: ignore
        return not any(parameter.requires_grad for parameter in held.parameters())  # pyright: ignore
    held = target.module._parameters.get(target.tensor)
    return held is not None and not held.requires_grad
