"""HAM with schedule-free optimizers (Defazio et al. 2024, arXiv 2405.15682): around one, and inside its wrapper.

The parameter holds y = (1 - m) z + m x, the point of the gradient; z takes the steps, x is their average and what is
evaluated. Around such a base HAM multiplies y and leaves z alone. Inside `ScheduleFreeWrapper` it multiplies z.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from packages import package
from torch import Tensor, nn
from torch.optim import SGD

import sparsity
from ham import HAM

pytestmark = pytest.mark.integrations

LR, MOMENTUM, ALPHA, BETA = 0.1, 0.9, 3.0, 0.05
KINDS = {"SGDScheduleFree": {"momentum": MOMENTUM}, "AdamWScheduleFree": {}, "RAdamScheduleFree": {}}


@pytest.fixture(scope="module")
def schedulefree() -> Any:
    return package("schedulefree")


def leaf() -> nn.Parameter:
    return nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def gradient(step: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def factor(weight: Tensor, grad: Tensor, lr: float = LR) -> Tensor:
    return torch.exp(lr * (-ALPHA * torch.sign(weight) * grad - BETA))


def test_around_a_schedule_free_base_only_y_is_multiplied(schedulefree: Any):
    """By hand: z takes the plain step, y is averaged towards it and then multiplied, so x moves by 1/m of that."""
    weight = leaf()
    optimizer = HAM(schedulefree.SGDScheduleFree([weight], lr=LR, momentum=MOMENTUM), alpha=ALPHA, beta=BETA)
    optimizer.train()
    y = z = x = weight.detach().clone()
    for step in range(6):
        grad = gradient(step)
        weight.grad = grad.clone()
        optimizer.step()
        z = z - LR * grad
        x = x + (z - x) / (step + 1)
        plain = (1 - MOMENTUM) * z + MOMENTUM * x
        y = plain * factor(plain, grad)
        x = x + (y - plain) / MOMENTUM
        torch.testing.assert_close(weight.detach(), y)
        torch.testing.assert_close(optimizer.state[weight]["z"], z)
    optimizer.eval()
    torch.testing.assert_close(weight.detach(), x)
    optimizer.train()
    torch.testing.assert_close(weight.detach(), y)


def test_inside_the_wrapper_z_is_multiplied_and_x_is_its_average(schedulefree: Any):
    weight = leaf()
    inner = HAM(SGD([weight], lr=LR), alpha=ALPHA, beta=BETA)
    optimizer = schedulefree.ScheduleFreeWrapper(inner, momentum=MOMENTUM)
    optimizer.train()
    z = x = weight.detach().clone()
    for step in range(6):
        grad = gradient(step)
        weight.grad = grad.clone()
        optimizer.step()
        z = z - LR * grad
        z = z * factor(z, grad)
        x = x + (z - x) / (step + 1)
        torch.testing.assert_close(weight.detach(), (1 - MOMENTUM) * z + MOMENTUM * x)
        torch.testing.assert_close(inner.state[weight]["z"], z)
    optimizer.eval()
    torch.testing.assert_close(weight.detach(), x)


def test_the_decay_alone_shows_the_difference(schedulefree: Any):
    """Without a gradient, around the base z never decays and holds x back; inside, both decay at the rate of beta."""
    around, inside = leaf(), leaf()
    begun = around.detach().clone()
    first = HAM(schedulefree.SGDScheduleFree([around], lr=LR), alpha=0.0, beta=1.0)
    second = HAM(SGD([inside], lr=LR), alpha=0.0, beta=1.0)
    wrapper = schedulefree.ScheduleFreeWrapper(second)
    for optimizer, weight in ((first, around), (wrapper, inside)):
        optimizer.train()
        for _ in range(200):
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
    assert torch.equal(first.state[around]["z"], begun)
    torch.testing.assert_close(second.state[inside]["z"], begun * math.exp(-200 * LR))


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_of_the_base_is_hams_too(schedulefree: Any, kind: str):
    """`warmup_steps` (and RAdam's rectification) leaves `lr` as it is; the rate in force is what HAM scales by."""
    weight, twin = leaf(), leaf()
    options = {"lr": LR, **({} if kind.startswith("RAdam") else {"warmup_steps": 4})}
    optimizer = HAM(getattr(schedulefree, kind)([weight], **options), alpha=ALPHA, beta=BETA)
    plain = getattr(schedulefree, kind)([twin], **options)
    optimizer.train()
    plain.train()
    rates = []
    for step in range(8):
        grad = gradient(step)
        weight.grad, twin.grad = grad.clone(), grad.clone()
        optimizer.step()
        plain.step()
        rates.append(plain.param_groups[0]["scheduled_lr"])
        with torch.no_grad():
            twin.mul_(factor(twin, grad, rates[-1]))
        torch.testing.assert_close(weight, twin)
    assert rates[0] < rates[-1] <= LR
    if not kind.startswith("RAdam"):
        assert rates[:5] == pytest.approx([LR / 4, LR / 2, LR * 3 / 4, LR, LR])


@pytest.mark.parametrize("kind", KINDS)
def test_modes_checkpoints_and_exact_zeros(schedulefree: Any, kind: str):
    """Evaluated half-way, saved there, resumed in a new optimizer: the same numbers; zeros are zeros in both modes."""
    mask = torch.rand(5, 4, generator=torch.Generator().manual_seed(9)) < 0.5

    def built() -> tuple[nn.Parameter, HAM]:
        weight = leaf()
        with torch.no_grad():
            weight.mul_(mask)
        return weight, HAM(getattr(schedulefree, kind)([weight], lr=LR, **KINDS[kind]), alpha=ALPHA, beta=BETA)

    def run(weight: nn.Parameter, optimizer: HAM, steps: range) -> None:
        optimizer.train()
        for step in steps:
            weight.grad = gradient(step) * mask
            optimizer.step()
            assert not weight[~mask].any()
        optimizer.eval()

    weight, optimizer = built()
    with pytest.raises(Exception, match="not in train mode"):
        optimizer.step()
    run(weight, optimizer, range(5))
    in_training = weight.detach().clone()
    optimizer.eval()  # a second time changes nothing
    assert torch.equal(weight, in_training)
    assert torch.equal(weight != 0, mask)
    other, again = built()
    with torch.no_grad():
        other.copy_(weight)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(weight, optimizer, range(5, 9))
    run(other, again, range(5, 9))
    assert torch.equal(weight, other)
    assert torch.equal(weight != 0, mask)
    assert torch.equal(optimizer.state[weight]["z"] != 0, mask)


@pytest.mark.parametrize("topology", ["random", "rigl", "acdc"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_that_change_hold_for_y_z_and_x(schedulefree: Any, topology: str, kind: str):
    model = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 5))
    optimizer = HAM(getattr(schedulefree, kind)(model.parameters(), lr=0.02), alpha=ALPHA, beta=BETA)
    optimizer.train()
    options = {"update_every": 4} if topology == "rigl" else {}
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.7, total_steps=20, steps_per_epoch=5, **options)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 12, generator=generator), torch.randint(5, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        sparse.step()
        for name, mask in sparse.masks.items():
            weight = model.get_parameter(name)
            assert not weight[~mask].any()
            if optimizer.state[weight]:  # RiGL's first update stands in place of the step that makes z
                assert not optimizer.state[weight]["z"][~mask].any()
    before = {name: model.get_parameter(name).detach().clone() for name, _ in sparse.masks.items()}
    optimizer.eval()
    for name, mask in sparse.masks.items():
        assert not torch.equal(model.get_parameter(name), before[name])
        assert not model.get_parameter(name)[~mask].any()
    sparse.finalize()


def test_torchs_lazy_optimizers_fail_in_the_wrapper_with_or_without_ham(schedulefree: Any):
    """The wrapper puts z into the state before AdamW looks whether it is empty; nothing of HAM's."""
    for wrap in (lambda base: base, HAM):
        weight = leaf()
        optimizer = schedulefree.ScheduleFreeWrapper(wrap(torch.optim.AdamW([weight], lr=LR)))
        optimizer.train()
        weight.grad = gradient(0)
        with pytest.raises(KeyError, match="exp_avg"):
            optimizer.step()


def test_accelerate_switches_the_modes(schedulefree: Any):
    """As Trainer does, through the optimizer that it prepares."""
    accelerate = package("accelerate")
    weight = leaf()
    optimizer = HAM(schedulefree.AdamWScheduleFree([weight], lr=LR), alpha=ALPHA, beta=BETA)
    try:
        prepared = accelerate.Accelerator(cpu=True).prepare(optimizer)
        prepared.train()
        weight.grad = gradient(0)
        prepared.step()
        y, z = weight.detach().clone(), optimizer.state[weight]["z"]
        prepared.eval()
        torch.testing.assert_close(weight.detach(), z + (y - z) / 0.9)
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
