"""The multiplicative step and the norm bound as functions."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch._dynamo.utils
import torch._inductor.config
import torch._inductor.utils
from ham_helpers import NoHostSync, make_model, make_optimizer, train
from ham_helpers import weights as flattened

from ham import bound_norms_, hyperbolic_step_, rule

INF, NAN = math.inf, math.nan
# torch compiles a kernel once per process: all tests of the compiled form are in this file
FORMS = pytest.mark.parametrize("form", ["single", "foreach", "compiled"])


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
def test_hand_computed_values(form):
    # lr (-alpha sign(w) g - beta) = 0.1 (-2 sign(w) g - 0.5)
    weight, grad = column(1.0, -2.0, 3.0, 0.0, -4.0), column(1.0, 1.0, 0.0, 5.0, 100.0)
    hyperbolic_step_([weight], [grad], lr=0.1, alpha=2.0, beta=0.5, form=form)
    expected = [math.exp(-0.25), -2 * math.exp(0.15), 3 * math.exp(-0.05), 0.0, -4 * math.exp(5)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)
    assert grad.flatten().tolist() == [1.0, 1.0, 0.0, 5.0, 100.0]


@FORMS
def test_negative_alpha_turns_the_sensitivity_round(form):
    weight = column(1.0, -2.0)
    hyperbolic_step_([weight], [column(1.0, 1.0)], lr=0.1, alpha=-2.0, beta=0.5, form=form)
    assert weight.flatten().tolist() == pytest.approx([math.exp(0.15), -2 * math.exp(-0.25)], rel=1e-14)


@FORMS
def test_given_signs_replace_the_present_ones_and_stay_unchanged(form):
    weight, signs = column(2.0, 2.0, 2.0), column(1.0, -1.0, 0.0)
    hyperbolic_step_([weight], [column(1.0, 1.0, 1.0)], lr=0.1, alpha=2.0, beta=0.5, signs=[signs], form=form)
    expected = [2 * math.exp(-0.25), 2 * math.exp(0.15), 2 * math.exp(-0.05)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)
    assert signs.flatten().tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [False, True])
def test_foreach_equals_single_bit_for_bit(dtype, given):
    results = []
    for form in ("single", "foreach"):
        weights, grads = many(dtype)
        weights.append(torch.full((2, 2), 0.5, dtype=torch.float64))  # a second type in the list
        grads.append(torch.ones(2, 2, dtype=torch.float64))
        signs = [torch.sign(grad) for grad in grads] if given else None
        hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=1e-2, signs=signs, form=form)
        results.append(weights)
    start, _ = many(dtype)
    for single, listed, before in zip(results[0], results[1], [*start, torch.zeros(2, 2)], strict=True):
        assert torch.equal(single, listed)
        assert single.numel() == 0 or not torch.equal(single, before)
        assert single.stride() == listed.stride()


@FORMS
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64), torch.tensor([0.1])])
def test_rate_may_be_a_tensor(form, lr):
    expected, grads = many(torch.float64)
    hyperbolic_step_(expected, grads, lr=0.1, alpha=20.0, beta=1e-2)
    weights, _ = many(torch.float64)
    hyperbolic_step_(weights, grads, lr=lr, alpha=20.0, beta=1e-2, form=form)
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=0)
        assert weight.dtype == torch.float64


@FORMS
@pytest.mark.parametrize("kind", [float, torch.tensor, "both"])
def test_alpha_may_differ_from_weight_to_weight(form, kind):
    expected, grads = many(torch.float64)
    numbers = [20.0, -3.0, 0.5, 1.0, 0.0]
    for weight, grad, number in zip(expected, grads, numbers, strict=True):
        hyperbolic_step_([weight], [grad], lr=0.1, alpha=number, beta=1e-2)
    weights, _ = many(torch.float64)
    alphas = [(torch.tensor if i % 2 else float)(n) if kind == "both" else kind(n) for i, n in enumerate(numbers)]
    hyperbolic_step_(weights, grads, lr=0.1, alpha=alphas, beta=1e-2, form=form)
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="zip"):
        hyperbolic_step_(weights, grads, lr=0.1, alpha=alphas[1:], beta=1e-2, form=form)


@FORMS
def test_a_weight_whose_own_strengths_are_zero_stays_as_it_is(form):
    weights = [column(INF, 1.5), column(1.0, 1.0)]
    grads = [column(1.0, INF), column(1.0, 1.0)]
    hyperbolic_step_(weights, grads, lr=0.1, alpha=[0.0, 2.0], beta=0.0, form=form)
    assert weights[0].flatten().tolist() == [INF, 1.5]
    assert weights[1].flatten().tolist() == pytest.approx([math.exp(-0.2)] * 2, rel=1e-14)


@FORMS
def test_non_finite_gradients_neither_move_zeros_nor_make_a_nan(form):
    weight = column(0.0, 0.0, 0.0, -0.0, 2.0, -2.0, 2.0, 3.0)
    grad = column(NAN, INF, -INF, INF, NAN, INF, INF, 0.0)
    hyperbolic_step_([weight], [grad], lr=0.1, alpha=2.0, beta=0.5, form=form)
    expected = [0.0, 0.0, 0.0, 0.0, 2.0, -2 * math.exp(5), 2 * math.exp(-5), 3 * math.exp(-0.05)]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-14)


@FORMS
def test_a_nan_weight_stays_alone(form):
    weights = [column(NAN, 1.0), column(1.0, 1.0)]
    hyperbolic_step_(weights, [column(1.0, 1.0)] * 2, lr=0.1, alpha=2.0, beta=0.5, form=form)
    flat = torch.cat(weights).flatten()
    assert flat.isnan().tolist() == [True, False, False, False]
    assert flat[1:].tolist() == pytest.approx([math.exp(-0.25)] * 3, rel=1e-14)


@FORMS
def test_without_strength_nothing_moves_not_even_infinity(form):
    weight = column(INF, -INF, 1.5, -0.0)
    hyperbolic_step_([weight], [column(1.0, INF, NAN, 1.0)], lr=0.1, alpha=0.0, beta=0.0, form=form)
    assert weight.flatten().tolist() == [INF, -INF, 1.5, 0.0]
    assert weight.signbit().flatten().tolist() == [False, True, False, True]


@FORMS
def test_small_decay_does_not_drift_in_float32(form):
    weight, grad = torch.linspace(0.5, 1.0, 64).view(8, 8), torch.zeros(8, 8)
    start = weight.double()
    for _ in range(1000):
        hyperbolic_step_([weight], [grad], lr=0.1, alpha=200.0, beta=1e-3, form=form)
    drift = (weight.double() / (start * math.exp(-0.1)) - 1).abs().max().item()
    assert drift < 4e-6  # multiplying by exp(-1e-4) in float32 ends 2e-5 off


@FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype, form):
    weights, grads = many(dtype)
    expected = [weight.float() for weight in weights]
    hyperbolic_step_(expected, [grad.float() for grad in grads], lr=0.1, alpha=2.0, beta=1e-2)
    hyperbolic_step_(weights, grads, lr=0.1, alpha=2.0, beta=1e-2, form=form)
    half_step = 1.01 * torch.finfo(dtype).eps / 2
    for weight, wide in zip(weights, expected, strict=True):
        assert weight.dtype == dtype
        assert form == "compiled" or torch.equal(weight, wide.to(dtype))
        torch.testing.assert_close(weight.double(), wide.double(), rtol=half_step, atol=1e-7)


@FORMS
def test_no_wait_for_the_device(form):
    weights, grads = many()
    lr, alpha, beta = torch.tensor(0.1), torch.tensor(20.0), torch.tensor(0.01)
    with NoHostSync():
        hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=0.01, form=form)
        hyperbolic_step_(weights, grads, lr=lr, alpha=alpha, beta=beta, max_norm=1.0, form=form)
    with NoHostSync(), pytest.raises(AssertionError, match="waits for the device"):
        weights[0].isnan().any().item()
    with NoHostSync(), pytest.raises(AssertionError, match="waits for the device"):
        weights[1][weights[1] != 0] *= 2


@pytest.mark.parametrize("form", ["single", "foreach"])
def test_no_value_is_needed_on_the_host(form):
    # there are none on a meta device, and asking for one raises
    weights, grads = ([tensor.to("meta") for tensor in tensors] for tensors in many())
    hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=0.01, max_norm=1.0, form=form)


def layouts(dtype):
    """Weights that lie in memory in every way, gradients that may lie in another, and the buffers of some weights."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    buffers = [normal(1001), normal(9, 10), normal(6, 4, 3)]
    last = normal(8, 4, 3, 3).to(memory_format=torch.channels_last)
    pairs = [
        (normal(5, 33), normal(5, 33)),
        (last, normal(8, 4, 3, 3)),
        (normal(8, 4, 3, 3), last.clone()),
        (normal(8, 4, 1, 1).to(memory_format=torch.channels_last), normal(8, 4, 1, 1)),
        (normal(7, 9).T, normal(9, 7)),
        (normal(4, 3, 2).permute(1, 2, 0), normal(3, 2, 4)),
        (normal(5, 6), normal(1, 1).expand(5, 6)),
        (normal(5, 6), normal(5, 12)[:, ::2]),
        (buffers[0][1:1001].view(100, 10), normal(100, 10)),  # not aligned
        (buffers[1][:, ::2], normal(9, 5)),  # with gaps
        (buffers[2][1:5, 1:3], normal(4, 2, 3)),
        (normal(0, 3), normal(0, 3)),
        (normal(1, 1), normal(1, 1)),
        (normal(2, 1), normal(2, 1)),
    ]
    return *map(list, zip(*pairs, strict=True)), buffers


@FORMS
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)],
)
def test_every_form_gives_the_closed_form_in_every_layout(form, dtype, tolerance):
    weights, grads, buffers = layouts(dtype)
    signs = [torch.sign(weight.double()) for weight in weights]
    exponents = [
        (0.1 * (-20.0 * sign * grad.double() - 1e-2)).clamp(-5, 5) for sign, grad in zip(signs, grads, strict=True)
    ]
    expected = [weight.double() * exponent.exp() for weight, exponent in zip(weights, exponents, strict=True)]
    strides, copies = [weight.stride() for weight in weights], [grad.clone() for grad in grads]
    outside = [buffers[0][:1].clone(), buffers[1][:, 1::2].clone(), buffers[2][:, 0].clone()]
    hyperbolic_step_(weights, grads, lr=0.1, alpha=20.0, beta=1e-2, form=form)
    for weight, product, grad, copy in zip(weights, expected, grads, copies, strict=True):
        torch.testing.assert_close(weight.double(), product, rtol=1.01 * tolerance, atol=1e-7)
        assert torch.equal(grad, copy)
    assert [weight.stride() for weight in weights] == strides
    after = [buffers[0][:1], buffers[1][:, 1::2], buffers[2][:, 0]]
    assert all(map(torch.equal, after, outside))


@FORMS
@pytest.mark.parametrize("at_hand", [("cpu",), ()])
def test_the_norm_bound_of_a_step_is_that_after_it(form, at_hand, monkeypatch):
    monkeypatch.setattr(rule, "SYNCHRONOUS_DEVICES", at_hand)
    for scales, last in (((1.0, 1.0, 1.0, 1.0), 1.0), ((1.0, 300.0, 1.0, 1.0), 1.0), ((1.0, 300.0, 1e30, 1.0), INF)):
        starts = [torch.linspace(-1, 2, 3000).view(50, 60) * scale for scale in scales]
        starts[3][0, 0] = last
        grads = [torch.linspace(1, -2, 3000).view(50, 60)] * 4
        weights, expected = ([start.clone() for start in starts] for _ in range(2))
        hyperbolic_step_(weights, grads, lr=0.1, alpha=2.0, beta=0.5, max_norm=1000.0, form=form)
        hyperbolic_step_(expected, grads, lr=0.1, alpha=2.0, beta=0.5, form=form)
        bound_norms_(expected, 1000.0)
        for weight, other in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight, other, rtol=0, atol=0, equal_nan=True)
        norms = [torch.linalg.vector_norm(weight.double()).item() for weight in weights]
        assert norms[1] == pytest.approx(1000.0) if scales[1] > 1 else max(norms) < 100
        # without strength there is no step, but there is the bound
        hyperbolic_step_(weights[:2], grads[:2], lr=0.1, alpha=0.0, beta=0.0, max_norm=5.0, form=form)
        assert [torch.linalg.vector_norm(weight).item() for weight in weights[:2]] == pytest.approx([5.0, 5.0])


@FORMS
def test_signs_may_lie_in_another_order_than_the_weights(form):
    weights, grads, _ = layouts(torch.float64)
    expected = [weight.clone() for weight in weights]
    signs = [-torch.sign(grad) for grad in grads]
    hyperbolic_step_(weights, grads, lr=0.1, alpha=2.0, beta=1e-2, signs=signs, form=form)
    for weight, start, grad in zip(weights, expected, grads, strict=True):
        torch.testing.assert_close(weight, start * torch.exp(0.1 * (2.0 * grad.abs() - 1e-2)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("reset", [False, True], ids=["compiled at first use", "compiled again after a reset"])
def test_one_kernel_serves_all_rates_strengths_sizes_and_layouts(reset):
    def graphs():
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    step = partial(hyperbolic_step_, [torch.ones(2, 2)], [torch.ones(2, 2)], form="compiled")
    step(lr=0.1, alpha=1.0, beta=0.0)
    if reset:  # as users call it between two models: torch forgets all that it has compiled
        torch._dynamo.reset()
        step(lr=0.1, alpha=1.0, beta=0.0)
    before = graphs()
    weights, grads, _ = layouts(torch.float32)
    for lr, alpha in (
        (0.2, 3.0),
        (torch.tensor(0.3), -1.0),
        (0.4, torch.tensor(2.0)),
        (0.5, [float(i) for i in range(14)]),
    ):
        hyperbolic_step_(weights, grads, lr=lr, alpha=alpha, beta=1e-2, form="compiled")
    parameter = torch.nn.Parameter(torch.ones(300, 300))
    hyperbolic_step_([parameter], [torch.ones(300, 300)], lr=0.1, alpha=1.0, beta=0.0, form="compiled")
    assert before >= 1
    assert graphs() == before


@FORMS
def test_a_graph_that_needs_the_weight_from_before_the_step_is_told(form):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    loss = weight.square().sum()
    hyperbolic_step_([weight], [torch.ones(2, 2)], lr=0.1, alpha=1.0, beta=0.0, form=form)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def moved(form):
    weight, grad = torch.linspace(-2, 2, 3000).view(30, 100), torch.linspace(3, -1, 3000).view(30, 100)
    hyperbolic_step_([weight], [grad], lr=0.1, alpha=2.0, beta=0.5, form=form)
    return weight


def test_the_form_is_chosen_by_the_number_of_weights(monkeypatch):
    assert not torch.equal(moved("compiled"), moved("single"))  # in the last bits
    assert torch.equal(moved("auto"), moved("single"))
    monkeypatch.setattr(rule, "COMPILE_THRESHOLD", 3001)
    assert torch.equal(moved("auto"), moved("single"))
    monkeypatch.setattr(rule, "COMPILE_THRESHOLD", 3000)
    assert torch.equal(moved("auto"), moved("compiled"))


def test_without_a_compiler_auto_goes_on_and_says_so_once(monkeypatch, caplog):
    # a kernel that no other test has compiled, and a cache that has none
    without = partial(hyperbolic_step_, lr=0.1, alpha=2.0, beta=0.5, nan_guard=False)
    monkeypatch.setattr(rule, "COMPILE_THRESHOLD", 1)
    weight, expected = torch.full((2, 2), 2.0), torch.full((2, 2), 2.0)
    with torch._inductor.utils.fresh_cache(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        for _ in range(2):
            without([weight], [torch.ones(2, 2)])
            hyperbolic_step_([expected], [torch.ones(2, 2)], lr=0.1, alpha=2.0, beta=0.5, form="single")
        message = "form: HAM's step cannot be compiled for cpu, where torch.compile needs a C\\+\\+ compiler"
        with pytest.raises(RuntimeError, match=message):
            without([weight], [torch.ones(2, 2)], form="compiled")
    assert torch.equal(weight, expected)
    said = [record for record in caplog.records if record.name == "ham.compiled"]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "HAM goes on in its single form" in said[0].getMessage()


@pytest.mark.parametrize("sign", ["after", "before"])
def test_compiled_ham_trains_as_single_ham_does(sign):
    def trained(form):
        model = make_model(dtype=torch.float64)
        train(model, make_optimizer(model, sign=sign, max_weight_norm=None, form=form), 20)
        return flattened(model)

    torch.testing.assert_close(trained("compiled"), trained("single"), rtol=1e-10, atol=1e-12)


def test_parameters_that_require_gradients_are_moved_outside_autograd():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    hyperbolic_step_([weight], [torch.ones(2, 2)], lr=0.1, alpha=1.0, beta=0.0)
    bound_norms_([weight], 1.0)
    assert weight.is_leaf
    assert weight.grad_fn is None
    assert torch.linalg.vector_norm(weight.detach()).item() == pytest.approx(1.0)


def test_nothing_to_do():
    hyperbolic_step_([], [], lr=0.1, alpha=1.0, beta=1.0, form="foreach")
    hyperbolic_step_([], [], lr=0.1, alpha=1.0, beta=1.0, form="auto")
    bound_norms_([], 1.0)


def test_the_package_imports_torch_and_nothing_else_of_the_suite():
    code = (
        "import sys; before = set(sys.modules); import ham; roots = {m.split('.')[0] for m in sys.modules}; "
        "print(sorted(roots & {'torch', 'ham', 'experiments', 'sparsity', 'results', 'pandas', 'timm', 'torchvision'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['ham', 'torch']"
