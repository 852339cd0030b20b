"""The entry-wise state of optimizers, such as momentum, and its reset to what a fresh optimizer has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsity.slots import whole_of

# state that does not start at zero: (optimizer, key) -> name of the group entry that holds the initial value
_NONZERO: dict[tuple[type[Optimizer], str], str] = {
    (torch.optim.Adagrad, "sum"): "initial_accumulator_value",
    (torch.optim.Rprop, "step_size"): "lr",
}

# state that starts as a copy of the weights: schedule-free's iterate, MADGRAD's origin, the slow weights of Lookahead
_COPIES = ("z", "x0", "lookahead_slow_buff")


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside wrappers such as HAM and timm's Lookahead."""
    while isinstance(base := getattr(optimizer, "base", getattr(optimizer, "_base_optimizer", None)), Optimizer):
        optimizer = base
    return optimizer


def _initial(optimizer: Optimizer, parameter: nn.Parameter, key: str) -> float:
    for (cls, name), source in _NONZERO.items():
        if isinstance(optimizer, cls) and key == name:
            return float(group_of(optimizer, parameter).get(source, optimizer.defaults[source]))
    return 0.0


def entrywise_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the state tensors that have the parameter's shape, except `step`, which is a count whatever its shape.

    Of a part of a parameter, the rows that belong to it.
    """
    whole, rows = whole_of(parameter)
    state: dict[str, Any] = optimizer.state.get(whole, {})
    found = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == whole.shape and k != "step"}
    return found if rows is None else {key: tensor[rows] for key, tensor in found.items()}


def group_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the parameter group that holds a parameter, whole or in part."""
    whole = whole_of(parameter)[0]
    return next(group for group in optimizer.param_groups if any(member is whole for member in group["params"]))


@torch.no_grad()
def reset(optimizer: Optimizer, parameter: nn.Parameter, where: Tensor | None = None) -> None:
    """Reset state to its initial value, at the True entries of `where` or everywhere.

    State that starts as a copy of the weights becomes a copy of the present ones.

    Scalar state such as Adam's `step` is kept: it belongs to the tensor, so a regrown entry under Adam takes larger
    first steps than a fresh parameter would.
    """
    base = innermost(optimizer)
    for key, tensor in entrywise_state(base, parameter).items():
        if key in _COPIES:
            tensor.copy_(parameter if where is None else torch.where(where, parameter, tensor))
            continue
        value = _initial(base, parameter, key)
        if where is None:
            tensor.fill_(value)
        else:
            tensor.masked_fill_(where, value)


@torch.no_grad()
def put_momentum(optimizer: Optimizer, parameter: nn.Parameter, value: Tensor, where: Tensor) -> None:
    """Set SGD's momentum at the True entries of `where`; other moments are no decaying sum of gradients and stay."""
    base = innermost(optimizer)
    held = entrywise_state(base, parameter).get("momentum_buffer") if isinstance(base, torch.optim.SGD) else None
    if held is not None and held.shape == where.shape:
        held.copy_(torch.where(where, value.to(held.dtype), held))


def clear(optimizer: Optimizer) -> None:
    """Delete all state, including scalar state such as Adam's `step`, so that the optimizer is a fresh one."""
    innermost(optimizer).state.clear()


def check_supported(optimizer: Optimizer) -> None:
    """Refuse optimizers whose state is not entry-wise.

    Raises:
        ValueError: for L-BFGS, which keeps whole past directions.
    """
    if isinstance(innermost(optimizer), torch.optim.LBFGS):
        raise ValueError(
            "L-BFGS keeps past directions of all weights at once, so pruned weights would leak back; "
            "use another optimizer"
        )
