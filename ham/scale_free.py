"""A scale-free alpha: the suite's extension of HAM, not the paper's rule.

The multiplicative step is ``exp(-lr * alpha * sign(w) * g)``, so the effect of alpha depends on the size of the
gradients: an alpha that suits a large network is idle or ruinous in a small one. Here each tensor gets a new alpha at
each step,

    alpha_l = c / (peak * r_l),

where ``peak`` is the largest learning rate and ``r_l`` the running mean of the root mean square of the tensor's
gradient over its active (nonzero) weights. The exponent of a typical weight is then ``c * lr / peak``, whatever the
network, the loss and the peak rate, and the schedule still scales it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .lists import Scalar

DECAY = 0.99  # of the running mean
PEAK = "ham_peak_lr"  # key of a parameter group
MEAN, WEIGHT = "ham_rms", "ham_rms_weight"  # keys of a parameter's state
KEYS = (MEAN, WEIGHT)


def follow_peak(group: MutableMapping[str, Any]) -> Scalar:
    """Raise a group's peak rate, kept under ``ham_peak_lr``, to its largest known rate.

    Its known rates are the present ``lr`` and the entries that torch's and timm's schedulers write when they are built:
    ``initial_lr``, the rate at the end of a warm-up, and ``max_lr``, the top of a cycle.

    Args:
        group: A parameter group; changed.

    Returns:
        The peak: a number, or a tensor if a rate is one, so that the host need not wait for its value.
    """
    peak = group.get(PEAK, 0.0)
    for key in ("lr", "initial_lr", "max_lr"):
        rate = group.get(key)
        if rate is None:
            continue
        if isinstance(rate, Tensor) or isinstance(peak, Tensor):
            like = {"dtype": torch.float32, "device": (rate if isinstance(rate, Tensor) else peak).device}
            peak = torch.maximum(torch.as_tensor(peak, **like), torch.as_tensor(rate, **like))
        else:
            peak = max(peak, rate)
    group[PEAK] = peak
    return peak


@torch.no_grad()
def follow_scale(state: MutableMapping[str, Any], weight: Tensor, grad: Tensor) -> None:
    """Update a tensor's running mean with one more gradient.

    The parameter's state holds two numbers on the device, in float32 (float64 for float64 weights): a sum with decay
    0.99 and the sum of its coefficients, so that their quotient has no bias towards the initial zero. A root mean
    square that is not finite is skipped.

    Args:
        state: The base optimizer's state of the parameter; changed.
        weight: The tensor after the base step. Only its nonzero entries count.
        grad: Its gradient.
    """
    rms = root_mean_square(weight, grad)
    if MEAN not in state:
        state[MEAN], state[WEIGHT] = torch.zeros_like(rms), torch.zeros_like(rms)
    share = rms.isfinite().to(rms.dtype) * (1 - DECAY)
    state[MEAN].lerp_(rms.nan_to_num(0.0, 0.0, 0.0), share)
    state[WEIGHT].lerp_(torch.ones_like(rms), share)


def strength(state: Mapping[str, Any], c: Scalar, peak: Scalar) -> Tensor:
    """Return the alpha of a tensor, c / (peak * running mean).

    Args:
        state: The base optimizer's state of the parameter, after `follow_scale`.
        c: The exponent, at the peak rate, of an entry whose gradient has the typical size in its tensor.
        peak: The largest learning rate.

    Returns:
        A tensor of one element; 0 if all gradients so far were zero, or if the peak is zero.
    """
    mean = state[MEAN] / state[WEIGHT]
    scale = mean * (peak.to(mean.device, mean.dtype) if isinstance(peak, Tensor) else peak)
    return torch.where(scale > 0, (c.to(mean.device, mean.dtype) if isinstance(c, Tensor) else c) / scale, 0.0)


def root_mean_square(weight: Tensor, grad: Tensor) -> Tensor:
    """Return the root mean square of a gradient over the nonzero weights, 0 if there are none, as one element."""
    active = weight != 0
    norm = torch.linalg.vector_norm(
        torch.where(active, grad, 0.0), dtype=torch.promote_types(grad.dtype, torch.float32)
    )
    return norm / active.sum().clamp_min(1).to(norm.dtype).sqrt()


def restore(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Load the running means of a checkpoint in their own type; torch casts all state to the type of its parameter."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    for param, number in zip(params, numbers, strict=True):
        saved = state_dict["state"].get(number, {})
        for key in KEYS:
            if key in saved:
                optimizer.state[param][key] = saved[key].to(param.device, copy=True)
