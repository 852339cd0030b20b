"""The multiplicative step of HAM and its bound on weight norms, as functions over lists of tensors.

Source: Jacobs, Gadhikar, Rubio-Madrigal, Burkholz, "Hyperbolic Aware Minimization: Implicit
Bias for Sparsity", ICLR 2026
(arXiv 2506.02630).
For each weight ``w`` with gradient ``g``, learning rate ``lr`` and the constants ``alpha`` and ``beta``::

    e = clamp(lr * (-alpha * sign(w) * g - beta), -5, 5)
    w <- w + w * expm1(e)

which is the paper's ``w <- w * exp(e)`` without its drift: for the small exponents of a typical step ``exp(e)`` is
rounded near one, and in float32 a thousand pure decay steps (e = -1e-4) end 2e-5 off, against 1e-6 in this form. The
step changes no sign and leaves an exact zero where it is, so a sparse network stays sparse without HAM being told its
mask.

Two forms compute the same numbers: one tensor at a time, and ``torch._foreach_*`` over a list. Neither waits for the
device. float32 and float64 are computed as they are; bfloat16 and float16 in float32, rounded once, when the weight
is stored.
"""

# pyright: reportPrivateImportUsage=false
# torch does not list its foreach kernels as exported; its own optimizers and many others use them
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Scalar = float | Tensor

_EXPONENT_LIMIT = 5.0  # of the published listing: a step multiplies a weight by e^-5 to e^5
_WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
# on a CPU the foreach kernels loop over the tensors and stream all temporaries through memory: up to twice as slow
_FOREACH_DEVICES = ("cuda", "xpu")


@torch.no_grad()
def hyperbolic_step_(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    lr: Scalar,
    alpha: Scalar,
    beta: Scalar,
    signs: Sequence[Tensor] | None = None,
    foreach: bool | None = None,
) -> None:
    """Multiply weights, in place, by ``exp(clamp(lr * (-alpha * sign * grad - beta), -5, 5))``.

    An entry whose exponent is not a number (a gradient that is, or an infinite one at a zero weight) is left as it
    is, so HAM never turns a finite weight into NaN. The published listing leaves out the whole tensor then, after a
    test that waits for the device.

    Args:
        weights: Real tensors of any shapes; changed in place.
        grads: Gradient for each weight, of the same shape.
        lr: Learning rate, a number or a tensor of one element.
        alpha: Strength of the sign-aware part, any finite number; the same types. 1 / alpha is a weight's magnitude.
        beta: Strength of the decay, at least 0; the same types.
        signs: Sign of each weight (-1, 0 or 1) where it is not the present one (the variant HYP takes it before the
            base step).
        foreach: Use the foreach form; None means where it is faster, on accelerators.
    """
    if not isinstance(alpha, Tensor) and not isinstance(beta, Tensor) and alpha == 0 and beta == 0:
        return  # exactly the base optimizer, also at infinite weights
    if foreach is None:
        foreach = all(weight.device.type in _FOREACH_DEVICES for weight in weights)
    rate, decay = -(lr * alpha), -(lr * beta)
    rows = zip(weights, grads, [None] * len(weights) if signs is None else signs, strict=True)
    if not foreach:
        for weight, grad, sign in rows:
            _step_tensor(weight, grad, rate, decay, sign)
        return
    for batch in _batches(rows):
        _step_list(*map(list, zip(*batch, strict=True)), rate=rate, decay=decay)


@torch.no_grad()
def bound_norms_(tensors: Sequence[Tensor], max_norm: float) -> None:
    """Scale each tensor, in place, to Euclidean norm ``max_norm`` where its norm is larger.

    A tensor within the bound keeps its bits, and so does one whose norm is not finite.

    Args:
        tensors: Real tensors of any shapes.
        max_norm: The bound, positive.
    """
    for batch in _batches((tensor,) for tensor in tensors):
        group = [tensor for (tensor,) in batch]
        norms = torch.stack(torch._foreach_norm(group, 2, dtype=_working_dtype(group[0])))
        # a multiplication by exactly 1 instead of a branch: a branch would have to wait for the device
        scales = torch.where(norms.isfinite(), (max_norm / norms).clamp_(max=1.0), 1.0)
        torch._foreach_mul_(group, list(scales.unbind()))


def _step_tensor(weight: Tensor, grad: Tensor, rate: Scalar, decay: Scalar, sign: Tensor | None) -> None:
    wide = weight.to(_working_dtype(weight))
    # sign(0) = 0 is as good as any sign, since a zero weight stays zero; copysign would be slower in this form
    exponent = torch.sign(wide) if sign is None else sign.to(wide.dtype, copy=True)
    exponent.mul_(grad.to(wide.dtype)).mul_(_like(rate, wide)).add_(_like(decay, wide))
    exponent.nan_to_num_(nan=0.0).clamp_(-_EXPONENT_LIMIT, _EXPONENT_LIMIT)
    # expm1(e) = tanh(e/2) * (1 + exp(e)): as exact as torch.expm1, which takes twice the time on a CPU (not vectorised)
    change = (exponent * 0.5).tanh_()
    change.addcmul_(change, exponent.exp_())
    wide.addcmul_(wide, change)
    if wide is not weight:
        weight.copy_(wide)


def _step_list(
    weights: list[Tensor], grads: list[Tensor], signs: list[Tensor | None], *, rate: Scalar, decay: Scalar
) -> None:
    """Do what `_step_tensor` does, in the same order, for tensors of one device and type."""
    dtype = _working_dtype(weights[0])
    wide = [weight.to(dtype) for weight in weights]
    given = [sign.to(dtype, copy=True) for sign in signs if sign is not None]
    exponents = given or list(torch._foreach_sign(wide))
    torch._foreach_mul_(exponents, [grad.to(dtype) for grad in grads])
    torch._foreach_mul_(exponents, _like(rate, wide[0]))
    # given a tensor, only the overload with `alpha` leaves its value on the device
    torch._foreach_add_(exponents, _like(decay, wide[0]), **({"alpha": 1} if isinstance(decay, Tensor) else {}))
    for exponent in exponents:  # there is no foreach form of nan_to_num
        exponent.nan_to_num_(nan=0.0)
    torch._foreach_clamp_min_(exponents, -_EXPONENT_LIMIT)
    torch._foreach_clamp_max_(exponents, _EXPONENT_LIMIT)
    changes = list(torch._foreach_mul(exponents, 0.5))
    torch._foreach_tanh_(changes)
    torch._foreach_exp_(exponents)
    torch._foreach_addcmul_(changes, changes, exponents)
    torch._foreach_addcmul_(wide, wide, changes)
    if wide[0] is not weights[0]:
        torch._foreach_copy_(weights, wide)


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return _WIDER.get(tensor.dtype, tensor.dtype)


def _like(value: Scalar, tensor: Tensor) -> Scalar:
    """Bring a tensor of one element to the device and type of ``tensor``; leave a number as it is."""
    if isinstance(value, Tensor):
        return value.reshape(()).to(tensor.device, tensor.dtype, non_blocking=True)
    return value


def _batches(rows: Iterable[tuple]) -> list[list[tuple]]:
    """Split rows by device and type of their first tensor, keeping their order."""
    batches: dict[tuple[torch.device, torch.dtype], list[tuple]] = defaultdict(list)
    for row in rows:
        batches[row[0].device, row[0].dtype].append(row)
    return list(batches.values())
