"""The engine under SAM: two passes over a batch, each masked, and a topology that looks at the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_engine import ActiveOnly, batches, loss_of, net, recorder, single
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import sparsity
from ham import HAM, SAM

__all__ = ["recorder"]  # a fixture

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SAM(SGD)": lambda p: SAM(SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2), rho=0.3),
    "SAM(HAM(SGD))": lambda p: SAM(HAM(SGD(p, lr=0.1, momentum=0.9), alpha=5.0, beta=1e-2), rho=0.3),
    "SAM(HAM(SGD)), first": lambda p: SAM(HAM(SGD(p, lr=0.1), alpha=5.0), rho=0.3, gradient="first"),
    "SAM(HAM(SGD)), adaptive": lambda p: SAM(HAM(SGD(p, lr=0.1), alpha=5.0), rho=1.0, adaptive=True),
}


def closure_of(model: nn.Module, optimizer: Optimizer, batch: Any, seen: list[Any] | None = None) -> Callable:
    def closure() -> Tensor:
        optimizer.zero_grad()
        if seen is not None:
            seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_active_weights_follow_the_network_that_has_only_them(name: str):
    """Up to the order in which a norm is summed."""
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.7, total_steps=20)
    oracle = ActiveOnly(model, sparse.masks)
    oracle_optimizer = OPTIMIZERS[name]([*oracle.active, *oracle.rest])
    start = model[5].weight.detach().clone()
    for batch in batches(20):
        sparse.step(closure_of(model, optimizer, batch))
        oracle_optimizer.step(closure_of(oracle, oracle_optimizer, batch))
        for key, expected in oracle.weights().items():
            torch.testing.assert_close(model.get_parameter(key).detach(), expected.detach(), rtol=1e-12, atol=1e-13)
    assert (model[5].weight - start).norm() > 0.1


@pytest.mark.parametrize(
    ("topology", "options", "passes"),
    [
        # 12 steps, the update in place at 0, 4 and 8 makes one pass
        ("rigl", {"update_every": 4}, 2 * 9 + 3),
        # the update after the step takes the gradients of the first pass: no third one
        ("rigl", {"update_every": 4, "also_step": True}, 2 * 12),
        ("granet", {"update_every": 4, "initial_sparsity": 0.2, "ramp_end": 0.5}, 2 * 12),
        ("set", {"update_every": 4}, 2 * 9 + 3),
    ],
)
def test_pruned_weights_are_zero_in_every_pass(topology: str, options: dict[str, Any], passes: int):
    model = net()
    optimizer = OPTIMIZERS["SAM(HAM(SGD))"](model.parameters())
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.6, total_steps=12, **options)
    seen: list[dict[str, Tensor]] = []
    for batch in batches(12):
        before = len(seen)
        masks = dict(sparse.masks)
        sparse.step(closure_of(model, optimizer, batch, seen))
        for values in seen[before:]:
            assert all(not values[name][~mask].any() for name, mask in masks.items())
        if len(seen) - before == 2:
            first, second = seen[before:]
            assert all(not torch.equal(first[name], second[name]) for name in masks)
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())
    assert len(seen) == passes
    assert sparse.event_counts["update"] >= 2


def test_the_topology_sees_the_dense_gradient_at_the_weights_themselves(recorder):
    model = single(3, 1, 4, 1)
    optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=5.0)
    sparse = sparsity.attach("recorder", model, optimizer, sparsity=0.5, total_steps=2)
    # mask 1 0 1 0; every input leads to every weight, so the gradient is dense
    given: list[list[float]] = []
    optimizer.base.register_step_pre_hook(lambda *_: given.append(model.weight.grad[0].tolist()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * (model.weight.square() + 2 * model.weight).sum()
        loss.backward()
        return loss

    sparse.step(closure)
    seen = sparse.topology.seen
    assert [entry[0] for entry in seen] == ["after_backward", "after_step"]
    assert seen[0][3]["weight"].tolist() == [[4, 1, 5, 1]]
    # masked (4, 0, 5, 0) of norm sqrt(41): the perturbation of length 5, and h = w + e + 1 where weights exist
    length = 5 / 41**0.5
    assert given[0] == pytest.approx([3 + 4 * length + 1, 0, 4 + 5 * length + 1, 0])


def test_both_passes_are_clipped_and_the_base_gets_the_bound(recorder):
    model = single(3, 1, 4, 1)
    optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=5.0)
    sparse = sparsity.attach("recorder", model, optimizer, sparsity=0.5, total_steps=2, clip_grad_norm=0.5)
    given, perturbed = [], []
    optimizer.base.register_step_pre_hook(lambda *_: given.append(model.weight.grad.clone()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        perturbed.append(model.weight[0].tolist())
        loss = 0.5 * model.weight.square().sum()
        loss.backward()
        return loss

    sparse.step(closure)
    # the direction of (3, 0, 4, 0) is not the bound's to change
    assert perturbed[1] == pytest.approx([6, 0, 8, 0], rel=1e-5)
    assert given[0][0].tolist() == pytest.approx([0.3, 0, 0.4, 0], rel=1e-4)


def test_the_penalty_and_the_scales_are_in_both_passes(monkeypatch: pytest.MonkeyPatch):
    """sparse_opt scales what comes from the loss, not the penalty; both belong to what is perturbed against."""
    model = single(3, 0, 4, 1)
    optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=5.0)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=2)
    sparse._scales = {"weight": torch.tensor([[0.5]])}
    monkeypatch.setattr(sparse.representation, "penalty_grad", lambda *factors: tuple(0.5 * f for f in factors))
    perturbed, given = [], []
    optimizer.base.register_step_pre_hook(lambda *_: given.append(model.weight.grad[0].tolist()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        perturbed.append(model.weight.detach().clone())
        loss = 0.5 * model.weight[:, :3].square().sum()
        loss.backward()
        return loss

    sparse.step(closure)
    # .5 w + .5 w in the first three, .5 w in the last, to which the loss does not lead: (3, 0, 4, .5)
    gradient = torch.tensor([3, 0, 4, 0.5])
    assert torch.allclose(perturbed[1][0], torch.tensor([3, 0, 4, 1]) + 5 * gradient / gradient.norm())
    assert given[0] == pytest.approx([*perturbed[1][0, :3].tolist(), 0.5 * perturbed[1][0, 3].item()])


@pytest.mark.parametrize("topology", ["dense", "rigl"])
def test_random_numbers_are_those_of_one_pass(topology: str):
    """The same in both passes, and the stream goes on as without SAM, also where there is no second pass."""
    draws = []
    for sam in (False, True):
        model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
        optimizer = SGD(model.parameters(), lr=0.1)
        optimizer = SAM(optimizer, rho=0.1) if sam else optimizer
        options = {"update_every": 2} if topology == "rigl" else {}
        sparse = sparsity.attach(topology, model, optimizer, sparsity=0.5, total_steps=4, **options)
        seen: list[list[float]] = []

        def closure(model: nn.Module = model, optimizer: Optimizer = optimizer, seen: list = seen) -> Tensor:
            optimizer.zero_grad()
            x = torch.rand(3, 6)
            seen.append(x[0].tolist())
            loss = model(x).square().sum()
            loss.backward()
            return loss

        torch.manual_seed(3)
        for _ in range(4):
            sparse.step(closure)
        draws.append(seen)
    once, sam = draws
    updates = (0, 2) if topology == "rigl" else ()
    assert sam == [x for step, x in enumerate(once) for _ in range(1 if step in updates else 2)]


def test_a_second_pass_is_counted():
    """Twice the FLOPs of the same training without SAM, less where an update stands in place of the step."""

    def fraction(sam: bool, topology: str, rho: float = 0.1, **options: Any) -> float:
        model = net()
        optimizer = SGD(model.parameters(), lr=0.1)
        optimizer = SAM(optimizer, rho) if sam else optimizer
        sparsity_ = 0.0 if topology == "dense" else 0.5
        sparse = sparsity.attach(topology, model, optimizer, sparsity=sparsity_, total_steps=8, **options)
        for batch in batches(8):
            sparse.step(closure_of(model, optimizer, batch))
        return sparse.cost.fraction(dict.fromkeys(sparse.shapes, 1))

    assert fraction(True, "dense") == 2 * fraction(False, "dense") == 2
    assert fraction(True, "dense", rho=0.0) == 1
    uniform = {"allocation": "uniform", "update_every": 4}
    assert fraction(True, "random", allocation="uniform") == pytest.approx(2 * 0.5)
    # updates in place at 0 and 4 make one pass each, with the dense gradient on top: 6 steps of two passes
    assert fraction(False, "rigl", **uniform) == pytest.approx((8 * 3 * 0.5 + 2 * 0.5) / 24)
    assert fraction(True, "rigl", **uniform) == pytest.approx((14 * 3 * 0.5 + 2 * 0.5) / 24)


def test_what_a_step_needs_is_said():
    model = net()
    optimizer = HAM(SAM(SGD(model.parameters(), lr=0.1)))
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=4)
    with pytest.raises(ValueError, match=r"HAM evaluates each batch more than once: call step\(closure\)"):
        sparse.step()
    (batch,) = batches(1)
    with pytest.raises(ValueError, match="HAM goes with no loss scaler, whose step takes no closure"):
        sparse.step(closure_of(model, optimizer, batch), scaler=torch.amp.GradScaler("cpu"))
    assert sparse.steps_done == 0


def test_gradients_that_ranks_hold_apart_are_agreed_on_for_the_topology_alone(recorder):
    """As if the other of two ranks had the double: the topology sees the mean, the perturbation is this rank's."""
    model = single(3, 1, 4, 1)
    optimizer = SAM(SGD(model.parameters(), lr=0.0), rho=5.0)
    sparse = sparsity.attach(
        "recorder", model, optimizer, sparsity=0.5, total_steps=2, agree=lambda gradient: 1.5 * gradient
    )
    perturbed = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        perturbed.append(model.weight[0].tolist())
        loss = 0.5 * model.weight.square().sum()
        loss.backward()
        return loss

    sparse.step(closure)
    assert sparse.topology.seen[0][3]["weight"].tolist() == [[4.5, 0, 6, 0]]
    assert perturbed[1] == pytest.approx([6, 0, 8, 0])
    assert sparse.active_grad("weight").tolist() == [[9, 0, 12, 0]]
