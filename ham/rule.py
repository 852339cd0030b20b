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

Three forms compute it: one tensor at a time, ``torch._foreach_*`` over a list, and a compiled kernel. None waits for
the device. The first two are equal bit for bit, the third up to rounding. float32 and float64 are computed as they
are; bfloat16 and float16 in float32, rounded once, when the weight is stored.
"""

# pyright: reportPrivateImportUsage=false
# torch does not list its foreach kernels as exported; its own optimizers and many others use them
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor

from .compiled import EXPONENT_LIMIT, TYPES, WIDER, CannotCompile, flat, kernel, warn

Scalar = float | Tensor
Form = Literal["auto", "single", "foreach", "compiled"]
FORMS: tuple[Form, ...] = get_args(Form)
_T = TypeVar("_T", bound=tuple)

# on a CPU the foreach kernels loop over the tensors and stream all temporaries through memory: up to twice as slow
_FOREACH_DEVICES = ("cuda", "xpu")
# a step over so many weights saves what the compiler takes, some seconds, within about a thousand steps
_COMPILED_FROM = 2**22
_AT_HAND = ("cpu",)  # devices whose results the host need not wait for


class _Row(NamedTuple):
    """One weight with what moves it; ``rate`` is -lr * alpha."""

    weight: Tensor
    grad: Tensor
    sign: Tensor | None
    rate: Scalar


@torch.no_grad()
def hyperbolic_step_(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    lr: Scalar,
    alpha: Scalar | Sequence[Scalar],
    beta: Scalar,
    signs: Sequence[Tensor] | None = None,
    max_norm: float | None = None,
    form: Form = "auto",
    nan_guard: bool = True,
) -> None:
    """Multiply weights, in place, by ``exp(clamp(lr * (-alpha * sign * grad - beta), -5, 5))``.

    An entry whose exponent is not a number (a gradient that is, or an infinite one at a zero weight) is left as it
    is, so HAM never turns a finite weight into NaN. The published listing leaves out the whole tensor then, after a
    test that waits for the device.

    Args:
        weights: Real tensors of any shapes; changed in place.
        grads: Gradient for each weight, of the same shape.
        lr: Learning rate, a number or a tensor of one element.
        alpha: Strength of the sign-aware part, any finite number; the same types, or a sequence with one for each
            weight. 1 / alpha is a weight's magnitude.
        beta: Strength of the decay, at least 0; the types of ``lr``.
        signs: Sign of each weight (-1, 0 or 1) where it is not the present one (the variant HYP takes it before the
            base step).
        max_norm: Largest Euclidean norm of each weight after the step, see `bound_norms_`; None for no bound. On a CPU
            the compiled form finds in the same pass that there is nothing to scale.
        form: "single", one tensor at a time; "foreach", ``torch._foreach_*`` over a list; "compiled", one kernel of
            `torch.compile`, which serves a weight with gaps or overlaps in memory, of a tensor subclass, or whose
            gradient has another type in the single form. "auto": foreach on accelerators; elsewhere compiled from
            four million weights of one type on, where it can be had (else one warning is logged), and single below,
            where compiling takes longer than it saves.
        nan_guard: False lets exponents that are not numbers reach the weights: there to measure what the guard costs.

    Raises:
        ValueError: for another form.
        RuntimeError: where "compiled" is asked for and cannot be had: without a C++ compiler, or Triton on a GPU.
    """
    check_form(form)
    count = len(weights)
    alphas = alpha if isinstance(alpha, Sequence) else [alpha] * count
    rates = [-(lr * each) for each in alpha] if isinstance(alpha, Sequence) else [-(lr * alpha)] * count
    columns = zip(weights, grads, [None] * count if signs is None else signs, rates, strict=True)
    rows = [
        _Row(*column)
        for column, each in zip(columns, alphas, strict=True)
        if not (_is_zero(each) and _is_zero(beta))  # exactly the base optimizer, also at infinite weights
    ]
    decay = -(lr * beta)
    within: set[int] = set()  # weights that are known to be within the bound
    for batch in _batches(rows):
        chosen = _choose([row.weight for row in batch]) if form == "auto" else form
        if chosen == "foreach":
            _step_list(batch, decay, nan_guard)
        elif chosen == "single":
            for row in batch:
                _step_tensor(row, decay, nan_guard)
        else:
            within |= _step_compiled(batch, decay, nan_guard, max_norm, asked=form == "compiled")
    if max_norm is not None:
        bound_norms_([weight for weight in weights if id(weight) not in within], max_norm)


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
        larger = (norms > max_norm) & norms.isfinite()
        if norms.device.type in _AT_HAND and not larger.any():
            continue
        # a multiplication by exactly 1 instead of a branch: a branch would have to wait for the device
        scales = torch.where(larger, max_norm / norms, 1.0)
        torch._foreach_mul_(group, list(scales.unbind()))


def check_form(form: str) -> None:
    """Raise a ValueError where ``form`` is none."""
    if form not in FORMS:
        raise ValueError(f"form: {form!r} is not allowed; use one of {', '.join(map(repr, FORMS))}")


def _step_tensor(row: _Row, decay: Scalar, nan_guard: bool) -> None:
    weight, grad, sign, rate = row
    wide = weight.to(_working_dtype(weight))
    # sign(0) = 0 is as good as any sign, since a zero weight stays zero; copysign would be slower in this form
    exponent = torch.sign(wide) if sign is None else sign.to(wide.dtype, copy=True)
    exponent.mul_(grad.to(wide.dtype)).mul_(_like(rate, wide)).add_(_like(decay, wide))
    if nan_guard:
        exponent.nan_to_num_(nan=0.0)
    exponent.clamp_(-EXPONENT_LIMIT, EXPONENT_LIMIT)
    # expm1(e) = tanh(e/2) * (1 + exp(e)): as exact as torch.expm1, which takes twice the time on a CPU (not vectorised)
    change = (exponent * 0.5).tanh_()
    change.addcmul_(change, exponent.exp_())
    wide.addcmul_(wide, change)
    if wide is not weight:
        weight.copy_(wide)


def _step_list(rows: list[_Row], decay: Scalar, nan_guard: bool) -> None:
    """Do what `_step_tensor` does, in the same order, for tensors of one device and type."""
    weights, grads, signs, rates = map(list, zip(*rows, strict=True))
    dtype = _working_dtype(weights[0])
    wide = [weight.to(dtype) for weight in weights]
    given = [sign.to(dtype, copy=True) for sign in signs if sign is not None]
    exponents = given or list(torch._foreach_sign(wide))
    torch._foreach_mul_(exponents, [grad.to(dtype) for grad in grads])
    torch._foreach_mul_(exponents, _like_each(rates, wide))
    # given a tensor, only the overload with `alpha` leaves its value on the device
    torch._foreach_add_(exponents, _like(decay, wide[0]), **({"alpha": 1} if isinstance(decay, Tensor) else {}))
    for exponent in exponents if nan_guard else ():  # there is no foreach form of nan_to_num
        exponent.nan_to_num_(nan=0.0)
    torch._foreach_clamp_min_(exponents, -EXPONENT_LIMIT)
    torch._foreach_clamp_max_(exponents, EXPONENT_LIMIT)
    changes = list(torch._foreach_mul(exponents, 0.5))
    torch._foreach_tanh_(changes)
    torch._foreach_exp_(exponents)
    torch._foreach_addcmul_(changes, changes, exponents)
    torch._foreach_addcmul_(wide, wide, changes)
    if wide[0] is not weights[0]:
        torch._foreach_copy_(weights, wide)


def _step_compiled(
    rows: list[_Row], decay: Scalar, nan_guard: bool, max_norm: float | None, *, asked: bool
) -> set[int]:
    """Do the same in one kernel a tensor, and as `_step_tensor` where that cannot be; what is within the bound."""
    device, dtype = rows[0].weight.device, rows[0].weight.dtype
    made = None
    if dtype in TYPES:
        made = kernel(
            device,
            dtype,
            signed=rows[0].sign is not None,
            summed=max_norm is not None and device.type in _AT_HAND,
            threads=torch.get_num_threads() if device.type == "cpu" else 0,
            nan_guard=nan_guard,
        )
    if isinstance(made, CannotCompile):
        if asked:
            raise made
        warn(str(made))
    like = rows[0].weight.new_empty((), dtype=_working_dtype(rows[0].weight))
    scalars: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    for row in rows:
        views = flat(row.weight, row.grad, row.sign) if callable(made) else None
        if views is None or not callable(made):
            _step_tensor(row, decay, nan_guard)
            continue
        for value in (row.rate, decay):
            if id(value) not in scalars:
                scalars[id(value)] = _tensor(value, like)
        total = made(*views, scalars[id(row.rate)], scalars[id(decay)])
        if total is not None:
            squares[id(row.weight)] = total
    # with a margin for the rounding of weights in half precision, which the sums do not see
    if squares and max_norm is not None and not (torch.stack(list(squares.values())) > 0.9 * max_norm**2).any():
        return set(squares)
    return set()


def _choose(weights: Sequence[Tensor]) -> Form:
    if weights[0].device.type in _FOREACH_DEVICES:
        return "foreach"
    many = weights[0].device.type == "cpu" and sum(weight.numel() for weight in weights) >= _COMPILED_FROM
    # within a compiled step, the compiler fuses the single form by itself
    return "compiled" if many and not torch.compiler.is_compiling() else "single"


def _working_dtype(tensor: Tensor) -> torch.dtype:
    return WIDER.get(tensor.dtype, tensor.dtype)


def _like(value: Scalar, tensor: Tensor) -> Scalar:
    """Bring a tensor of one element to the device and type of ``tensor``; leave a number as it is."""
    if isinstance(value, Tensor):
        return value.reshape(()).to(tensor.device, tensor.dtype, non_blocking=True)
    return value


def _like_each(values: Sequence[Scalar], tensors: Sequence[Tensor]) -> Scalar | list[float] | list[Tensor]:
    """Do what `_like` does for each tensor of a list; one value where it is the same for all."""
    if all(value is values[0] for value in values):
        return _like(values[0], tensors[0])
    if not any(isinstance(value, Tensor) for value in values):
        return list(values)  # pyright: ignore[reportReturnType]
    return [_tensor(value, tensor) for value, tensor in zip(values, tensors, strict=True)]


def _tensor(value: Scalar, like: Tensor) -> Tensor:
    """Bring a number, too, to the device and type of ``like``."""
    value = _like(value, like)
    return value if isinstance(value, Tensor) else like.new_full((), value)


def _is_zero(value: Scalar) -> bool:
    return not isinstance(value, Tensor) and value == 0


def _batches(rows: Iterable[_T]) -> list[list[_T]]:
    """Split rows by device and type of their first tensor, keeping their order."""
    batches: dict[tuple[torch.device, torch.dtype], list[_T]] = defaultdict(list)
    for row in rows:
        batches[row[0].device, row[0].dtype].append(row)
    return list(batches.values())
