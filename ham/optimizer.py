"""HAM, Hyperbolic Aware Minimization: any torch optimizer followed by a multiplicative step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from .base import check_number, check_tensor, overwrites_gradients, rate_of
from .lists import Scalar
from .rule import Form, bound_norms_, check_form, hyperbolic_step_
from .scale_free import PEAK, follow_peak, follow_scale, restore, strength
from .wrapper import OptimizerWrapper

_SIGNS = ("after", "before")


class _Given(NamedTuple):
    """A parameter group with the gradients that the base optimizer is given."""

    group: dict[str, Any]
    params: list[Tensor]
    grads: list[Tensor]

    def seeing(self, grads: Mapping[Tensor, Tensor]) -> _Given:
        """The same group with other gradients, of the parameters that have one."""
        params = [param for param in self.params if param in grads]
        return _Given(self.group, params, [grads[param] for param in params])


class HAM(OptimizerWrapper):
    """Hyperbolic Aware Minimization around a base optimizer.

    Source: Jacobs, Gadhikar, Rubio-Madrigal, Burkholz, "Hyperbolic Aware Minimization: Implicit
    Bias for Sparsity", ICLR 2026
    (arXiv 2506.02630). After the base step, the weights of tensors with two or more dimensions are multiplied::

        w <- w * exp(clamp(lr * (-alpha * sign(w) * g - beta), -5, 5))

    with the raw gradient ``g`` that the base was given (as it is when ``step`` begins: clipped or masked if you did
    so; without momentum and weight decay) and the group's current ``lr``, so that HAM follows warm-up and schedule.
    Exact zeros stay zero: a sparse network whose pruned weights the base does not move stays sparse. For small rates
    this follows ``dw = -(1 + alpha |w|) g dt - beta w dt``: large weights learn faster, and alpha sets where large
    begins.

    ``alpha`` and ``beta`` live in the parameter groups: set them per group, change them in training (as a scheduler
    does with ``lr``), find them in ``state_dict()``. Where the base has options of that name (RMSprop, ASGD), the
    keys are ``ham_alpha`` and ``ham_beta``. A group with ``"ham": False`` is left to the base alone. alpha = beta = 0
    is the base optimizer, bit for bit, as long as no tensor reaches ``max_weight_norm``.

    What has two or more dimensions counts as a weight, as in the listing: also the class token and position embedding
    of a vision transformer, shaped (1, 1, width) and (1, tokens, width) (timm's ``cls_token`` and ``pos_embed``).
    Whether the paper's ViT results include them is *unverified*. ``"ham": False`` for their group leaves them out.

    With a closure, the gradient is that of its last call. With a `GradScaler`, call ``scaler.unscale_`` or
    ``scaler.step`` as for any optimizer; a step with infinite gradients is skipped whole. Under `SAM` it is the
    gradient at the perturbed weights, or at the weights themselves, see there. Around a schedule-free base only the
    interpolated weights y are multiplied, not its iterate z; for that, put HAM inside
    ``schedulefree.ScheduleFreeWrapper``.

    Deviations from the published listing, and why:

    - Its gradient-norm clip (20, over a group) runs after the update, on gradients about to be cleared: with or without
      it, weights are equal bit for bit, unless gradients are kept from step to step. Left out; clip before ``step``.
    - It tests weight, gradient, exponent and result of each tensor for NaN, each time waiting for the device, prints,
      and leaves the whole tensor without HAM's step and norm bound. The base has written the NaN into the weights by
      then, so the tests protect nothing. An infinite gradient passes them all; the bound then multiplies the tensor by
      1000 / inf: all its weights become zero, infinite ones NaN. Here an entry whose exponent is NaN is skipped, on the
      device, and a tensor whose norm is not finite is not scaled: a NaN or infinite gradient does to its own entry what
      the base makes of it, and HAM spreads it nowhere.
    - Its wrapper loses momentum and learning rate when a checkpoint is loaded, keeps alpha and beta outside the
      checkpoint and returns no loss from closures: see `OptimizerWrapper`.
    - It moves tensors of one element: the thresholds of soft-threshold methods, shaped (1, 1), are not weights, and
      its norm bound throws their start (-3200) to -1000 in the first step. Left alone here, unless ``scalars``.
    - ``w + w * expm1(e)`` stands for ``w * exp(e)``: the same product with less rounding (see `ham.rule`).
    - HAM can be switched off per group: factors of a product m*w already have the geometry that HAM emulates.
    - The gradient stays raw with bases that overwrite it, as Nesterov SGD can (foreach form, no weight decay).
    - With a base that maximizes, the gradient's sign is turned for HAM too; the listing would work against the base.

    Args:
        base: The optimizer that takes the first half of the step. Its parameters and gradients are real and dense.
        alpha: Strength of the sign-aware part; any finite number (the paper's experiments reach from -200 to 200).
        beta: Decay per unit of learning rate, decoupled, at least 0.
        sign: Take the sign of a weight "after" the base step (HYP*, the published listing) or "before" it (HYP, which
            keeps one more tensor per parameter during the step). They differ where a weight crosses, or leaves, zero.
        max_weight_norm: Largest Euclidean norm of a tensor after the step, for every tensor with a gradient,
            one-dimensional ones included; None for no bound. A tensor whose norm is not finite is left as it is.
        scalars: Treat tensors of one element as any other.
        scale_free: Take alpha for c, the strength relative to each tensor's own gradients (see `ham.scale_free`): the
            suite's extension, not the paper's HAM. A group's own option, as alpha is.
        form: Form of the multiplicative step, "single", "foreach", "compiled" or "auto"; see `hyperbolic_step_`.

    Raises:
        TypeError: for a base that is no optimizer, an option of the wrong type, or (in ``step``) complex parameters.
        ValueError: for an option out of range, a base that has no learning rate, is differentiable, or contains HAM
            already.
        RuntimeError: in ``step``, for sparse gradients, or where ``form="compiled"`` cannot be had.
    """

    _options = ("sign", "max_weight_norm", "scalars", "form")

    def __init__(
        self,
        base: Optimizer,
        alpha: float = 200.0,
        beta: float = 1e-3,
        *,
        sign: Literal["after", "before"] = "after",
        max_weight_norm: float | None = 1000.0,
        scalars: bool = False,
        scale_free: bool = False,
        form: Form = "auto",
    ):
        if sign not in _SIGNS:
            raise ValueError(f"sign: {sign!r} is not allowed; use {' or '.join(map(repr, _SIGNS))}")
        if max_weight_norm is not None:
            check_number("max_weight_norm", max_weight_norm)
            if max_weight_norm <= 0:
                raise ValueError(f"max_weight_norm: {max_weight_norm!r} must be positive, or None for no bound")
        check_form(form)
        inner = base
        while isinstance(inner, OptimizerWrapper):
            if isinstance(inner, HAM):
                raise ValueError("base: contains HAM already; a second one would repeat its step")
            inner = inner.base
        self.sign = sign
        self.max_weight_norm = max_weight_norm
        self.scalars = scalars
        self.form: Form = form
        taken = getattr(base, "defaults", {})
        self._alpha, self._beta = (f"ham_{key}" if key in taken else key for key in ("alpha", "beta"))
        super().__init__(base, {self._alpha: alpha, self._beta: beta, "ham": True, "scale_free": scale_free, PEAK: 0.0})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._alpha, self._beta, *_ = self.group_defaults

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Check alpha, beta, the switches and what HAM needs of the base's options."""
        check_number(self._alpha, group[self._alpha])
        check_number(self._beta, group[self._beta])
        if group[self._beta] < 0:
            raise ValueError(f"{self._beta}: {group[self._beta]!r} is out of range; a decay must be at least 0")
        for key in ("ham", "scale_free"):
            if not isinstance(group[key], bool):
                raise TypeError(f"{key}: {group[key]!r} in a parameter group; it must be True or False")
        if group.get("lr") is None:
            raise ValueError(
                "lr: the base optimizer's parameter groups have no learning rate, which HAM's step is scaled by"
            )
        if group.get("differentiable"):
            raise ValueError(
                "differentiable: HAM's step is not differentiated through; use a base with differentiable=False"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; a scale-free one takes its rate for the peak until it sees a larger one."""
        super().add_param_group(param_group)
        if param_group["scale_free"]:
            follow_peak(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint, see `OptimizerWrapper.load_state_dict`, with the running means as they were saved."""
        super().load_state_dict(state_dict)
        restore(self, state_dict)

    @overload
    def step(self, closure: None = None, *, grads: Mapping[Tensor, Tensor] | None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float], *, grads: Mapping[Tensor, Tensor] | None = None) -> float: ...

    def step(
        self, closure: Callable[[], float] | None = None, *, grads: Mapping[Tensor, Tensor] | None = None
    ) -> float | None:
        """Take the base step, then the multiplicative one.

        Args:
            closure: Reevaluates the model and returns the loss; the base calls it.
            grads: Gradient by parameter that the multiplicative step takes in place of ``.grad``; a parameter that
                has only one of them is left to the base.

        Returns:
            What the base returns: the loss where there is a closure.

        Raises:
            RuntimeError: for a sparse gradient.
            TypeError: for a complex parameter.
        """
        signs = self._signs() if self.sign == "before" else None
        if closure is None:
            given = self._collect()
            loss = self.base.step()
        else:
            given = []

            def collecting() -> float:
                value = closure()
                given[:] = self._collect()
                return value

            loss = self.base.step(collecting)
        for part in given:
            self._move(part if grads is None else part.seeing(grads), signs)
        return loss

    def strengths(self, group: Mapping[str, Any], weights: Sequence[Tensor]) -> tuple[Scalar | list[Tensor], Scalar]:
        """Alpha and beta as the last step took them.

        Args:
            group: One of the parameter groups.
            weights: Tensors of the group that the last step multiplied.

        Returns:
            Alpha, one for each of the tensors where the group is scale-free and negative under ``maximize``; beta.
        """
        alpha = group.get(self._alpha, self.defaults[self._alpha])
        alpha = -alpha if group.get("maximize") else alpha
        if group.get("scale_free", self.defaults["scale_free"]):
            alpha = [strength(self.state[weight], alpha, group[PEAK]) for weight in weights]
        return alpha, group.get(self._beta, self.defaults[self._beta])

    def multiplies(self, param: Tensor) -> bool:
        """Whether a step multiplies this tensor, if its group is not switched off and it has a gradient."""
        return param.ndim >= 2 and self._takes(param)

    def _takes(self, param: Tensor) -> bool:
        return self.scalars or param.numel() != 1

    @torch.no_grad()
    def _signs(self) -> dict[Tensor, Tensor]:
        """Signs of the weights that the step may multiply."""
        return {
            param: torch.sign(param)
            for group in self.param_groups
            if group.get("ham", True)
            for param in group["params"]
            if self._takes(param)
        }

    @torch.no_grad()
    def _collect(self) -> list[_Given]:
        """Take the gradients as they stand now, before the base can change them."""
        given = []
        for index, group in enumerate(self.param_groups):
            if not group.get("ham", True):
                continue
            params = [param for param in group["params"] if param.grad is not None and self._takes(param)]
            for param in params:
                check_tensor(param, f"a parameter of shape {tuple(param.shape)} in group {index}")
            grads = [param.grad for param in params]
            if overwrites_gradients(self.base, group):
                grads = [grad.clone() for grad in grads]
            given.append(_Given(group, params, grads))
        return given

    def _move(self, given: _Given, signs: Mapping[Tensor, Tensor] | None) -> None:
        group = given.group
        rows = [(param, grad) for param, grad in zip(given.params, given.grads, strict=True) if self.multiplies(param)]
        weights = [param for param, _ in rows]
        if group.get("scale_free", self.defaults["scale_free"]):
            follow_peak(group)
            for param, grad in rows:
                follow_scale(self.state[param], param, grad)
        alpha, beta = self.strengths(group, weights)
        hyperbolic_step_(
            weights,
            [grad for _, grad in rows],
            lr=rate_of(group),
            alpha=alpha,
            beta=beta,
            signs=None if signs is None else [signs[param] for param, _ in rows],
            max_norm=self.max_weight_norm,
            form=self.form,
        )
        if self.max_weight_norm is not None:
            bound_norms_([param for param in given.params if param.ndim < 2], self.max_weight_norm)
