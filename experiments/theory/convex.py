"""Convex programs for the solution of underdetermined linear equations nearest to a start, by SciPy without torch.

The Bregman projection of θ₀ on {θ: A θ = y} under a potential R has R'(θ) = R'(θ₀) + Aᵀν. So θ = R*'(R'(θ₀) + Aᵀν) with
the convex conjugate R*, and ν minimises the convex function Σ R*(R'(θ₀) + Aᵀν) − yᵀν, whose gradient is A θ − y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy import optimize

Array = np.ndarray


class Dual(ABC):
    """A potential R, given by its mirror map R' and its convex conjugate R*; both act elementwise."""

    @abstractmethod
    def mirror(self, theta: Array) -> Array:
        """Return R'(θ)."""

    @abstractmethod
    def conjugate(self, z: Array) -> tuple[Array, Array, Array]:
        """Return R*(z), its first and its second derivative; the first derivative is the θ with R'(θ) = z."""


@dataclass(frozen=True)
class OfHam(Dual):
    """HAM's potential, with R'(θ) = sign(θ) log(1 + α|θ|) / α."""

    alpha: float

    def mirror(self, theta: Array) -> Array:
        """Return R'(θ)."""
        return np.sign(theta) * np.log1p(self.alpha * abs(theta)) / self.alpha

    def conjugate(self, z: Array) -> tuple[Array, Array, Array]:
        """Return R*(z) = (exp(α|z|) − 1 − α|z|) / α² and its derivatives."""
        size = self.alpha * abs(z)
        grown = np.expm1(size)
        return (grown - size) / self.alpha**2, np.sign(z) * grown / self.alpha, grown + 1


@dataclass(frozen=True)
class OfProduct(Dual):
    """The potential of m ⊙ w at the invariant γ = m² − w² > 0, with R'(θ) = arcsinh(2θ/γ) / 2."""

    gap: float

    def mirror(self, theta: Array) -> Array:
        """Return R'(θ)."""
        return np.arcsinh(2 * theta / self.gap) / 2

    def conjugate(self, z: Array) -> tuple[Array, Array, Array]:
        """Return R*(z) = γ (cosh(2z) − 1) / 4 and its derivatives."""
        return self.gap * np.sinh(z) ** 2 / 2, self.gap * np.sinh(2 * z) / 2, self.gap * np.cosh(2 * z)


def bregman(matrix: Array, targets: Array, start: Array, dual: Dual, precision: float = 1e-7) -> Array:
    """Compute the Bregman projection of ``start`` on the set of θ with ``matrix @ θ = targets``.

    The method is a trust-region Newton method on the dual problem.

    Args:
        matrix: A, shape (equations, weights), of full rank.
        targets: y, shape (equations,).
        start: θ₀, shape (weights,).
        dual: The potential.
        precision: Largest allowed residual of an equation.

    Raises:
        ArithmeticError: if the solution does not reach this precision.
    """
    origin = dual.mirror(start)

    def conjugate(nu: Array) -> tuple[Array, Array, Array]:
        with np.errstate(over="ignore"):  # the solver rejects a step that is too long
            return dual.conjugate(origin + nu @ matrix)

    found = optimize.minimize(
        lambda nu: conjugate(nu)[0].sum() - targets @ nu,
        np.zeros_like(targets),
        jac=lambda nu: matrix @ conjugate(nu)[1] - targets,
        hess=lambda nu: matrix * conjugate(nu)[2] @ matrix.T,
        method="trust-exact",
        # in the dual coordinates, weights of size one have size R'(1)
        options={"initial_trust_radius": float(dual.mirror(np.ones(1))[0]), "gtol": precision / 10, "maxiter": 1000},
    )
    theta = conjugate(found.x)[1]
    if not abs(matrix @ theta - targets).max() <= precision:
        raise ArithmeticError(f"no projection under {dual}: {found.message}")
    return theta


def least_squares(matrix: Array, targets: Array, start: Array) -> Array:
    """Compute the solution at the smallest Euclidean distance from ``start``; arguments as for `bregman`."""
    return start + np.linalg.lstsq(matrix, targets - matrix @ start)[0]


def least_absolute(matrix: Array, targets: Array) -> Array:
    """Compute a solution of the smallest L1 norm, by linear programming; arguments as for `bregman`."""
    signed = np.hstack([matrix, -matrix])
    found = optimize.linprog(np.ones(signed.shape[1]), A_eq=signed, b_eq=targets, bounds=(0, None), method="highs")
    positive, negative = np.split(found.x, 2)
    return positive - negative
