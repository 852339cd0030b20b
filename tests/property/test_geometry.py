"""`ham.geometry` against 120-digit arithmetic, autograd, and what convex analysis says of mirror maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import sparsity
from ham import HAM
from ham.geometry import Euclidean, Geometry, Ham, Product

mp = mpmath.MPContext()  # of its own, since precision is global
mp.dps = 120
mpf = mp.mpf
CONSTANTS = st.floats(1e-6, 1e6)
SIZES = st.floats(1e-12, 1e4)
SIGNED = st.one_of(SIZES, SIZES.map(lambda x: -x))
WEIGHTS = st.one_of(st.just(0.0), SIGNED)
GEOMETRIES = st.one_of(
    st.just(Euclidean()), st.just(Ham(0.0)), st.builds(Ham, CONSTANTS), st.builds(Product, CONSTANTS)
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- the formulas, in numbers of 120 digits --------------------------------------------------------------------------


def metric_of(geometry: Geometry, x: Any) -> Any:
    if isinstance(geometry, Ham):
        return 1 + mpf(geometry.alpha) * abs(x)
    return mp.sqrt(4 * x * x + mpf(geometry.gap) ** 2) if isinstance(geometry, Product) else mpf(1)


def map_of(geometry: Geometry, x: Any) -> Any:
    if isinstance(geometry, Ham) and geometry.alpha:
        return mp.sign(x) * mp.log(1 + mpf(geometry.alpha) * abs(x)) / mpf(geometry.alpha)
    return mp.asinh(2 * x / mpf(geometry.gap)) / 2 if isinstance(geometry, Product) else x


def potential_of(geometry: Geometry, x: Any) -> Any:
    if isinstance(geometry, Ham) and geometry.alpha:
        alpha = mpf(geometry.alpha)
        a = 1 + alpha * abs(x)
        return (a * mp.log(a) - a + 1) / alpha**2
    if isinstance(geometry, Product):
        gap = mpf(geometry.gap)
        return x * mp.asinh(2 * x / gap) / 2 - (mp.sqrt(4 * x * x + gap * gap) - gap) / 4
    return x * x / 2


def bregman_of(geometry: Geometry, x: Any, y: Any) -> Any:
    return potential_of(geometry, x) - potential_of(geometry, y) - map_of(geometry, y) * (x - y)


def near(value: Tensor, exact: Any, tolerance: float = 3e-14) -> bool:
    return abs(mpf(value.item()) - exact) <= tolerance * abs(exact)


@given(GEOMETRIES, WEIGHTS)
def test_values_are_those_of_the_formulas(geometry: Geometry, x: float) -> None:
    theta, exact = tensor(x), mpf(x)
    assert near(geometry.inverse_metric(theta), metric_of(geometry, exact))
    assert near(geometry.metric(theta), 1 / metric_of(geometry, exact))
    assert near(geometry.mirror_map(theta), map_of(geometry, exact))
    assert near(geometry.potential(theta), potential_of(geometry, exact))
    assert near(
        geometry.normalised_potential(theta), potential_of(geometry, exact) / potential_of(geometry, mpf(1)), 1e-13
    )


@given(GEOMETRIES, WEIGHTS, WEIGHTS)
def test_the_bregman_divergence_is_accurate_where_its_terms_cancel(geometry: Geometry, x: float, y: float) -> None:
    for other in (y, x * (1 + 1e-9), x + 1e-3 * abs(y), -x):
        assert near(geometry.bregman(tensor(x), tensor(other)), bregman_of(geometry, mpf(x), mpf(other)))


@given(GEOMETRIES, SIGNED)
def test_the_divergence_tells_neighbouring_numbers_apart(geometry: Geometry, x: float) -> None:
    theta = tensor(x)
    for other in (torch.nextafter(theta, theta + 1), torch.nextafter(theta, theta - 1)):
        assert geometry.bregman(theta, other).item() > 0
        assert near(geometry.bregman(theta, other), bregman_of(geometry, mpf(x), mpf(other.item())))
    assert geometry.bregman(theta, theta).item() == 0


# ---- convexity and duality ------------------------------------------------------------------------------------------


@given(GEOMETRIES, WEIGHTS, WEIGHTS)
def test_the_divergence_is_not_negative_and_zero_for_equals_alone(geometry: Geometry, x: float, y: float) -> None:
    divergence = geometry.bregman(tensor(x), tensor(y)).item()
    assert divergence >= 0
    assert (divergence == 0) == (x == y)


@given(GEOMETRIES, SIGNED, SIGNED, st.floats(0.05, 0.95))
def test_the_potential_is_convex(geometry: Geometry, x: float, y: float, share: float) -> None:
    between = geometry.potential(tensor(share * x + (1 - share) * y)).item()
    chord = share * geometry.potential(tensor(x)).item() + (1 - share) * geometry.potential(tensor(y)).item()
    assert between <= chord * (1 + 1e-12)
    assert geometry.potential(tensor(0.0)).item() == 0


@given(GEOMETRIES, WEIGHTS)
def test_maps_are_derivatives(geometry: Geometry, x: float) -> None:
    """R' is the derivative of R, and the metric that of R'."""
    theta = tensor(x).requires_grad_()
    (first,) = torch.autograd.grad(geometry.potential(theta).sum(), theta)
    torch.testing.assert_close(first, geometry.mirror_map(theta).detach(), rtol=1e-11, atol=0)
    if x:  # |θ| has no derivative at 0, and autograd takes 0 for it
        (second,) = torch.autograd.grad(geometry.mirror_map(theta).sum(), theta)
        torch.testing.assert_close(second, geometry.metric(theta).detach(), rtol=1e-11, atol=0)


@given(GEOMETRIES, WEIGHTS)
def test_the_inverse_map_is_one_both_ways(geometry: Geometry, x: float) -> None:
    theta = tensor(x)
    dual = geometry.mirror_map(theta)
    torch.testing.assert_close(geometry.inverse_map(dual), theta, rtol=1e-13, atol=0)
    bounded = dual.clamp(-20, 20) if isinstance(geometry, Euclidean) else dual
    torch.testing.assert_close(geometry.mirror_map(geometry.inverse_map(bounded)), bounded, rtol=1e-13, atol=0)


@given(GEOMETRIES, st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_three_points(geometry: Geometry, points: list[float]) -> None:
    """D(a, c) = D(a, b) + D(b, c) + (R'(b) - R'(c)) (a - b): what makes the end of a flow a projection."""
    a, b, c = map(tensor, points)
    left = geometry.bregman(a, c)
    parts = (geometry.bregman(a, b), geometry.bregman(b, c))
    cross = (geometry.mirror_map(b) - geometry.mirror_map(c)) * (a - b)
    size = left + sum(parts) + cross.abs()
    assert abs(left - sum(parts) - cross) <= 1e-12 * size + 1e-300


# ---- limits, and the three side by side -----------------------------------------------------------------------------


@given(SIGNED)
def test_at_zero_alpha_ham_is_gradient_descent(x: float) -> None:
    theta, plain = tensor(x), Euclidean()
    for alpha in (0.0, 1e-300, torch.zeros(1)):
        ham = Ham(alpha)
        for name in ("inverse_metric", "mirror_map", "inverse_map", "potential", "normalised_potential"):
            torch.testing.assert_close(getattr(ham, name)(theta), getattr(plain, name)(theta), rtol=1e-15, atol=0)


@given(st.floats(1e-3, 1e3), st.floats(1e12, 1e100))
def test_for_large_alpha_the_potential_is_the_absolute_value(x: float, alpha: float) -> None:
    """R(θ) / R(1) = |θ| (log(α|θ|) - 1) / (log α - 1) to order 1/α, so |θ| up to |θ| |log |θ|| / (log α - 1)."""
    reached = Ham(alpha).normalised_potential(tensor(-x)).item()
    rest = abs(mp.log(x)) / (mp.log(alpha) - 1)
    assert abs(reached - x) == pytest.approx(float(x * rest), rel=1e-6, abs=x * 1e-7)


@given(st.floats(1e-3, 1e3), st.floats(1e8, 1e100))
def test_the_product_goes_from_squares_to_absolute_values(x: float, scale: float) -> None:
    """For a small gap R(θ) / R(1) = |θ| (log(4|θ|/γ) - 1) / (log(4/γ) - 1) to second order in it."""
    assert Product(scale).normalised_potential(tensor(x)).item() == pytest.approx(x * x, rel=1e-9)
    reached = Product(1 / scale).normalised_potential(tensor(-x)).item()
    rest = float(abs(mp.log(x)) / (mp.log(4 * scale) - 1))
    assert abs(reached - x) == pytest.approx(x * rest, rel=1e-3, abs=x * 1e-6)


@given(CONSTANTS, WEIGHTS)
def test_scales(alpha: float, x: float) -> None:
    """1/α is the unit of weights: R of α at θ is R of 1 at αθ, over α²."""
    scaled = Ham(1.0).potential(tensor(alpha * x)) / alpha**2
    torch.testing.assert_close(Ham(alpha).potential(tensor(x)), scaled, rtol=1e-13, atol=0)


@given(WEIGHTS)
def test_ham_is_never_slower_than_the_product_it_stands_for(x: float) -> None:
    ham, product = Ham(2.0).inverse_metric(tensor(x)).item(), Product(1.0).inverse_metric(tensor(x)).item()
    assert product * (1 - 1e-15) <= ham <= 2**0.5 * product * (1 + 1e-15)
    assert ham >= Product(0.0).inverse_metric(tensor(x)).item() + 1 - 1e-11


# ---- flows and steps ------------------------------------------------------------------------------------------------

MODERATE = st.floats(0.01, 5.0).flatmap(lambda x: st.sampled_from([x, -x]))


@given(GEOMETRIES, MODERATE, st.floats(-1, 1), st.floats(1e-3, 1e-1))
def test_a_mirror_step_moves_the_dual_by_the_gradient(geometry: Geometry, x: float, grad: float, lr: float) -> None:
    moved = geometry.mirror_step(tensor(x), tensor(grad), lr)
    assume(moved.isfinite().item())  # a step away from zero multiplies by exp(lr alpha), which float64 may not hold
    before = geometry.mirror_map(tensor(x))
    difference = geometry.mirror_map(moved) - before
    torch.testing.assert_close(difference, tensor(-lr * grad), rtol=1e-9, atol=1e-12 * (1 + before.abs().item()))


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("geometry", [Euclidean(), Ham(0.0), Ham(3.0), Product(0.5), Product(0.0)], ids=repr)
def test_steps_follow_the_flow(geometry: Euclidean | Ham | Product, beta: float) -> None:
    """A step leaves the flow's tangent with the square of the rate."""
    theta, grad = tensor(-1.5, -0.2, 0.1, 2.0), tensor(0.7, -1.1, 0.4, 0.9)
    off = []
    for lr in (1e-4, 1e-5):
        moved = (geometry.step(theta, grad, lr, beta) - theta) / lr
        off.append((moved - geometry.flow(theta, grad, beta)).abs().max().item())
    assert off[0] < 1e-2
    assert off[1] == pytest.approx(off[0] / 10, rel=0.01, abs=1e-10)  # exact where nothing is of second order


@pytest.mark.parametrize("sign", ["after", "before"])
def test_hams_step_is_the_optimizers(sign: str) -> None:
    theta, grad = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    weight = torch.nn.Parameter(theta.clone())
    weight.grad = grad.clone()
    HAM(torch.optim.SGD([weight], lr=0.3), alpha=2.0, beta=0.1, sign=sign).step()
    torch.testing.assert_close(Ham(2.0).step(theta, grad, 0.3, 0.1, sign), weight.detach(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("gap", [0.0, 0.25, 1.0])
def test_the_products_step_is_that_of_sgd_on_its_factors(gap: float) -> None:
    layer, rate, decay = torch.nn.Linear(4, 3, bias=False).double(), 0.2, 0.05
    theta = layer.weight.detach().clone()
    representation = sparsity.represent(layer, "product", beta=gap)
    optimizer = torch.optim.SGD(representation.param_groups(weight_decay=decay), lr=rate)
    grad = torch.randn(3, 4, dtype=torch.float64)
    (layer.weight * grad).sum().backward()
    optimizer.step()
    torch.testing.assert_close(Product(gap).step(theta, grad, rate, 2 * decay), layer.weight.detach())


# ---- shapes and types -----------------------------------------------------------------------------------------------

FUNCTIONS: Sequence[Callable[[Geometry, Tensor], Tensor]] = (
    lambda g, x: g.inverse_metric(x),
    lambda g, x: g.metric(x),
    lambda g, x: g.mirror_map(x),
    lambda g, x: g.inverse_map(x),
    lambda g, x: g.potential(x),
    lambda g, x: g.bregman(x, 1 - x),
    lambda g, x: g.flow(x, x, 0.1),
    lambda g, x: g.step(x, x, 0.1, 0.1),
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4)])
def test_any_shape_and_type(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).to(dtype) if shape else torch.tensor(0.3, dtype=dtype)
    for geometry in (Euclidean(), Ham(2.0), Product(0.5), Ham(torch.tensor(2.0)), Product(torch.tensor(0.5))):
        for function in FUNCTIONS:
            found = function(geometry, x)
            assert (found.shape, found.dtype) == (x.shape, dtype)
            exact = function(geometry, x.double())
            torch.testing.assert_close(
                found.double(), exact, rtol=8 * torch.finfo(dtype).eps, atol=1e-30 + 8 * torch.finfo(dtype).eps
            )


def test_constants_broadcast() -> None:
    alphas = torch.tensor([[0.0], [1.0], [100.0]], dtype=torch.float64)
    theta = torch.randn(3, 4, dtype=torch.float64)
    for row, alpha in zip(Ham(alphas).potential(theta), (0.0, 1.0, 100.0), strict=True):
        torch.testing.assert_close(row, Ham(alpha).potential(theta)[(0.0, 1.0, 100.0).index(alpha)])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha: -1.0 is out of range; it must be at least 0"):
        Ham(-1.0)
    with pytest.raises(ValueError, match="gap: .* is out of range"):
        Product(torch.tensor([1.0, -1.0]))


def test_the_reference_is_right() -> None:
    """The formulas above against numerical differentiation."""
    for geometry in (Ham(3.0), Product(0.5)):
        for x in (mpf("0.7"), mpf("-1.3")):
            first = mp.diff(lambda v, g=geometry: potential_of(g, v), x)
            second = mp.diff(lambda v, g=geometry: map_of(g, v), x)
            assert mp.almosteq(first, map_of(geometry, x), 1e-15)
            assert mp.almosteq(second, 1 / metric_of(geometry, x), 1e-15)
