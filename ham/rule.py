"""HAM's multiplicative step and norm bound as functions, first of one tensor, then of lists of tensors.

Source: Jacobs, Gadhikar, Rubio-Madrigal, Burkholz, "Hyperbolic Aware Minimization: Implicit
Bias for Sparsity", ICLR 2026
(arXiv 2506.02630).
Each weight ``w`` with gradient ``g`` is updated with learning rate ``lr`` and the constants ``alpha`` and ``beta``::

    e = clamp(lr * (-alpha * sign(w) * g - beta), -5, 5)
    w <- w + w * expm1(e)

This is the paper's ``w <- w * exp(e)`` without its drift. The exponents of a typical step are small, so ``exp(e)`` is
rounded near one: in float32, a thousand steps of decay alone (e = -1e-4) end 2e-5 off, against 1e-6 in this form. The
step changes no sign and keeps exact zeros, so a sparse network stays sparse although HAM does not know its mask.

Three forms compute the step: one tensor at a time (`step_tensor_`, the form to read), ``torch._foreach_*`` over a
list, and a compiled kernel (`ham.compiled`). None of them waits for the device. The first two are equal bit for bit,
the third up to rounding. float32 and float64 are computed in their own type; bfloat16 and float16 are computed in
float32 and rounded once, when the weight is stored.
"""

# pyright: reportPrivateImportUsage=false
# torch does not list its foreach kernels as exported; its own optimizers and many others use them
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .compiled import EXPONENT_LIMIT, TYPES, CannotCompile, Kernel, flat, kernel, warn
from .lists import Scalar, batches, is_zero, scalar_like, scalars_like, tensor_like, working_dtype

Form = Literal["auto", "single", "foreach", "compiled"]
FORMS: tuple[Form, ...] = get_args(Form)

# on a CPU the foreach kernels loop over the tensors and stream all temporaries through memory: up to twice as slow
_FOREACH_DEVICES = ("cuda", "xpu")
# with this many weights, a compiled kernel saves within about a thousand steps the seconds that compiling takes
COMPILE_THRESHOLD = 2**22
# devices that compute while the host waits anyway, so that a branch on a result costs nothing
SYNCHRONOUS_DEVICES = ("cpu",)


def step_tensor_(
    weight: Tensor, grad: Tensor, sign: Tensor | None, rate: Scalar, decay: Scalar, nan_guard: bool = True
) -> None:
    """Multiply one weight tensor, in place, by ``exp(clamp(rate * sign * grad + decay, -5, 5))``.

    Args:
        weight: Real tensor of any shape; changed in place.
        grad: Its gradient.
        sign: Sign of each entry (-1, 0 or 1); None for the sign of ``weight``.
        rate: -lr * alpha.
        decay: -lr * beta.
        nan_guard: Leave an entry as it is where its exponent is NaN.
    """
    wide = weight.to(working_dtype(weight.dtype))
    # sign(0) = 0 is as good as any sign, since a zero weight stays zero; copysign would be slower in this form
    exponent = torch.sign(wide) if sign is None else sign.to(wide.dtype, copy=True)
    exponent.mul_(grad.to(wide.dtype)).mul_(scalar_like(rate, wide)).add_(scalar_like(decay, wide))
    if nan_guard:
        exponent.nan_to_num_(nan=0.0)
    exponent.clamp_(-EXPONENT_LIMIT, EXPONENT_LIMIT)
    # expm1(e) = tanh(e/2) * (1 + exp(e)): as exact as torch.expm1, which takes twice the time on a CPU (not vectorised)
    change = (exponent * 0.5).tanh_()
    change.addcmul_(change, exponent.exp_())
    wide.addcmul_(wide, change)
    if wide is not weight:
        weight.copy_(wide)


class _Row(NamedTuple):
    """The arguments of `step_tensor_` that differ from one weight to the next."""

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

    An entry whose exponent is NaN (its gradient is NaN, or infinite at a zero weight) is left as it is, so HAM never
    turns a finite weight into NaN. The published listing skips the whole tensor instead, after a test that waits for
    the device.

    Example:
        >>> import ham, torch
        >>> weights, grads = [torch.tensor([1.0, -1.0, 0.0])], [torch.tensor([0.1, 0.1, 0.1])]
        >>> ham.hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=1e-3)
        >>> weights[0]
        tensor([ 0.8186, -1.2213,  0.0000])

    Args:
        weights: Real tensors of any shapes; changed in place.
        grads: Gradient of each tensor in ``weights``, of the same shape.
        lr: Learning rate, a number or a tensor of one element.
        alpha: Strength of the sign-aware part, any finite number; of the types of ``lr``, or a sequence with one value
            per tensor. 1 / alpha has the unit of a weight.
        beta: Strength of the decay, at least 0; of the types of ``lr``.
        signs: Signs (-1, 0 or 1) to use in place of those of the present weights. The variant HYP passes the signs
            from before the base step.
        max_norm: Largest Euclidean norm of each tensor after the step, see `bound_norms_`; None for no bound. On a CPU
            the compiled form computes the norms in the same pass.
        form: "single": one tensor at a time. "foreach": ``torch._foreach_*`` over a list. "compiled": one kernel of
            `torch.compile`; it leaves to the single form weights with gaps or overlaps in memory, tensor subclasses,
            and weights whose gradient has another type. "auto": foreach on accelerators; on a CPU compiled from four
            million weights of one type on, if there is a compiler (else one warning is logged); single for fewer, where
            compiling takes longer than it saves.
        nan_guard: False lets NaN exponents reach the weights, to measure what the guard costs.

    Raises:
        ValueError: if ``form`` is unknown.
        RuntimeError: if "compiled" is asked for but not available: without a C++ compiler, or without Triton on a GPU.
    """
    check_form(form)
    count = len(weights)
    alphas = alpha if isinstance(alpha, Sequence) else [alpha] * count
    rates = [-(lr * each) for each in alpha] if isinstance(alpha, Sequence) else [-(lr * alpha)] * count
    columns = zip(weights, grads, [None] * count if signs is None else signs, rates, strict=True)
    rows = [
        _Row(*column)
        for column, each in zip(columns, alphas, strict=True)
        if not (is_zero(each) and is_zero(beta))  # exactly the base optimizer, also at infinite weights
    ]
    decay = -(lr * beta)
    within: set[int] = set()  # ids of weights that are known to be within the bound
    for batch in batches(rows):
        chosen = _choose([row.weight for row in batch]) if form == "auto" else form
        if chosen == "foreach":
            _step_list(batch, decay, nan_guard)
        elif chosen == "single":
            for row in batch:
                step_tensor_(*row, decay, nan_guard)
        else:
            within |= _step_compiled(batch, decay, nan_guard, max_norm, asked=form == "compiled")
    if max_norm is not None:
        bound_norms_([weight for weight in weights if id(weight) not in within], max_norm)


@torch.no_grad()
def bound_norms_(tensors: Sequence[Tensor], max_norm: float) -> None:
    """Scale each tensor, in place, to Euclidean norm ``max_norm`` if its norm is larger.

    A tensor within the bound is not changed by a bit, nor is one whose norm is not finite.

    Example:
        >>> import ham, torch
        >>> weight = torch.tensor([3.0, 4.0])
        >>> ham.bound_norms_([weight], max_norm=1.0)
        >>> weight
        tensor([0.6000, 0.8000])

    Args:
        tensors: Real tensors of any shapes.
        max_norm: The bound, positive.

    Raises:
        RuntimeError: if a tensor holds integers, or is sparse.
    """
    for batch in batches((tensor,) for tensor in tensors):
        group = [tensor for (tensor,) in batch]
        norms = torch.stack(torch._foreach_norm(group, 2, dtype=working_dtype(group[0].dtype)))
        larger = (norms > max_norm) & norms.isfinite()
        if norms.device.type in SYNCHRONOUS_DEVICES and not larger.any():
            continue
        # a multiplication by exactly 1 instead of a branch: a branch would have to wait for the device
        scales = torch.where(larger, max_norm / norms, 1.0)
        torch._foreach_mul_(group, list(scales.unbind()))


def check_form(form: str) -> None:
    """Raise a ValueError if ``form`` is unknown."""
    if form not in FORMS:
        raise ValueError(f"form: {form!r} is not allowed; use one of {', '.join(map(repr, FORMS))}")


def _step_list(rows: list[_Row], decay: Scalar, nan_guard: bool) -> None:
    """Do what `step_tensor_` does, with the same operations in the same order, for tensors of one device and type."""
    weights, grads, signs, rates = map(list, zip(*rows, strict=True))
    dtype = working_dtype(weights[0].dtype)
    wide = [weight.to(dtype) for weight in weights]
    given = [sign.to(dtype, copy=True) for sign in signs if sign is not None]
    exponents = given or list(torch._foreach_sign(wide))
    torch._foreach_mul_(exponents, [grad.to(dtype) for grad in grads])
    torch._foreach_mul_(exponents, scalars_like(rates, wide))
    # if decay is a tensor, only the overload with `alpha` leaves its value on the device
    torch._foreach_add_(exponents, scalar_like(decay, wide[0]), **({"alpha": 1} if isinstance(decay, Tensor) else {}))
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
    """Do the same with one kernel call per tensor, or with `step_tensor_` where there is no kernel for it.

    Returns:
        The ids of weights whose norms are known to be within ``max_norm``.
    """
    summed = max_norm is not None and rows[0].weight.device.type in SYNCHRONOUS_DEVICES
    compiled = _kernel_for(rows[0], nan_guard, summed, asked=asked)
    like = rows[0].weight.new_empty((), dtype=working_dtype(rows[0].weight.dtype))
    scalars: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    for row in rows:
        views = None if compiled is None else flat(row.weight, row.grad, row.sign)
        if compiled is None or views is None:
            step_tensor_(*row, decay, nan_guard)
            continue
        for value in (row.rate, decay):
            if id(value) not in scalars:
                scalars[id(value)] = tensor_like(value, like)
        total = compiled(*views, scalars[id(row.rate)], scalars[id(decay)])
        torch.autograd.graph.increment_version(row.weight)  # autograd's check on saved tensors does not see the kernel
        if total is not None:
            squares[id(row.weight)] = total
    # the margin of 10 % covers the rounding of weights in half precision, which the sums of squares do not include
    if squares and max_norm is not None and not (torch.stack(list(squares.values())) > 0.9 * max_norm**2).any():
        return set(squares)
    return set()


def _kernel_for(row: _Row, nan_guard: bool, summed: bool, *, asked: bool) -> Kernel | None:
    """Return the kernel for weights like this one; None where it cannot be had, an error if it was ``asked`` for."""
    device, dtype = row.weight.device, row.weight.dtype
    if dtype not in TYPES:
        return None
    made = kernel(
        device,
        dtype,
        signed=row.sign is not None,
        summed=summed,
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
        nan_guard=nan_guard,
    )
    if not isinstance(made, CannotCompile):
        return made
    if asked:
        raise made
    warn(str(made))
    return None


def _choose(weights: Sequence[Tensor]) -> Form:
    if weights[0].device.type in _FOREACH_DEVICES:
        return "foreach"
    many = weights[0].device.type == "cpu" and sum(weight.numel() for weight in weights) >= COMPILE_THRESHOLD
    # if the whole step is being compiled, the compiler fuses the single form by itself
    return "compiled" if many and not torch.compiler.is_compiling() else "single"
