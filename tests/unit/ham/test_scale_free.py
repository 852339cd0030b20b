"""The scale-free alpha: c / (peak rate * running mean of the gradient's root mean square over active weights)."""

import copy
import io
import math

import pytest
import torch
from ham_helpers import NoHostSync, make_model, parameter, train, weights
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from ham import HAM
from ham.scale_free import follow_peak, follow_scale, strength
from sparsity.engine import moments

NAN, INF = float("nan"), float("inf")
RATES = [0.05, 0.2, 0.1, 0.02]
GRADS = [[1.0, -2.0, 5.0, 0.5], [0.1, 0.3, 0.0, -0.2], [4.0, 1.0, -1.0, 2.0], [-1.0, 0.5, 0.5, 0.1]]


def twin(values: list[float], c: float, beta: float) -> list[float]:
    """The rule in plain numbers, after plain gradient descent, for four entries of which the third is pruned."""
    total = norm = peak = 0.0
    for lr, grads in zip(RATES, GRADS, strict=True):
        values = [w - lr * g if k != 2 else 0.0 for k, (w, g) in enumerate(zip(values, grads, strict=True))]
        rms = math.sqrt(sum(g * g for w, g in zip(values, grads, strict=True) if w != 0) / sum(w != 0 for w in values))
        total, norm = 0.99 * total + 0.01 * rms, 0.99 * norm + 0.01
        peak = max(peak, lr)
        alpha = c / (peak * (total / norm))
        values = [
            w * math.exp(lr * (-alpha * math.copysign(1, w) * g - beta)) for w, g in zip(values, grads, strict=True)
        ]
    return values


@pytest.mark.parametrize("form", ["single", "foreach", "compiled"])
def test_the_rule_in_plain_numbers(form):
    values = [1.0, -0.5, 0.0, 2.0]
    weight = torch.nn.Parameter(torch.tensor(values).view(2, 2))
    optimizer = HAM(SGD([weight], lr=RATES[0]), alpha=0.7, beta=0.3, scale_free=True, form=form)
    for lr, grads in zip(RATES, GRADS, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        # the third entry is pruned: its gradient is there, but the base does not move it
        weight.grad = torch.tensor(grads).view(2, 2)
        weight.grad[1, 0] = 0.0
        optimizer.step()
    assert weight.flatten().tolist() == pytest.approx(twin(values, 0.7, 0.3), rel=1e-5)


def test_gradients_of_zero_weights_do_not_count():
    state: dict = {}
    follow_scale(state, torch.tensor([[1.0, 0.0], [-2.0, 0.0]]), torch.tensor([[3.0, 100.0], [4.0, INF]]))
    assert strength(state, 1.0, 1.0).item() == pytest.approx(1 / math.sqrt(12.5))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_neither_the_size_of_gradients_nor_the_peak_rate_changes_the_exponent(scale):
    grads = torch.tensor(GRADS).view(4, 2, 2)
    products = []
    for size, lr in ((1.0, 0.1), (scale, 0.1), (1.0, 0.1 * scale)):
        state: dict = {}
        for grad in grads:
            follow_scale(state, torch.ones(2, 2), grad * size)
        products.append(lr * strength(state, 0.1, lr).item() * size)
    assert products == pytest.approx([products[0]] * 3, rel=1e-5)


def test_the_peak_is_known_before_a_warm_up_reaches_it():
    weight = parameter(2, 2)
    optimizer = HAM(SGD([weight], lr=0.4), scale_free=True)
    lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)  # sets lr to .04 and initial_lr
    assert follow_peak(optimizer.param_groups[0]) == 0.4
    cycle = SGD([weight], lr=0.01, momentum=0.9)
    lr_scheduler.OneCycleLR(cycle, max_lr=0.7, total_steps=10)
    assert follow_peak(cycle.param_groups[0]) == 0.7
    loop = HAM(SGD([weight], lr=0.4), scale_free=True)  # a loop that sets the rate itself
    loop.param_groups[0]["lr"] = 0.04
    loop.step()
    assert loop.state_dict()["param_groups"][0]["ham_peak_lr"] == 0.4
    loop.param_groups[0]["lr"] = 0.5
    loop.step()
    assert loop.param_groups[0]["ham_peak_lr"] == 0.5


def test_a_rate_that_is_a_tensor_gives_the_same_step():
    steps = []
    for lr in (0.1, torch.tensor(0.1)):
        weight = parameter(2, 2)
        optimizer = HAM(Adam([weight], lr=lr, foreach=False), alpha=0.2, scale_free=True)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = lr / 2
        optimizer.step()
        assert float(optimizer.param_groups[0]["ham_peak_lr"]) == pytest.approx(0.1)
        steps.append(weight.flatten()[0].item())
        with NoHostSync():  # Adam itself waits
            follow_peak(optimizer.param_groups[0])
            optimizer.strengths(optimizer.param_groups[0], [weight])
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)


@pytest.mark.parametrize("form", ["single", "foreach"])
def test_a_step_does_not_wait_for_the_device(form):
    optimizer = HAM(SGD([parameter(3, 3), parameter(4)], lr=0.1), scale_free=True, form=form)
    with NoHostSync():
        optimizer.step()
        optimizer.step()


def scale_free(model, base):
    return HAM(base(model.parameters(), lr=0.05), alpha=0.2, beta=0.01, scale_free=True)


@pytest.mark.parametrize("base", [SGD, AdamW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_resumed_run_is_bit_equal(base, dtype):
    whole = make_model(dtype=dtype)
    optimizer = scale_free(whole, base)
    train(whole, optimizer, 5)
    optimizer.param_groups[0]["lr"] = 0.01
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    resumed, saved = copy.deepcopy(whole), torch.load(buffer, weights_only=True)
    other = scale_free(resumed, base)
    other.load_state_dict(saved)
    before = copy.deepcopy(saved)
    train(whole, optimizer, 5, start=5)
    train(resumed, other, 5, start=5)
    assert torch.equal(weights(whole), weights(resumed))
    for number, values in before["state"].items():  # what was loaded is not written to
        assert all(torch.equal(values[key], saved["state"][number][key]) for key in values if key.startswith("ham"))


@pytest.mark.parametrize("base", [SGD, AdamW])
def test_checkpoints_pass_between_ham_and_its_plain_base(base):
    model = make_model()
    optimizer = scale_free(model, base)
    train(model, optimizer, 3)
    plain = base(model.parameters(), lr=0.3)
    plain.load_state_dict(optimizer.state_dict())
    train(model, plain, 3)
    plain.param_groups[0].pop("ham_peak_lr")
    plain.param_groups[0]["lr"] = 0.001
    fresh = scale_free(model, base)
    fresh.load_state_dict(plain.state_dict())
    train(model, fresh, 1)
    assert fresh.param_groups[0]["ham_peak_lr"] == 0.05  # its own stays


def test_gradients_that_are_not_finite_are_passed_over():
    state: dict = {}
    weight, good = torch.ones(2, 2), torch.full((2, 2), 3.0)
    for grad in (torch.full((2, 2), INF), good, torch.tensor([[NAN, 1.0], [1.0, 1.0]]), good):
        follow_scale(state, weight, grad)
    assert strength(state, 1.0, 0.5).item() == pytest.approx(1 / 1.5)


@pytest.mark.parametrize(("lr", "grad", "expected"), [(0.1, 0.0, math.exp(-0.05)), (0.0, 1.0, 1.0)])
def test_without_gradients_only_the_decay_acts_and_without_a_rate_nothing(lr, grad, expected):
    weight = parameter(2, 2, grad=grad)
    HAM(SGD([weight], lr=lr), alpha=0.3, beta=0.5, scale_free=True).step()
    assert weight.flatten().tolist() == pytest.approx([expected] * 4)


def test_the_mean_belongs_to_the_tensor_and_survives_resets_of_entries():
    weight = parameter(2, 2)
    optimizer = HAM(SGD([weight], lr=0.1, momentum=0.9), alpha=0.1, scale_free=True)
    optimizer.step()
    moments.reset(optimizer, weight)
    assert optimizer.state[weight]["ham_rms"].item() == pytest.approx(0.01)
    assert not optimizer.state[weight]["momentum_buffer"].any()
    moments.clear(optimizer)
    assert not optimizer.state[weight]


def test_it_is_an_option_of_a_group():
    on, off = parameter(2, 2), parameter(2, 2)
    optimizer = HAM(SGD([{"params": [on], "scale_free": True}, {"params": [off]}], lr=0.1), alpha=0.5, beta=0.0)
    optimizer.step()
    assert on[0, 0].item() == pytest.approx(0.9 * math.exp(-0.5))
    assert off[0, 0].item() == pytest.approx(0.9 * math.exp(-0.05))
    assert "ham_rms" not in optimizer.state[off]
    with pytest.raises(TypeError, match="scale_free: 'yes' in a parameter group; it must be True or False"):
        HAM(SGD([parameter(2, 2)], lr=0.1), scale_free="yes")  # pyright: ignore[reportArgumentType]
