"""What HAM needs to know about its base optimizer and about the parameters it multiplies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer


def rate_of(group: Mapping[str, Any]) -> Any:
    """Return the rate of the step just taken; schedule-free bases keep it, warm-up included, in ``scheduled_lr``."""
    return group.get("scheduled_lr", group["lr"])


def overwrites_gradients(base: Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether a base step may write into ``.grad``, so that HAM needs a copy of it.

    Of torch's own optimizers only SGD does, and only in its foreach form with Nesterov momentum and no weight decay.
    Optimizers of other packages may do so too, and a write need not change the tensor's version counter
    (``p.grad.data.add_``): their gradients are always copied.
    """
    if not type(base).__module__.startswith("torch.optim."):
        return True
    if type(base) is not SGD or not group["nesterov"]:
        return False
    decay, foreach = group["weight_decay"], group["foreach"]
    if not isinstance(decay, Tensor) and decay != 0:
        return False
    # with foreach=None, SGD chooses the foreach form on accelerators only
    return any(param.device.type != "cpu" for param in group["params"]) if foreach is None else bool(foreach)


def check_tensor(param: Tensor, where: str) -> None:
    """Raise an error if HAM cannot multiply a parameter, which ``where`` names."""
    if param.is_complex():
        raise TypeError(f'{where} is complex; HAM needs real weights (switch it off for the group with "ham": False)')
    if param.grad is not None and param.grad.layout != torch.strided:
        raise RuntimeError(f'{where} has a sparse gradient; HAM needs dense ones (or "ham": False for the group)')


def check_number(name: str, value: object) -> None:
    """Raise an error if an option is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: {value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not finite")
