"""The multiplicative step and the norm bound as functions."""

import math
import subprocess
import sys

import pytest
import torch
from ham_helpers import NoHostSync

from ham import bound_norms_, hyperbolic_step_

INF, NAN = math.inf, math.nan
FORMS = pytest.mark.parametrize("foreach", [False, True])


def column(*values, dtype=torch.float64):
    return torch.tensor([values], dtype=dtype).T.contiguous()


def many(dtype=torch.float32):
    """Tensors of several shapes and layouts, with exact zeros, and gradients that reach both ends of the clamp."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(8, 4, 3, 3), (10, 7), (1, 1), (0, 3), (5, 33)]
    weights = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    grads = [
        (torch.randn(s, generator=generator) * 10 ** torch.randn(s, generator=generator)).to(dtype) for s in shapes
    ]
    weights[0] = weights[0].to(memory_format=torch.channels_last)
    weights[1][::2, 1] = 0
    return weights, grads


@FORMS
def test_hand_computed_values(foreach):
    # lr (-alpha sign(w) g - beta) = 0.1 (-2 sign(w) g - 0.5)
    weight, grad = column(1.0, -2.0, 3.0, 0.0, -4.0), column(1.0, 1.0, 0.0, 5.0, 100.0)
    hyperbolic_step_([weight], [grad], lr=0.1, alpha=2.0, beta=0.5, foreach=foreach)
    expected = [math.exp(-0.25), -2 * math.exp(0.15), 3 * math.exp(-0.05), 0.0, -4 * math.exp(5)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)
    assert grad.flatten().tolist() == [1.0, 1.0, 0.0, 5.0, 100.0]


@FORMS
def test_negative_alpha_turns_the_sensitivity_round(foreach):
    weight = column(1.0, -2.0)
    hyperbolic_step_([weight], [column(1.0, 1.0)], lr=0.1, alpha=-2.0, beta=0.5, foreach=foreach)
    assert weight.flatten().tolist() == pytest.approx([math.exp(0.15), -2 * math.exp(-0.25)], rel=1e-14)


@FORMS
def test_given_signs_replace_the_present_ones_and_stay_unchanged(foreach):
    weight, signs = column(2.0, 2.0, 2.0), column(1.0, -1.0, 0.0)
    hyperbolic_step_([weight], [column(1.0, 1.0, 1.0)], lr=0.1, alpha=2.0, beta=0.5, signs=[signs], foreach=foreach)
    expected = [2 * math.exp(-0.25), 2 * math.exp(0.15), 2 * math.exp(-0.05)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)
    assert signs.flatten().tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [False, True])
def test_foreach_equals_single_bit_for_bit(dtype, given):
    results = []
    for foreach in (False, True):
        weights, grads = many(dtype)
        weights.append(torch.full((2, 2), 0.5, dtype=torch.float64))  # a second type in the list
        grads.append(torch.ones(2, 2, dtype=torch.float64))
        signs = [torch.sign(grad) for grad in grads] if given else None
        hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=1e-2, signs=signs, foreach=foreach)
        results.append(weights)
    start, _ = many(dtype)
    for single, listed, before in zip(results[0], results[1], [*start, torch.zeros(2, 2)], strict=True):
        assert torch.equal(single, listed)
        assert single.numel() == 0 or not torch.equal(single, before)
        assert single.stride() == listed.stride()


@FORMS
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64), torch.tensor([0.1])])
def test_rate_may_be_a_tensor(foreach, lr):
    expected, grads = many(torch.float64)
    hyperbolic_step_(expected, grads, lr=0.1, alpha=20.0, beta=1e-2)
    weights, _ = many(torch.float64)
    hyperbolic_step_(weights, grads, lr=lr, alpha=20.0, beta=1e-2, foreach=foreach)
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=0)
        assert weight.dtype == torch.float64


@FORMS
def test_non_finite_gradients_neither_move_zeros_nor_make_a_nan(foreach):
    weight = column(0.0, 0.0, 0.0, -0.0, 2.0, -2.0, 2.0, 3.0)
    grad = column(NAN, INF, -INF, INF, NAN, INF, INF, 0.0)
    hyperbolic_step_([weight], [grad], lr=0.1, alpha=2.0, beta=0.5, foreach=foreach)
    expected = [0.0, 0.0, 0.0, 0.0, 2.0, -2 * math.exp(5), 2 * math.exp(-5), 3 * math.exp(-0.05)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)


@FORMS
def test_a_nan_weight_stays_alone(foreach):
    weights = [column(NAN, 1.0), column(1.0, 1.0)]
    hyperbolic_step_(weights, [column(1.0, 1.0)] * 2, lr=0.1, alpha=2.0, beta=0.5, foreach=foreach)
    flat = torch.cat(weights).flatten()
    assert flat.isnan().tolist() == [True, False, False, False]
    assert flat[1:].tolist() == pytest.approx([math.exp(-0.25)] * 3, rel=1e-14)


@FORMS
def test_without_strength_nothing_moves_not_even_infinity(foreach):
    weight = column(INF, -INF, 1.5, -0.0)
    hyperbolic_step_([weight], [column(1.0, INF, NAN, 1.0)], lr=0.1, alpha=0.0, beta=0.0, foreach=foreach)
    assert weight.flatten().tolist() == [INF, -INF, 1.5, 0.0]
    assert weight.signbit().flatten().tolist() == [False, True, False, True]


@FORMS
def test_small_decay_does_not_drift_in_float32(foreach):
    weight, grad = torch.linspace(0.5, 1.0, 64).view(8, 8), torch.zeros(8, 8)
    start = weight.double()
    for _ in range(1000):
        hyperbolic_step_([weight], [grad], lr=0.1, alpha=200.0, beta=1e-3, foreach=foreach)
    drift = (weight.double() / (start * math.exp(-0.1)) - 1).abs().max().item()
    assert drift < 4e-6  # multiplying by exp(-1e-4) in float32 ends 2e-5 off


@FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype, foreach):
    weights, grads = many(dtype)
    expected = [weight.float() for weight in weights]
    hyperbolic_step_(expected, [grad.float() for grad in grads], lr=0.1, alpha=2.0, beta=1e-2)
    hyperbolic_step_(weights, grads, lr=0.1, alpha=2.0, beta=1e-2, foreach=foreach)
    for weight, wide in zip(weights, expected, strict=True):
        assert weight.dtype == dtype
        assert torch.equal(weight, wide.to(dtype))


@FORMS
def test_no_wait_for_the_device(foreach):
    weights, grads = many()
    lr, alpha, beta = torch.tensor(0.1), torch.tensor(20.0), torch.tensor(0.01)
    with NoHostSync():
        hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=0.01, foreach=foreach)
        hyperbolic_step_(weights, grads, lr=lr, alpha=alpha, beta=beta, foreach=foreach)
        bound_norms_(weights, 1.0)
    with NoHostSync(), pytest.raises(AssertionError, match="waits for the device"):
        weights[0].isnan().any().item()
    with NoHostSync(), pytest.raises(AssertionError, match="waits for the device"):
        weights[1][weights[1] != 0] *= 2


def test_parameters_that_require_gradients_are_moved_outside_autograd():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    hyperbolic_step_([weight], [torch.ones(2, 2)], lr=0.1, alpha=1.0, beta=0.0)
    bound_norms_([weight], 1.0)
    assert weight.is_leaf
    assert weight.grad_fn is None
    assert torch.linalg.vector_norm(weight.detach()).item() == pytest.approx(1.0)


def test_nothing_to_do():
    hyperbolic_step_([], [], lr=0.1, alpha=1.0, beta=1.0, foreach=True)
    hyperbolic_step_([], [], lr=0.1, alpha=1.0, beta=1.0, foreach=None)
    bound_norms_([], 1.0)


def test_norm_bound_scales_what_is_larger_and_leaves_the_rest_bit_equal():
    generator = torch.Generator().manual_seed(0)
    small, vector = torch.randn(7, 5, generator=generator), torch.full((4,), -600.0)
    matrix, double = torch.full((2, 2), 3000.0), torch.full((3, 3), 1e6, dtype=torch.float64)
    at_bound, empty = torch.tensor([600.0, 800.0]), torch.empty(0, 3)
    infinite, missing = torch.tensor([INF, 1e9]), torch.tensor([NAN, 1e9])
    overflowing, zero = torch.tensor([1e30, 1e30]), torch.zeros(3)
    copy = small.clone()
    bound_norms_([small, vector, matrix, double, at_bound, empty, infinite, missing, overflowing, zero], 1000.0)
    assert torch.equal(small, copy)
    assert vector.tolist() == pytest.approx([-500.0] * 4)
    assert matrix.flatten().tolist() == pytest.approx([500.0] * 4)
    assert double.flatten().tolist() == pytest.approx([1000 / 3] * 9, rel=1e-14)
    assert at_bound.tolist() == [600.0, 800.0]
    assert infinite.tolist() == [INF, pytest.approx(1e9)]
    assert missing[1].item() == pytest.approx(1e9)
    assert overflowing.tolist() == pytest.approx([1e30, 1e30])  # the norm is not finite in float32
    assert zero.tolist() == [0.0] * 3


def test_norm_bound_in_half_precision():
    # the sum of squares overflows float16, and 1/norm underflows it
    tensor = torch.full((100,), 300.0, dtype=torch.float16)
    bound_norms_([tensor], 1000.0)
    assert tensor.dtype == torch.float16
    assert tensor.tolist() == [100.0] * 100


def test_the_package_imports_torch_and_nothing_else_of_the_suite():
    code = (
        "import sys; before = set(sys.modules); import ham; roots = {m.split('.')[0] for m in sys.modules}; "
        "print(sorted(roots & {'torch', 'ham', 'experiments', 'sparsity', 'results', 'pandas', 'timm', 'torchvision'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['ham', 'torch']"
