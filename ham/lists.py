"""Lists of tensors as ``torch._foreach_*`` takes them: batches of one device and type, and scalars to go with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Scalar = float | Tensor  # a number, or a tensor of one element
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
_Row = TypeVar("_Row", bound=tuple)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float32 for bfloat16 and float16, any other type as it is."""
    return WIDER.get(dtype, dtype)


def batches(rows: Iterable[_Row]) -> list[list[_Row]]:
    """Split rows by the device and type of their first tensor, keeping their order."""
    found: dict[tuple[torch.device, torch.dtype], list[_Row]] = defaultdict(list)
    for row in rows:
        found[row[0].device, row[0].dtype].append(row)
    return list(found.values())


def scalar_like(value: Scalar, tensor: Tensor) -> Scalar:
    """Bring a tensor of one element to the device and type of ``tensor``; leave a number as it is."""
    if isinstance(value, Tensor):
        return value.reshape(()).to(tensor.device, tensor.dtype, non_blocking=True)
    return value


def scalars_like(values: Sequence[Scalar], tensors: Sequence[Tensor]) -> Scalar | list[float] | list[Tensor]:
    """Apply `scalar_like` to each pair; return a single value where all values are the same object."""
    if all(value is values[0] for value in values):
        return scalar_like(values[0], tensors[0])
    if not any(isinstance(value, Tensor) for value in values):
        return list(values)  # pyright: ignore[reportReturnType]
    return [tensor_like(value, tensor) for value, tensor in zip(values, tensors, strict=True)]


def tensor_like(value: Scalar, like: Tensor) -> Tensor:
    """Bring a scalar to the device and type of ``like``, as a tensor also where it is a number."""
    value = scalar_like(value, like)
    return value if isinstance(value, Tensor) else like.new_full((), value)


def is_zero(value: Scalar) -> bool:
    """Whether a scalar is the number 0; never true of a tensor, whose value only the device knows."""
    return not isinstance(value, Tensor) and value == 0
