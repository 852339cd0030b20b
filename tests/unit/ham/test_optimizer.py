"""HAM as an optimizer: which tensors it moves, with which gradient, and what it refuses."""

import copy

import pytest
import torch
from ham_helpers import NoHostSync, factor, parameter
from torch.optim import ASGD, SGD, Adam, AdamW, RMSprop

from ham import HAM, OptimizerWrapper

INF, NAN = float("inf"), float("nan")


def test_only_tensors_of_two_dimensions_and_more_than_one_element_are_multiplied():
    moved = [parameter(2, 2), parameter(2, 1, 3, 3), parameter(1, 2)]
    left = [parameter(4), parameter(1, 1), parameter(1), parameter(2, 2, grad=None), parameter()]
    HAM(SGD(moved + left, lr=0.1), alpha=2.0, beta=0.5).step()
    for p in moved:
        assert p.flatten().tolist() == pytest.approx([0.9 * factor()] * p.numel())
    assert [p.flatten()[0].item() for p in left] == pytest.approx([0.9, 0.9, 0.9, 1.0, 0.9])


def test_scalars_does_as_the_listing_does_with_one_element():
    threshold, gain, bias = parameter(1, 1), parameter(1, 1, fill=-3200.0), parameter(1, fill=-3200.0)
    HAM(SGD([threshold, gain, bias], lr=0.1), alpha=2.0, beta=0.5).step()
    assert [threshold.item(), gain.item(), bias.item()] == pytest.approx([0.9, -3200.1, -3200.1])
    HAM(SGD([threshold, gain, bias], lr=0.1), alpha=2.0, beta=0.5, scalars=True).step()
    assert [threshold.item(), gain.item(), bias.item()] == pytest.approx([0.8 * factor(), -1000, -1000])


def test_a_group_without_ham_is_left_to_the_base():
    on, off, vector = parameter(2, 2), parameter(2, 2, fill=5000.0), parameter(4, fill=5000.0)
    groups = [{"params": [on]}, {"params": [off, vector], "ham": False}]
    HAM(SGD(groups, lr=0.1), alpha=2.0, beta=0.5).step()
    assert on[0, 0].item() == pytest.approx(0.9 * factor())
    assert torch.equal(off, torch.full((2, 2), 5000.0).sub(torch.ones(2, 2), alpha=0.1))
    assert vector[0].item() == pytest.approx(4999.9)


def test_the_norm_bound_holds_for_vectors_too_and_can_be_switched_off():
    for bound, expected in ((1000.0, [500.0, 500.0]), (8.0, [4.0, 4.0]), (None, [5000.0 * factor(grad=0), 5000.0])):
        matrix, vector = parameter(2, 2, fill=5000.0, grad=0.0), parameter(4, fill=5000.0, grad=0.0)
        unused = parameter(4, fill=5000.0, grad=None)
        HAM(SGD([matrix, vector, unused], lr=0.1), alpha=2.0, beta=0.5, max_weight_norm=bound).step()
        assert [matrix[0, 0].item(), vector[0].item()] == pytest.approx(expected)
        assert unused[0].item() == 5000.0


def test_alpha_and_beta_are_read_from_the_groups_at_every_step():
    first, second = parameter(2, 2), parameter(2, 2)
    groups = [{"params": [first], "alpha": -4.0}, {"params": [second], "beta": 3.0, "lr": 0.2}]
    optimizer = HAM(SGD(groups, lr=0.1), alpha=2.0, beta=0.5)
    optimizer.step()
    assert first[0, 0].item() == pytest.approx(0.9 * factor(alpha=-4.0))
    assert second[0, 0].item() == pytest.approx(0.8 * factor(lr=0.2, beta=3.0))
    before = first[0, 0].item()
    optimizer.param_groups[0].update(alpha=0.0, beta=1.0, lr=0.3)
    optimizer.step()
    assert first[0, 0].item() == pytest.approx((before - 0.3) * factor(lr=0.3, alpha=0.0, beta=1.0))
    assert optimizer.state_dict()["param_groups"][0]["alpha"] == 0.0


def test_groups_added_through_and_behind_the_wrapper():
    first, second, third = parameter(2, 2), parameter(2, 2), parameter(2, 2)
    optimizer = HAM(SGD([first], lr=0.1), alpha=2.0, beta=0.5)
    optimizer.add_param_group({"params": (p for p in [second]), "alpha": 7.0})
    optimizer.base.add_param_group({"params": third})
    assert [g.get("alpha") for g in optimizer.param_groups] == [2.0, 7.0, None]
    optimizer.step()
    assert second[0, 0].item() == pytest.approx(0.9 * factor(alpha=7.0))
    assert third[0, 0].item() == pytest.approx(0.9 * factor())
    with pytest.raises(ValueError, match="beta: -1 is out of range"):
        optimizer.add_param_group({"params": [parameter(2, 2)], "beta": -1})
    with pytest.raises(TypeError, match="param_group must be a dict"):
        optimizer.add_param_group([parameter(2, 2)])  # pyright: ignore[reportArgumentType]
    assert len(optimizer.param_groups) == 3


@pytest.mark.parametrize("base", [RMSprop, ASGD])
def test_a_base_with_an_alpha_of_its_own_keeps_it(base):
    weight, twin = parameter(2, 2), parameter(2, 2)
    optimizer, plain = HAM(base([weight], lr=0.1), alpha=2.0, beta=0.5), base([twin], lr=0.1)
    group = optimizer.param_groups[0]
    assert group["alpha"] == plain.param_groups[0]["alpha"]
    assert (group["ham_alpha"], group["beta"]) == (2.0, 0.5)
    duplicate = copy.deepcopy(optimizer)
    copied = duplicate.param_groups[0]["params"][0]
    copied.grad = torch.ones(2, 2)
    for each in (optimizer, duplicate, plain):
        each.step()
    assert weight[0, 0].item() == pytest.approx(twin[0, 0].item() * factor())
    assert torch.equal(copied, weight)


@pytest.mark.parametrize("form", ["single", "foreach"])
@pytest.mark.parametrize("cls", [SGD, AdamW])
@pytest.mark.parametrize("sign", ["after", "before"])
def test_without_strength_ham_is_its_base_bit_for_bit(cls, sign, form):
    weight, twin = (torch.nn.Parameter(torch.randn(6, 5, generator=torch.Generator().manual_seed(0))) for _ in "ab")
    optimizer = HAM(cls([weight], lr=0.1, weight_decay=0.01), alpha=0, beta=0, sign=sign, form=form)
    plain = cls([twin], lr=0.1, weight_decay=0.01)
    for step in range(5):
        weight.grad = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        if step == 4:
            weight.grad[0] = torch.tensor([NAN, INF, -INF, 0, 1])
        twin.grad = weight.grad.clone()
        optimizer.step()
        plain.step()
        torch.testing.assert_close(weight, twin, rtol=0, atol=0, equal_nan=True)


def test_zero_grad_takes_set_to_none():
    weight = parameter(2, 2)
    optimizer = HAM(SGD([weight], lr=0.1))
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(2, 2))
    optimizer.zero_grad()
    assert weight.grad is None
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))


@pytest.mark.parametrize("sign", ["after", "before"])
@pytest.mark.parametrize("base", [{"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True}])
def test_exact_zeros_stay_zero_over_many_steps(base, sign):
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(20, 20, generator=generator))
    mask = torch.rand(20, 20, generator=generator) < 0.2
    with torch.no_grad():
        weight.mul_(mask)
    optimizer = HAM(SGD([weight], lr=0.05, **base), alpha=50.0, beta=1e-2, sign=sign)
    for _ in range(100):
        weight.grad = torch.randn(20, 20, generator=generator) * mask
        optimizer.step()
    assert torch.equal(weight.detach() != 0, mask)
    assert weight.isfinite().all()


def test_a_rate_that_is_a_tensor():
    weight = parameter(2, 2)
    optimizer = HAM(Adam([weight], lr=torch.tensor(0.1), foreach=False), alpha=2.0, beta=0.5)
    optimizer.step()
    assert weight[0, 0].item() == pytest.approx(0.9 * factor())
    optimizer.param_groups[0]["lr"].fill_(0.0)
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", ["after", "before"])
def test_half_precision_parameters(dtype, sign):
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.0, 0.5]], dtype=dtype))
    weight.grad = torch.tensor([[1.0, 1.0], [0.0, -1.0]], dtype=dtype)
    optimizer = HAM(SGD([weight], lr=0.125), alpha=2.0, beta=0.5, sign=sign)
    optimizer.step()
    shrink, grow = factor(lr=0.125), factor(lr=0.125, sign=-1.0)
    expected = [0.875 * shrink, -2.125 * grow, 0.0, 0.625 * grow]
    assert weight.flatten().tolist() == pytest.approx(expected, rel=2**-8 if dtype == torch.bfloat16 else 2**-11)


@pytest.mark.parametrize("sign", ["after", "before"])
@pytest.mark.parametrize("form", ["single", "foreach"])
def test_a_step_does_not_wait_for_the_device(sign, form):
    params = [parameter(3, 3), parameter(4), parameter(2, 2, grad=None), parameter(1, 1)]
    options = {"momentum": 0.9, "nesterov": True, "foreach": form == "foreach"}
    optimizer = HAM(SGD(params, lr=0.1, **options), sign=sign, form=form)
    with NoHostSync():
        optimizer.step()
        optimizer.step()


@pytest.mark.parametrize(("form", "listed"), [("auto", False), ("single", False), ("foreach", True)])
def test_the_form_of_the_rule_is_selectable_and_single_on_a_cpu(form, listed):
    optimizer = HAM(SGD([parameter(3, 3)], lr=0.1, foreach=False), max_weight_norm=None, form=form)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert any("_foreach" in event.name for event in profile.events() or []) == listed


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": NAN}, ValueError, "alpha: nan is not finite"),
        ({"alpha": -INF}, ValueError, "alpha: -inf is not finite"),
        ({"alpha": "200"}, TypeError, "alpha: '200' is not a number"),
        ({"alpha": True}, TypeError, "alpha: True is not a number"),
        ({"beta": INF}, ValueError, "beta: inf is not finite"),
        ({"beta": -1e-3}, ValueError, "beta: -0.001 is out of range; a decay must be at least 0"),
        ({"beta": None}, TypeError, "beta: None is not a number"),
        ({"sign": "during"}, ValueError, "sign: 'during' is not allowed; use 'after' or 'before'"),
        ({"form": "fused"}, ValueError, "form: 'fused' is not allowed; use one of 'auto', 'single', "),
        ({"max_weight_norm": 0.0}, ValueError, "max_weight_norm: 0.0 must be positive, or None for no bound"),
        ({"max_weight_norm": NAN}, ValueError, "max_weight_norm: nan is not finite"),
        ({"max_weight_norm": "1"}, TypeError, "max_weight_norm: '1' is not a number"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    base = SGD([parameter(2, 2)], lr=0.1)
    with pytest.raises(error, match=f"^{message}"):
        HAM(base, **options)


def test_bases_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="base: contains HAM already"):
        HAM(OptimizerWrapper(HAM(SGD([parameter(2, 2)], lr=0.1))))
    with pytest.raises(ValueError, match="differentiable: "):
        HAM(SGD([parameter(2, 2)], lr=0.1, differentiable=True))
    with pytest.raises(TypeError, match="ham: 'off' in a parameter group; it must be True or False"):
        HAM(SGD([{"params": [parameter(2, 2)], "ham": "off"}], lr=0.1))
    rateless = SGD([parameter(2, 2)], lr=0.1)
    del rateless.param_groups[0]["lr"], rateless.defaults["lr"]
    with pytest.raises(ValueError, match="lr: the base optimizer's parameter groups have no learning rate"):
        HAM(rateless)
