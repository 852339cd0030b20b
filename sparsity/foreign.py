"""Layers whose forward pass multiplies by another tensor than the weight they hold, so that a mask would miss it.

Such are weight and spectral normalisation, `torch.nn.utils.prune` and standardised convolutions. A report of their
masks would not describe what the network computes, so they are refused by name.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

log = logging.getLogger(__name__)

# the functions that multiply by a weight
_PRODUCTS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS |= {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "__matmul__", "__rmatmul__"}


def refuse_foreign(layers: Iterable[tuple[str, nn.Module, str]]) -> None:
    """Refuse layers whose product is not taken with the parameter that a mask would act on.

    Args:
        layers: Name of the weight, its layer, and the parameter's name in the layer.

    Raises:
        ValueError: naming the first such layer and the way out.
    """
    untried: set[type] = set()
    for name, module, tensor in layers:
        if parametrize.is_parametrized(module, tensor):
            made_by = [part for part in module.parametrizations[tensor] if not hasattr(part, "representation")]  # pyright: ignore
            if made_by:
                raise ValueError(
                    f"{name} is made by the parametrization {type(made_by[0]).__name__}, so masks would not act on "
                    "what the layer multiplies by: remove it with torch.nn.utils.parametrize.remove_parametrizations"
                )
        elif tensor not in module._parameters:
            held = ", ".join(module._parameters)
            raise ValueError(
                f"{name} is computed from {held} before each forward pass (weight_norm, spectral_norm or "
                "torch.nn.utils.prune), so masks would not act on what the layer multiplies by: remove it with "
                "torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove"
            )
        elif tensor == "weight" and not _is_torchs(module):
            keeps = _keeps_zeros(module)
            if keeps is None and type(module) not in untried:
                untried.add(type(module))
                log.warning(
                    "%s: the forward pass of %s could not be tried alone, so nobody knows whether it multiplies by "
                    "its weight as masked; look at it",
                    *(name, type(module).__name__),
                )
            if keeps is False:
                raise ValueError(
                    f"{name}: the forward pass of {type(module).__name__} multiplies by another tensor, which is not "
                    "zero where the weight is (standardised, normalised, decomposed?), so its masks would mean "
                    "nothing: use a plain layer"
                )


def _is_torchs(module: nn.Module) -> bool:
    """Whether a layer has torch's own forward pass, which multiplies by the weight as it is."""
    if "forward" in module.__dict__:
        return False
    defined = next(cls for cls in type(module).__mro__ if "forward" in vars(cls) or "_conv_forward" in vars(cls))
    return defined.__module__.startswith("torch.nn.modules.")


@torch.no_grad()
def _keeps_zeros(module: nn.Module) -> bool | None:
    """Try a copy of a layer: is what it multiplies by zero wherever its weight is? None if that cannot be found."""
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            tried = [_tried(module, training=training) for training in (False, True)]
    except Exception:  # whatever a layer raises that needs other arguments
        return None
    return None if None in tried else all(tried)


def _tried(module: nn.Module, *, training: bool) -> bool | None:
    layer = copy.deepcopy(module).to_empty(device="cpu").train(training)
    generator = torch.Generator().manual_seed(0)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        else:
            tensor.zero_()
    weight: Tensor = layer.weight  # pyright: ignore
    pruned = (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)
    weight.masked_fill_(pruned, 0.0)
    with _Products(weight.shape) as seen:
        layer(_some_input(layer).to(weight.dtype))
    if not seen.operands:
        return None
    return all(any(not bool(way[pruned].any()) for way in operand) for operand in seen.operands)


def _some_input(layer: nn.Module) -> Tensor:
    if isinstance(layer, _ConvNd):
        extents = [(k - 1) * d + 3 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return torch.ones((1, layer.in_channels, *extents))
    return torch.ones((1, layer.in_features))  # pyright: ignore[reportCallIssue, reportArgumentType]


class _Products(TorchFunctionMode):
    """Collects, while it is entered, the operands of products that have a weight's shape."""

    def __init__(self, shape: torch.Size):
        super().__init__()
        self._shape = shape
        self.operands: list[list[Tensor]] = []  # each as it is and transposed, where that fits

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in _PRODUCTS:
            for operand in (*args, *(kwargs or {}).values()):
                if isinstance(operand, Tensor):
                    ways = [operand] if operand.ndim < 2 else [operand, operand.mT]
                    fitting = [way.detach().clone() for way in ways if way.shape == self._shape]
                    if fitting:
                        self.operands.append(fitting)
        return func(*args, **(kwargs or {}))
