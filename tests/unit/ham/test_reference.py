"""HAM against its literal reference, step by step, and against numbers computed by hand."""

import math

import pytest
import torch
from ham_helpers import fill_grads, make_params
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from ham import HAM
from ham.reference import HAMReference

STEPS = 20
BASES = {
    "sgd": (SGD, {"lr": 0.1, "weight_decay": 5e-4}),
    "momentum": (SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}),
    "nesterov": (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "nesterov decay": (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "adamw": (AdamW, {"lr": 0.02, "weight_decay": 1e-2}),
}


ALPHAS, BETAS = [200.0, -30.0], [1e-3, 0.5]


def cases(groups, before, lr):
    """Which cases of the rule a step has met, from its gradients and the weights before and after it."""
    met = set()
    for params, starts, alpha, beta in zip(groups, before, ALPHAS, BETAS, strict=True):
        for p, start in zip(params, starts, strict=True):
            if p.grad is None:
                met.add("no gradient")
                continue
            if torch.linalg.vector_norm(p).item() == pytest.approx(1000.0, rel=1e-5):
                met.add("bounded")
            if p.ndim >= 2:
                exponents = lr * (alpha * p.sign() * p.grad + beta)
                found = {
                    "zero": p == 0,
                    "crossed zero": p * start < 0,
                    "clamped below": exponents > 5,
                    "clamped above": exponents < -5,
                }
                met |= {case for case, entries in found.items() if entries.any()}
    return met


@pytest.mark.parametrize("sign", ["after", "before"])
@pytest.mark.parametrize("form", ["single", "foreach"])
@pytest.mark.parametrize("base", BASES)
def test_every_step_equals_that_of_the_reference(base, form, sign):
    cls, options = BASES[base]
    ours, theirs = make_params(torch.float64), make_params(torch.float64)
    groups = [{"params": g, "alpha": a, "beta": b} for g, a, b in zip(ours, ALPHAS, BETAS, strict=True)]
    optimizer = HAM(cls(groups, foreach=form == "foreach", **options), sign=sign, form=form)
    plain = cls([{"params": group} for group in theirs], foreach=False, **options)
    reference = HAMReference(plain, ALPHAS, BETAS, sign=sign)
    schedules = [CosineAnnealingLR(optimizer, STEPS), CosineAnnealingLR(plain, STEPS)]

    zeros, met = ours[0][1].detach() == 0, set()
    for step in range(STEPS):
        fill_grads(ours, step)
        fill_grads(theirs, step)
        before = [[p.detach().clone() for p in group] for group in theirs]
        optimizer.step()
        reference.step()
        met |= cases(theirs, before, plain.param_groups[0]["lr"])
        for schedule in schedules:
            schedule.step()
        for group, other in zip(ours, theirs, strict=True):
            for p, q in zip(group, other, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
        assert (ours[0][1].detach()[zeros] == 0).all()
    assert met == {"zero", "no gradient", "crossed zero", "clamped below", "clamped above", "bounded"}


def test_gradients_that_are_not_finite_and_tensors_of_one_element_are_those_of_the_reference():
    def make():
        values = ([[1.0, -2.0, 0.0, 3.0]], [[-3200.0]], [-3200.0])
        return [torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values]

    ours, theirs = make(), make()
    optimizer = HAM(SGD(ours, lr=0.1), alpha=2.0, beta=0.5)
    reference = HAMReference(SGD(theirs, lr=0.1), [2.0], [0.5])
    for gradient in ([1.0, -1.0, math.inf, 1.0], [math.nan, 1.0, 1.0, -math.inf]):
        for params in (ours, theirs):
            for p, grad in zip(params, (gradient, [1.0], [1.0]), strict=True):
                p.grad = torch.tensor(grad, dtype=torch.float64).view_as(p)
        optimizer.step()
        reference.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-14, atol=0, equal_nan=True)
    assert ours[0].isnan().any()
    assert ours[0].isfinite().any()


def test_hand_computed_step():
    # base: w - 0.5 * g = (1.5, -0.5); then exponents 0.5 * (-2 * sign * g - 0.4) = (0.5 * (2 - 0.4), 0.5 * (2 - 0.4))
    weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64))
    weight.grad = torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64)
    HAM(SGD([weight], lr=0.5), alpha=2.0, beta=0.4).step()
    expected = [1.5 * math.exp(0.8), -0.5 * math.exp(0.8), 3.0 * math.exp(-0.2)]
    assert weight.detach().flatten().tolist() == pytest.approx(expected, rel=1e-14)


def test_signs_before_and_after_differ_where_a_weight_crosses_or_leaves_zero():
    # base: w - 0.5 * g = (-0.5, -0.5, 2)
    def step(sign):
        weight = torch.nn.Parameter(torch.tensor([[0.5, 0.0, 2.5]], dtype=torch.float64))
        weight.grad = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64)
        HAM(SGD([weight], lr=0.5), alpha=2.0, beta=0.4, sign=sign).step()
        return weight.detach().flatten().tolist()

    after = [-0.5 * math.exp(2 - 0.2), -0.5 * math.exp(1 - 0.2), 2 * math.exp(-1 - 0.2)]
    before = [-0.5 * math.exp(-2 - 0.2), -0.5 * math.exp(-0.2), 2 * math.exp(-1 - 0.2)]
    assert step("after") == pytest.approx(after, rel=1e-14)
    assert step("before") == pytest.approx(before, rel=1e-14)


def test_momentum_and_decay_stay_out_of_the_multiplicative_step():
    # two steps with gradients 1 and 0: in the second only momentum and decay move the base, and HAM only decays
    weight = torch.nn.Parameter(torch.tensor([[10.0, 20.0]], dtype=torch.float64))
    optimizer = HAM(SGD([weight], lr=0.1, momentum=0.5, weight_decay=0.2), alpha=3.0, beta=0.7)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    first = [(w - 0.1 * (1 + 0.2 * w)) * math.exp(0.1 * (-3 - 0.7)) for w in (10.0, 20.0)]
    assert weight.detach().flatten().tolist() == pytest.approx(first, rel=1e-14)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    second = [
        (w - 0.1 * (0.2 * w + 0.5 * (1 + 0.2 * start))) * math.exp(-0.1 * 0.7)
        for w, start in zip(first, (10.0, 20.0), strict=True)
    ]
    assert weight.detach().flatten().tolist() == pytest.approx(second, rel=1e-14)


def test_small_rates_follow_the_flow():
    # dw = -(1 + alpha |w|) g dt - beta w dt with g = w - 1, by Runge-Kutta, from a negative weight through zero
    alpha, beta, time, steps = 5.0, 0.3, 0.5, 2000

    def velocity(w):
        return -(1 + alpha * abs(w)) * (w - 1) - beta * w

    flow, dt = -0.5, time / steps
    for _ in range(steps):
        k1 = velocity(flow)
        k2 = velocity(flow + dt / 2 * k1)
        k3 = velocity(flow + dt / 2 * k2)
        flow += dt / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(flow + dt * k3))
    weight = torch.nn.Parameter(torch.full((1, 2), -0.5, dtype=torch.float64))
    optimizer = HAM(SGD([weight], lr=dt), alpha=alpha, beta=beta)
    for _ in range(steps):
        weight.grad = weight.detach() - 1
        optimizer.step()
    assert flow > 0.4
    assert weight[0, 0].item() == pytest.approx(flow, abs=3e-4)
