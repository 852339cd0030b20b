"""The geometry in which HAM moves weights, with those of gradient descent and of the product m ⊙ w.

Example:
    >>> import torch
    >>> from ham.geometry import Ham
    >>> Ham(alpha=2.0).flow(torch.tensor([0.5, -0.5]), grad=torch.tensor([1.0, 1.0]))
    tensor([-2., -2.])

Each geometry moves a weight θ by a Riemannian gradient flow ``dθ = -G(θ) ∇f dt``. Its inverse metric ``G`` acts entry
by entry and is therefore the inverse second derivative of a convex potential ``R``:

=================  ====================  ======================================  ===============================
geometry           inverse metric G      mirror map R'                           potential R
=================  ====================  ======================================  ===============================
`Euclidean`        1                     θ                                       θ² / 2
`Product` (gap γ)  √(4θ² + γ²)           arcsinh(2θ / γ) / 2                     θ R' - (√(4θ² + γ²) - γ) / 4
`Ham` (α)          1 + α |θ|             sign(θ) log(1 + α |θ|) / α              ((1 + α|θ|) log(1 + α|θ|) - α|θ|) / α²
=================  ====================  ======================================  ===============================

Hence ``dR'(θ) = -∇f dt``: a flow over a linear model moves R'(θ) within the span of its inputs. Among all weights that
fit the data, it ends at those nearest to its start in the Bregman divergence of R.

``R(θ) / R(1)`` interpolates between θ² and |θ|: that of `Ham` from α → 0 to α → ∞ (with corrections of order
1 / log α), that of `Product` from γ → ∞ to γ → 0. At θ = 0, G is 1 for `Ham` with any α, and γ for `Product`.

Sources: the product's potential and inverse metric are those of Woodworth et al., COLT 2020, and of Jacobs & Burkholz,
ICLR 2025 (arXiv 2408.09966), here for γ = m² - w²; the flow of HAM is that of Jacobs, Gadhikar, Rubio-Madrigal,
Burkholz, ICLR 2026 (arXiv 2506.02630), derived here from `hyperbolic_step_`. The docstrings derive what follows from
a flow.

All functions take real tensors of any shape, act entry by entry (the potential of a tensor is the sum over its
entries), and compute bfloat16 and float16 in float32. They are accurate to some units of rounding, also near zero, for
α = 0, and for nearly equal arguments. Constants are numbers or tensors that broadcast against θ.
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
    """Make a method compute bfloat16 and float16 in float32 and round its result once, to the type of ``theta``."""

    @wraps(function)
    def computed(self: Geometry, theta: Tensor, *others: Tensor) -> Tensor:
        dtype = torch.promote_types(theta.dtype, torch.float32)
        return function(self, theta.to(dtype), *(other.to(dtype) for other in others)).to(theta.dtype)

    return computed


class Geometry(ABC):
    """An inverse metric that acts entry by entry, with its potential, maps and flow."""

    @abstractmethod
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """Return G(θ), the factor that multiplies gradients."""

    @abstractmethod
    def potential(self, theta: Tensor) -> Tensor:
        """Return the mirror potential R(θ), which is convex with R(0) = R'(0) = 0 and R'' = 1 / G."""

    @abstractmethod
    def mirror_map(self, theta: Tensor) -> Tensor:
        """Return R'(θ), the coordinates in which the flow follows the plain gradient."""

    @abstractmethod
    def inverse_map(self, dual: Tensor) -> Tensor:
        """Return the θ whose `mirror_map` is ``dual``."""

    @abstractmethod
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """Return R(θ) - R(start) - R'(start) (θ - start), which is positive except at θ = start, where it is 0."""

    def metric(self, theta: Tensor) -> Tensor:
        """Return 1 / G(θ), the second derivative of the potential."""
        return 1 / self.inverse_metric(theta)

    def normalised_potential(self, theta: Tensor) -> Tensor:
        """Return R(θ) / R(1), which can be compared between geometries; it lies between θ² and |θ|."""
        return self.potential(theta) / self.potential(torch.ones_like(theta))

    def flow(self, theta: Tensor, grad: Tensor, beta: Scalar = 0.0) -> Tensor:
        """Return the right-hand side of the flow, ``dθ/dt = -G(θ) ∇f - β θ``.

        Args:
            theta: The weights θ.
            grad: The gradient ∇f at θ.
            beta: Decay per unit of time (for the product, twice the weight decay of its factors).
        """
        return -self.inverse_metric(theta) * grad - beta * theta

    def mirror_step(self, theta: Tensor, grad: Tensor, lr: Scalar) -> Tensor:
        """Take a step of mirror descent, ``R'(θ) <- R'(θ) - lr ∇f``.

        This is the flow at β = 0 over a time ``lr`` in which the gradient is held fixed.
        """
        return self.inverse_map(self.mirror_map(theta) - lr * grad)


@dataclass(frozen=True)
class Euclidean(Geometry):
    """Gradient descent: G = 1."""

    def inverse_metric(self, theta: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(theta)

    def potential(self, theta: Tensor) -> Tensor:
        """Return θ² / 2."""
        return theta.square() / 2

    def mirror_map(self, theta: Tensor) -> Tensor:
        """Return θ."""
        return theta.clone()

    def inverse_map(self, dual: Tensor) -> Tensor:
        """Return ``dual``, which is θ."""
        return dual.clone()

    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """Return (θ - start)² / 2."""
        return (theta - start).square() / 2

    def step(self, theta: Tensor, grad: Tensor, lr: Scalar, beta: Scalar = 0.0) -> Tensor:
        """Take a step of SGD with weight decay β, ``θ - lr (∇f + β θ)``."""
        return theta - lr * (grad + beta * theta)


@dataclass(frozen=True, eq=False)
class Ham(Geometry):
    """HAM around gradient descent: G = 1 + α |θ|.

    A step with rate η computes ``h = θ - η g`` and then ``h exp(-η (α sign(h) g + β))``. Up to terms of order η² this
    is ``θ - η ((1 + α |θ|) g + β θ)``, a step along the flow.

    Attributes:
        alpha: α, at least 0; 0 is gradient descent.

    Raises:
        ValueError: if α is negative, since G is then negative at large weights and has no convex potential.
    """

    alpha: Scalar

    def __post_init__(self) -> None:
        _at_least_zero("alpha", self.alpha)

    @_wide
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """Return 1 + α |θ|."""
        return 1 + _like(self.alpha, theta) * theta.abs()

    @_wide
    def potential(self, theta: Tensor) -> Tensor:
        """Return ((1 + α|θ|) log(1 + α|θ|) - α|θ|) / α²."""
        return theta.square() * entropy(_like(self.alpha, theta) * theta.abs())

    @_wide
    def mirror_map(self, theta: Tensor) -> Tensor:
        """Return sign(θ) log(1 + α|θ|) / α."""
        return theta * over_argument(torch.log1p, _like(self.alpha, theta) * theta.abs())

    @_wide
    def inverse_map(self, dual: Tensor) -> Tensor:
        """Return sign(z) (exp(α|z|) - 1) / α for z = ``dual``."""
        return dual * over_argument(torch.expm1, _like(self.alpha, dual) * dual.abs())

    @_wide
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """Return the Bregman divergence.

        For equal signs, with ``u = α (|θ| - |start|) / G(start)``, it is ``G(start) ((1 + u) log(1 + u) - u) / α²``.
        For different signs it is the divergence of 0 from ``start``, plus R(θ), plus |θ R'(start)|, none negative.
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
        """Take a step of ``HAM(SGD)``, the gradient step and then `hyperbolic_step_`; not differentiable.

        Args:
            theta: The weights.
            grad: Their gradient.
            lr: Learning rate; in this method it, ``beta`` and α are numbers or tensors of one element.
            beta: HAM's decay.
            sign: Take the sign of a weight "after" or "before" the gradient step, as `ham.HAM` does.
        """
        moved = theta - lr * grad
        signs = [theta.sign()] if sign == "before" else None
        hyperbolic_step_([moved], [grad], lr=lr, alpha=self.alpha, beta=beta, signs=signs)
        return moved


@dataclass(frozen=True, eq=False)
class Product(Geometry):
    """Gradient descent on the factors of θ = m w: G = m² + w² = √(4θ² + γ²) with the gap γ = m² - w².

    ``dm = -(g w + λ m) dt`` and ``dw = -(g m + λ w) dt`` give ``dθ = -((m² + w²) g + 2λ θ) dt``, so β = 2λ, and
    ``dγ = -2λ γ dt``: without weight decay λ the gap is invariant, with it G changes as the gap does.

    Attributes:
        gap: γ, at least 0 (its sign would only say which factor is which). At γ = 0, the balanced pair, G is 2 |θ| and
            a weight of zero never moves; potential and maps need γ > 0.

    Raises:
        ValueError: if γ is negative.
    """

    gap: Scalar

    def __post_init__(self) -> None:
        _at_least_zero("gap", self.gap)

    @_wide
    def inverse_metric(self, theta: Tensor) -> Tensor:
        """Return √(4θ² + γ²)."""
        return torch.hypot(2 * theta, _like(self.gap, theta).expand_as(theta))

    @_wide
    def potential(self, theta: Tensor) -> Tensor:
        """Return θ arcsinh(2θ/γ) / 2 - (√(4θ² + γ²) - γ) / 4."""
        return theta * self.mirror_map(theta) - theta.square() / (self.inverse_metric(theta) + _like(self.gap, theta))

    @_wide
    def mirror_map(self, theta: Tensor) -> Tensor:
        """Return arcsinh(2θ/γ) / 2."""
        return torch.asinh(2 * theta / _like(self.gap, theta)) / 2

    @_wide
    def inverse_map(self, dual: Tensor) -> Tensor:
        """Return γ sinh(2z) / 2 for z = ``dual``."""
        return _like(self.gap, dual) * torch.sinh(2 * dual) / 2

    @_wide
    def bregman(self, theta: Tensor, start: Tensor) -> Tensor:
        """Return the Bregman divergence.

        With ``a = 2θ/γ``, ``b = 2 start/γ`` and ``d = arcsinh(a) - arcsinh(b)`` it is
        ``γ (a d - √(1 + a²) + √(1 + b²)) / 4``. Where d is small, the equal form
        ``γ (√(1 + a²) (cosh d - 1) - a (sinh d - d)) / 4`` avoids differences of nearly equal numbers.
        """
        gap = _like(self.gap, theta)
        a, b, difference = 2 * theta / gap, 2 * start / gap, 2 * (theta - start) / gap
        root_a, root_b = torch.hypot(a, torch.ones_like(a)), torch.hypot(b, torch.ones_like(b))
        same = a * b > 0
        # sinh(d) = a √(1 + b²) - b √(1 + a²); for equal signs this cancels, so it is expanded by its conjugate
        conjugate = torch.where(same, difference * (a + b) / torch.where(same, a * root_b + b * root_a, 1.0), 0.0)
        d = torch.asinh(torch.where(same, conjugate, a * root_b - b * root_a))
        near = root_a * 2 * torch.sinh(d / 2).square() - a * sinh_rest(d.clamp(-1, 1))
        far = a * d - difference * (a + b) / (root_a + root_b)
        return gap * torch.where(d.abs() < 1, near, far) / 4

    def step(self, theta: Tensor, grad: Tensor, lr: Scalar, beta: Scalar = 0.0) -> Tensor:
        """Return the product after a step of SGD on both factors with weight decay λ = β / 2.

        It is ``θ - lr (G g + 2λ θ) + lr² (g w + λ m) (g m + λ w)``; the gap becomes ``γ ((1 - lr λ)² - lr² g²)``.
        """
        metric, decay = self.inverse_metric(theta), beta / 2
        second = (grad.square() + decay * decay) * theta + decay * grad * metric
        return theta - lr * (metric * grad + beta * theta) + lr * lr * second


def _like(value: Scalar, tensor: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


def _at_least_zero(name: str, value: Scalar) -> None:
    if not bool((torch.as_tensor(value) >= 0).all()):
        raise ValueError(f"{name}: {value!r} is out of range; it must be at least 0")
