"""The compiled form of HAM's step: one kernel for tensors of any size, made by `torch.compile`.

The kernel reads weight and gradient once and writes the weight once, where the other forms stream every intermediate
tensor through memory. On a CPU three things make it fast: ``copysign(1, w)`` in place of ``sign(w)``, whose two
comparisons stall the loads (a zero weight stays zero with either); a polynomial in place of ``expm1``, which is not
vectorised well enough; and fused multiply-adds. float64 and accelerators keep torch's ``expm1``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .lists import WIDER, working_dtype

_log = logging.getLogger(__name__)

EXPONENT_LIMIT = 5.0  # of the published listing: a step multiplies a weight by e^-5 to e^5
TYPES = (torch.float32, torch.float64, *WIDER)
# large enough that the kernel is compiled for all threads
_TRIAL_SIZE = 2**20
_OPTIONS: dict[str, str | int | bool | Callable] = {
    "cpp.enable_floating_point_contract_flag": "fast",
    "realize_opcount_threshold": 1,  # else the sum of squares would recompute everything in a second pass
}

# from (weight, grad, sign or None, rate, decay) to the sum of the weight's squares, or None if it is not asked for;
# the first three arguments have one dimension and one type, the last two are scalar tensors
Kernel = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor], Tensor | None]


class CannotCompile(RuntimeError):
    """The compiled form is not available on this machine."""


@cache
def kernel(
    device: torch.device, dtype: torch.dtype, *, signed: bool, summed: bool, threads: int, nan_guard: bool
) -> Kernel | CannotCompile:
    """Compile the step, once per process, and try it.

    Args:
        device: Device of the tensors.
        dtype: Type of weight, gradient and sign, one of `TYPES`.
        signed: Whether signs are given.
        summed: Whether the sum of squares is returned.
        threads: Compute threads of the process, for which a CPU kernel is made.
        nan_guard: See `ham.hyperbolic_step_`.

    Returns:
        The kernel, or the reason why there is none.
    """

    def step(weight: Tensor, grad: Tensor, sign: Tensor | None, rate: Tensor, decay: Tensor) -> Tensor | None:
        wide = weight.to(working)
        direction = torch.copysign(torch.ones_like(wide), wide) if sign is None else sign.to(working)
        exponent = (direction * grad.to(working) * rate + decay).clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT)
        factor = _expm1(exponent) if polynomial else torch.expm1(exponent)
        moved = wide + wide * factor
        if nan_guard:
            moved = torch.where(factor == factor, moved, wide)
        weight.copy_(moved)
        return (moved * moved).sum() if summed else None

    working = working_dtype(dtype)
    polynomial = device.type == "cpu" and working is torch.float32
    trial = [torch.zeros(_TRIAL_SIZE, dtype=dtype, device=device) for _ in range(3)]
    # two tensors: given one tensor twice, torch would compile a kernel for that special case
    scalars = [torch.zeros((), dtype=working, device=device) for _ in range(2)]
    try:
        # not fullgraph: if torch stops recompiling, it runs the function itself, as correct and slower
        compiled = torch.compile(step, dynamic=True, options=_OPTIONS)
        with torch._dynamo.config.patch(recompile_limit=64):  # pyright: ignore[reportPrivateImportUsage]
            compiled(trial[0], trial[1], trial[2] if signed else None, *scalars)
    except Exception as error:  # anything that a compiler, its cache or its linker can fail with
        return CannotCompile(_reason(device, error))
    return compiled


def flat(weight: Tensor, grad: Tensor, sign: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """View a weight as one dimension in the order of its memory, and bring gradient and sign into the same order.

    Args:
        weight: Any tensor.
        grad: Gradient of the same shape.
        sign: Signs of the same shape, or None.

    Returns:
        Tensors that share memory with the given ones, or copies if gradient or sign lie in another order. None if the
        kernel cannot take the weight: it has gaps or overlaps in memory, fewer than two elements, is a tensor
        subclass, or the types differ.
    """
    weight = weight.detach()  # makes a parameter a plain tensor, but not a tensor subclass
    others = [grad] if sign is None else [grad, sign]
    plain = all(type(tensor) is Tensor and tensor.dtype is weight.dtype for tensor in (weight, *others))
    if not plain or weight.numel() < 2:
        return None
    if not weight.is_contiguous():  # such as channels last, or transposed
        order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
        weight, *others = (tensor.permute(order) for tensor in (weight, *others))
        if not weight.is_contiguous():
            return None
    # .data hides what a view is a view of: after `torch._dynamo.reset` torch would compile a kernel for each such shape
    lines = [tensor.contiguous().view(-1).data for tensor in (weight, *others)]
    return lines[0], lines[1], None if sign is None else lines[2]


@cache
def warn(problem: str) -> None:
    """Log once per process why the step cannot be compiled."""
    _log.warning("%s; HAM goes on in its single form, slower and equal up to rounding", problem)


def _expm1(exponent: Tensor) -> Tensor:
    """Compute exp(e) - 1 for |e| <= 5: Taylor's polynomial of degree 7 at e / 8, doubled three times.

    A doubling is expm1(2x) = expm1(x) * (expm1(x) + 2). In float32 the relative error of w * exp(e) is below 4e-7 for
    |e| <= 1, as with the exact function, and below 3e-5 for all |e| <= 5, against 2e-5 with the exact function.
    """
    eighth = exponent * 0.125
    factor = eighth * (1 / 5040) + 1 / 720
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        factor = factor * eighth + coefficient
    factor = factor * eighth
    for _ in range(3):
        factor = factor * (factor + 2)
    return factor


def _reason(device: torch.device, error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "no message")
    tools = "a C++ compiler (g++, clang++ or $CXX)" if device.type == "cpu" else "Triton"
    return (
        f"form: HAM's step cannot be compiled for {device}, where torch.compile needs {tools}: "
        f"{type(error).__name__}: {first:.200}"
    )
