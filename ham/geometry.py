"""The geometry that HAM moves in, beside those of gradient descent and of the product m ⊙ w.

Each moves a weight θ by a Riemannian gradient flow ``dθ = -G(θ) ∇f dt`` whose inverse metric ``G`` acts entry by
entry and so is the inverse second derivative of a convex potential ``R``:

=================  ====================  ======================================  ===============================
geometry           inverse metric G      mirror map R'                           potential R
=================  ====================  ======================================  ===============================
`Euclidean`        1                     θ                                       θ² / 2
`Product` (gap γ)  √(4θ² + γ²)           arcsinh(2θ / γ) / 2                     θ R' - (√(4θ² + γ²) - γ) / 4
`Ham` (α)          1 + α |θ|             sign(θ) log(1 + α |θ|) / α              ((1 + α|θ|) log(1 + α|θ|) - α|θ|) / α²
=================  ====================  ======================================  ===============================

Hence ``dR'(θ) = -∇f dt``: a flow over a linear model moves R'(θ) within the span of its inputs, and of all weights that
fit the data it ends at the one nearest to its start in the Bregman divergence of R.

``R(θ) / R(1)`` goes from θ² to |θ|: of `Ham` from α → 0 to α → ∞ (by terms of 1 / log α), of `Product` from γ → ∞ to
γ → 0. At θ = 0 the G of `Ham` is 1 for every α, that of the product is γ.

Sources: the product's potential and inverse metric are those of Woodworth et al., COLT 2020, and of Jacobs & Burkholz,
ICLR 2025 (arXiv 2408.09966), here for γ = m² - w²; the flow of HAM is that of Jacobs, Gadhikar, Rubio-Madrigal,
Burkholz, ICLR 2026 (arXiv 2506.02630), derived here from `hyperbolic_step_`. What follows from a flow is derived in
the docstrings.

All functions take real tensors of any shape, act entry by entry (a sum over entries is the potential of a tensor), and
compute bfloat16 and float16 in float32. They are accurate to some units of rounding, also near zero, for α = 0, and for
neighbouring arguments. Constants are numbers or tensors that broadcast against θ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal

import torch
from torch import Tensor

from .curves import entropy, over_argument, sinh_rest
from .lists import Scalar
from .rule import hyperbolic_step_

__all__ = ["Euclidean", "Geometry", "Ham", "Product"]


def _wide(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute bfloat16 and float16 in float32 and round the result once; the first argument says the type."""

    @wraps(function)
    def computed(self: Geometry, theta: Tensor, *others: Tensor) -> Tensor:
        dtype = torch.promote_types(theta.dtype, torch.float32)
        return function(self, theta.to(dtype), *(other.to(dtype) for other in others)).to(theta.dtype)

    return computed


class Geometry(ABC):
    """An inverse metric that acts entry by entry, with what follows from it."""

    @abstractmethod
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """G(θ), the factor that gradients are multiplied with."""

    @abstractmethod
    def potential(self, theta: Tensor) -> Tensor:
        """The mirror potential R(θ): convex, 0 with a derivative of 0 at θ = 0, second derivative 1 / G."""

    @abstractmethod
    def mirror_map(self, theta: Tensor) -> Tensor:
        """R'(θ), the coordinates in which the flow is driven by the plain gradient."""

    @abstractmethod
    def inverse_map(self, dual: Tensor) -> Tensor:
        """The θ whose `mirror_map` is ``dual``."""

    @abstractmethod
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """R(θ) - R(start) - R'(start) (θ - start): at least 0, and 0 where both are equal."""

    def metric(self, theta: Tensor) -> Tensor:
        """1 / G(θ), the second derivative of the potential."""
        return 1 / self.inverse_metric(theta)

    def normalised_potential(self, theta: Tensor) -> Tensor:
        """R(θ) / R(1): comparable between geometries, between θ² and |θ|."""
        return self.potential(theta) / self.potential(torch.ones_like(theta))

    def flow(self, theta: Tensor, grad: Tensor, beta: Scalar = 0.0) -> Tensor:
        """The flow's right-hand side, ``dθ/dt = -G(θ) ∇f - β θ``.

        Args:
            theta: Where.
            grad: ∇f there.
            beta: Decay per unit of time (the product's is twice its factors' weight decay).
        """
        return -self.inverse_metric(theta) * grad - beta * theta

    def mirror_step(self, theta: Tensor, grad: Tensor, lr: Scalar) -> Tensor:
        """Mirror descent, ``R'(θ) <- R'(θ) - lr ∇f``: the flow at β = 0 with the gradient held for a time ``lr``."""
        return self.inverse_map(self.mirror_map(theta) - lr * grad)


@dataclass(frozen=True)
class Euclidean(Geometry):
    """Gradient descent: G = 1."""

    def inverse_metric(self, theta: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(theta)

    def potential(self, theta: Tensor) -> Tensor:
        """θ² / 2."""
        return theta.square() / 2

    def mirror_map(self, theta: Tensor) -> Tensor:
        """Θ itself."""
        return theta.clone()

    def inverse_map(self, dual: Tensor) -> Tensor:
        """The argument itself."""
        return dual.clone()

    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """Half the squared difference."""
        return (theta - start).square() / 2

    def step(self, theta: Tensor, grad: Tensor, lr: Scalar, beta: Scalar = 0.0) -> Tensor:
        """``θ - lr (∇f + β θ)``, SGD with weight decay β."""
        return theta - lr * (grad + beta * theta)


@dataclass(frozen=True, eq=False)
class Ham(Geometry):
    """HAM around gradient descent: G = 1 + α |θ|.

    A step with rate η is ``h = θ - η g`` and then ``h exp(-η (α sign(h) g + β))``, by its series
    ``θ - η ((1 + α |θ|) g + β θ)`` up to terms of η², which is the flow.

    Attributes:
        alpha: α, at least 0; 0 is gradient descent.

    Raises:
        ValueError: where α is negative: G then is negative at large weights, and there is no potential.
    """

    alpha: Scalar

    def __post_init__(self) -> None:
        _at_least_zero("alpha", self.alpha)

    @_wide
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """1 + α |θ|."""
        return 1 + _like(self.alpha, theta) * theta.abs()

    @_wide
    def potential(self, theta: Tensor) -> Tensor:
        """((1 + α|θ|) log(1 + α|θ|) - α|θ|) / α²."""
        return theta.square() * entropy(_like(self.alpha, theta) * theta.abs())

    @_wide
    def mirror_map(self, theta: Tensor) -> Tensor:
        """Sign(θ) log(1 + α|θ|) / α."""
        return theta * over_argument(torch.log1p, _like(self.alpha, theta) * theta.abs())

    @_wide
    def inverse_map(self, dual: Tensor) -> Tensor:
        """Sign(z) (exp(α|z|) - 1) / α."""
        return dual * over_argument(torch.expm1, _like(self.alpha, dual) * dual.abs())

    @_wide
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """The Bregman divergence.

        For equal signs, with ``u = α (|θ| - |start|) / G(start)``, it is ``G(start) ((1 + u) log(1 + u) - u) / α²``.
        For different ones it is the sum of that to 0, of R(θ) and of |θ R'(start)|, none of them negative.
        """
        alpha = _like(self.alpha, theta)
        length, scale = start.abs(), 1 + alpha * start.abs()
        same = theta.sign() * start.sign() >= 0
        difference = torch.where(same, theta.abs(), 0.0) - length
        on_this_side = difference.square() / scale * entropy(alpha * difference / scale)
        beyond_zero = self.potential(theta) + theta.abs() * self.mirror_map(length)
        return on_this_side + torch.where(same, 0.0, beyond_zero)

    @torch.no_grad()
    def step(
        self,
        theta: Tensor,
        grad: Tensor,
        lr: Scalar,
        beta: Scalar = 0.0,
        sign: Literal["after", "before"] = "after",
    ) -> Tensor:
        """A step of ``HAM(SGD)``: the gradient step, then `hyperbolic_step_`; not differentiable.

        Args:
            theta: The weights.
            grad: Their gradient.
            lr: Learning rate, a number or a tensor of one element; the same for ``beta`` (and α, here).
            beta: HAM's decay.
            sign: Where the sign of a weight is taken, as for `ham.HAM`.
        """
        moved = theta - lr * grad
        signs = [theta.sign()] if sign == "before" else None
        hyperbolic_step_([moved], [grad], lr=lr, alpha=self.alpha, beta=beta, signs=signs)
        return moved


@dataclass(frozen=True, eq=False)
class Product(Geometry):
    """Gradient descent on the factors of θ = m w: G = m² + w² = √(4θ² + γ²) with the gap γ = m² - w².

    ``dm = -(g w + λ m) dt`` and ``dw = -(g m + λ w) dt`` give ``dθ = -((m² + w²) g + 2λ θ) dt``, so β = 2λ, and
    ``dγ = -2λ γ dt``: without weight decay λ the gap is an invariant, else G is that of the present gap.

    Attributes:
        gap: γ, at least 0 (its sign only says which factor is which). At 0, the balanced pair, G is 2 |θ| and a
            weight of zero never moves; potential and maps need γ > 0.

    Raises:
        ValueError: where γ is negative.
    """

    gap: Scalar

    def __post_init__(self) -> None:
        _at_least_zero("gap", self.gap)

    @_wide
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """√(4θ² + γ²)."""
        return torch.hypot(2 * theta, _like(self.gap, theta).expand_as(theta))

    @_wide
    def potential(self, theta: Tensor) -> Tensor:
        """Θ arcsinh(2θ/γ) / 2 - (√(4θ² + γ²) - γ) / 4."""
        return theta * self.mirror_map(theta) - theta.square() / (self.inverse_metric(theta) + _like(self.gap, theta))

    @_wide
    def mirror_map(self, theta: Tensor) -> Tensor:
        """arcsinh(2θ/γ) / 2."""
        return torch.asinh(2 * theta / _like(self.gap, theta)) / 2

    @_wide
    def inverse_map(self, dual: Tensor) -> Tensor:
        """Γ sinh(2z) / 2."""
        return _like(self.gap, dual) * torch.sinh(2 * dual) / 2

    @_wide
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """The Bregman divergence.

        With ``a = 2θ/γ``, ``b = 2 start/γ`` and ``d = arcsinh(a) - arcsinh(b)`` it is
        ``γ (a d - √(1 + a²) + √(1 + b²)) / 4``, or, without a difference of near numbers where d is small,
        ``γ (√(1 + a²) (cosh d - 1) - a (sinh d - d)) / 4``.
        """
        gap = _like(self.gap, theta)
        a, b, difference = 2 * theta / gap, 2 * start / gap, 2 * (theta - start) / gap
        root_a, root_b = torch.hypot(a, torch.ones_like(a)), torch.hypot(b, torch.ones_like(b))
        same = a * b > 0
        # sinh(d) = a √(1 + b²) - b √(1 + a²); for equal signs a difference, so its conjugate divides instead
        conjugate = torch.where(same, difference * (a + b) / torch.where(same, a * root_b + b * root_a, 1.0), 0.0)
        d = torch.asinh(torch.where(same, conjugate, a * root_b - b * root_a))
        near = root_a * 2 * torch.sinh(d / 2).square() - a * sinh_rest(d.clamp(-1, 1))
        far = a * d - difference * (a + b) / (root_a + root_b)
        return gap * torch.where(d.abs() < 1, near, far) / 4

    def step(self, theta: Tensor, grad: Tensor, lr: Scalar, beta: Scalar = 0.0) -> Tensor:
        """The product after a step of SGD on both factors, with weight decay λ = β / 2.

        ``θ - lr (G g + 2λ θ) + lr² (g w + λ m) (g m + λ w)``; the gap becomes ``γ ((1 - lr λ)² - lr² g²)``.
        """
        metric, decay = self.inverse_metric(theta), beta / 2
        second = (grad.square() + decay * decay) * theta + decay * grad * metric
        return theta - lr * (metric * grad + beta * theta) + lr * lr * second


def _like(value: Scalar, tensor: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


def _at_least_zero(name: str, value: Scalar) -> None:
    if not bool((torch.as_tensor(value) >= 0).all()):
        raise ValueError(f"{name}: {value!r} is out of range; it must be at least 0")
