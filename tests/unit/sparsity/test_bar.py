"""BAR against the paper's two algorithms, by hand, and against what SAM does to the same factors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsity
from experiments.config.resolve import load, resolve
from experiments.errors import UserError

Factors = list[Tensor]
DOUBLE = {"dtype": torch.float64}


def one_layer(m: list[float], w: list[float], **options: Any) -> tuple[nn.Sequential, sparsity.Representation]:
    """A layer of one row with the given factors."""
    model = nn.Sequential(nn.Linear(len(m), 1, bias=False).double())
    rep = sparsity.represent(model, "bar", **options)
    with torch.no_grad():
        for factor, values in zip(rep.slots["0.weight"].factors, (m, w), strict=True):
            factor.copy_(torch.tensor([values], **DOUBLE))
    return model, rep


def attached(
    model: nn.Module, rep: sparsity.Representation, topology: str = "dense", **keywords: Any
) -> sparsity.SparseTraining:
    optimizer = torch.optim.SGD(rep.param_groups(), lr=keywords.pop("lr", 0.5), momentum=keywords.pop("momentum", 0.0))
    settings = {"sparsity": 0.0, "total_steps": 4, "steps_per_epoch": 2, **keywords}
    return sparsity.attach(topology, model, optimizer, **settings)


def push(sparse: sparsity.SparseTraining, gradient: list[float]) -> tuple[list[float], list[float]]:
    """One step at the given dL/dθ of a network of one row; the factors it ends with."""
    (slot,) = sparse.representation.slots.values()
    sparse.optimizer.zero_grad()
    (slot.module.weight * torch.tensor([gradient], **DOUBLE)).sum().backward()  # pyright: ignore
    sparse.step()
    m, w = (factor[0].tolist() for factor in slot.factors)
    return m, w


def two_layers(name: str, seed: int = 4, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    sparsity.represent(model, name, **options)
    return model


def represented(model: nn.Module) -> sparsity.Representation:
    rep = sparsity.representation.of(model)
    assert rep is not None
    return rep


def pairs(model: nn.Module) -> list[tuple[nn.Parameter, ...]]:
    return [slot.factors for slot in represented(model).slots.values()]


def loss_of(model: nn.Module, step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(8 + step)
    parameter = next(model.parameters())
    x = torch.randn(10, 6, generator=generator).to(parameter)
    return nn.functional.cross_entropy(model(x), torch.randint(3, (10,), generator=generator))


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_a_step_by_hand():
    """Gradients are those from before the scaling: w·G = (1, 1) and m·G = (2, 2), so w grows by a tenth."""
    sparse = attached(*one_layer([2.0, 1.0], [1.0, 0.5], mu=0.2, schedule="constant"))
    m, w = push(sparse, [1.0, 2.0])
    assert m == pytest.approx([1.8 - 0.5, 0.9 - 0.5])
    assert w == pytest.approx([1.1 - 1.0, 0.55 - 1.0])


@pytest.mark.parametrize(
    ("variant", "scope", "grows"),
    [
        # gradients of m are (.01, 20), of w (.03, 1): those of m are larger, so m grows
        ("nbar", "layer", [1, 1]),
        # |m| = 3.0 is more than |w| = 2.2, so m shrinks
        ("obar", "layer", [-1, -1]),
        # each weight by itself: 3 against 1, and 0.1 against 2
        ("nbar", "weight", [-1, 1]),
        ("obar", "weight", [-1, 1]),
    ],
)
def test_what_decides(variant: str, scope: str, grows: list[int]):
    options = {"variant": variant, "scope": scope, "mu": 0.2, "schedule": "constant"}
    sparse = attached(*one_layer([3.0, 0.1], [1.0, -2.0], **options))
    m, w = push(sparse, [0.01, 10.0])
    assert m == pytest.approx([3 * (1 + 0.1 * grows[0]) - 0.005, 0.1 * (1 + 0.1 * grows[1]) + 10])
    assert w == pytest.approx([1 - 0.1 * grows[0] - 0.015, -2 * (1 - 0.1 * grows[1]) - 0.5])


def test_without_a_gradient_only_obar_acts():
    """SAM moves nothing there; at equal norms of 0 the algorithm would let m grow."""
    for variant, shrink in (("nbar", 1.0), ("obar", 0.9)):
        sparse = attached(*one_layer([2.0], [1.0], variant=variant, mu=0.2, schedule="constant"))
        m, w = push(sparse, [0.0])
        assert (m, w) == ([pytest.approx(2 * shrink)], [pytest.approx(2 - shrink)])


def test_equal_factors_shrink_the_first_under_obar():
    sparse = attached(*one_layer([2.0], [-2.0], variant="obar", mu=0.2, schedule="constant"))
    assert push(sparse, [0.0]) == ([1.8], [-2.2])


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_the_schedule_begins_anew_with_each_level(name: str):
    """Without a gradient m shrinks by what μ is; two trainings of four steps each."""
    model, rep = one_layer([100.0, 90.0], [0.01, 0.01], variant="obar", mu=0.5, schedule=name)
    sparse = attached(model, rep, "lrr", sparsity=0.5, prune_fraction=0.5, lr=0.1)
    shares = {
        "linear": [1.0, 0.75, 0.5, 0.25],
        "cosine": [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)],
        "constant": [1.0] * 4,
    }[name]
    for share in shares * 2:
        before = [factor[0, 0].item() for factor in rep.slots["0.weight"].factors]
        m, w = push(sparse, [0.0, 0.0])
        assert (m[0] / before[0], w[0] / before[1]) == pytest.approx((1 - 0.05 * share, 1 + 0.05 * share))
        if sparse.level_ended:
            sparse.next_level()
    assert sparse.steps_done == sparse.total_steps == 8


def test_the_balance_by_hand():
    """m² − w² is 3 and −0.75: they cancel in the norms of the layer, not one by one."""
    sparse = attached(*one_layer([2.0, 0.5], [1.0, 1.0], mu=0.0), lr=0.0)
    for _ in range(4):
        push(sparse, [1.0, 1.0])
    balances = [event for event in sparse.events if event["event"] == "balance"]
    assert [(event["layer"], event["weight"]) for event in balances] == [(1.125, 1.875)] * 2
    assert sparse.event_counts == sparse.expected_events() == {"balance": 2}


# ---- the algorithms -------------------------------------------------------------------------------------------------


def algorithm(x: Factors, y: Factors, g_x: Factors, g_y: Factors, *, overparametrized: bool, rate: float) -> None:
    """Lines 4 to 10 of algorithms 2 and 3, word by word, for each pair of blocks."""
    for x_l, y_l, g_x_l, g_y_l in zip(x, y, g_x, g_y, strict=True):
        if overparametrized:
            if x_l.norm() >= y_l.norm():
                x_l.copy_((1 - rate) * x_l)
                y_l.copy_((1 + rate) * y_l)
            else:
                x_l.copy_((1 + rate) * x_l)
                y_l.copy_((1 - rate) * y_l)
        elif g_x_l.norm() >= g_y_l.norm():
            x_l.copy_((1 + rate) * x_l)
            y_l.copy_((1 - rate) * y_l)
        else:
            x_l.copy_((1 - rate) * x_l)
            y_l.copy_((1 + rate) * y_l)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("variant", ["nbar", "obar"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_steps_are_those_of_the_algorithms(kind: type[torch.optim.Optimizer], variant: str, schedule: str):
    keywords: dict[str, Any] = {"lr": 0.05, **({"momentum": 0.9} if kind is torch.optim.SGD else {})}
    mu, steps = 2.0, 12
    options = {"beta": 0.1, "variant": variant, "mu": mu, "schedule": schedule}
    model, twin = two_layers("bar", **options), two_layers("product", beta=0.1)
    groups = represented(model).param_groups(weight_decay=0.01)
    sparse = sparsity.attach("dense", model, kind(groups, **keywords), sparsity=0.0, total_steps=steps)
    plain = kind(represented(twin).param_groups(weight_decay=0.01), **keywords)
    for step in range(steps):
        sparse.optimizer.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
        plain.zero_grad()
        loss_of(twin, step).backward()
        left = {"linear": 1 - step / steps, "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)), "constant": 1.0}
        x, y = (list(blocks) for blocks in zip(*pairs(twin), strict=True))
        gradients = [[block.grad for block in blocks if block.grad is not None] for blocks in (x, y)]
        with torch.no_grad():
            algorithm(x, y, *gradients, overparametrized=variant == "obar", rate=mu * left[schedule] * 0.05)  # pyright: ignore
        plain.step()
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_sam_drives_the_same_way():
    """Theorem 2 on m ⊙ w: d/dt ½(|m|² − |w|²) = ρ (|∂m|² − |∂w|²) / |∂|, to first order in ρ, layer by layer."""
    rho, signs = 1e-4, set()
    for seed in range(4):
        model = two_layers("product", seed, beta=0.0, init="independent")
        parameters = list(model.parameters())
        first = torch.autograd.grad(loss_of(model), parameters)
        norm = torch.cat([gradient.flatten() for gradient in first]).norm()
        squares = {p: (gradient**2).sum() for p, gradient in zip(parameters, first, strict=True)}
        with torch.no_grad():
            for parameter, gradient in zip(parameters, first, strict=True):
                parameter.add_(rho / norm * gradient)
        second = dict(zip(parameters, torch.autograd.grad(loss_of(model), parameters), strict=True))
        ascent = dict(zip(parameters, first, strict=True))
        for m, w in pairs(model):
            old = [factor.detach() - rho / norm * ascent[factor] for factor in (m, w)]
            # the drift is the part of first order in the rate: −⟨m, ∂m⟩ + ⟨w, ∂w⟩
            drift = -(old[0] * second[m]).sum() + (old[1] * second[w]).sum()
            expected = rho * (squares[m] - squares[w]) / norm
            assert drift.item() == pytest.approx(expected.item(), rel=0.02)
            signs.add(math.copysign(1, expected))
    assert signs == {-1, 1}


# ---- what it is for -------------------------------------------------------------------------------------------------


@torch.no_grad()
def balances(model: nn.Module) -> list[float]:
    return [abs(float((m**2).sum() - (w**2).sum())) for m, w in pairs(model)]


def trajectory(seed: int, **options: Any) -> list[list[float]]:
    """|‖m‖² − ‖w‖²| of both layers over 200 small steps."""
    model = two_layers("bar", seed, **options)
    sparse = attached(model, represented(model), lr=1e-3, total_steps=200, steps_per_epoch=200)
    found = [balances(model)]
    for step in range(200):
        sparse.optimizer.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
        found.append(balances(model))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_flow_conserves_the_balance_and_bar_does_not(seed: int):
    plain = trajectory(seed, mu=0.0)
    for start, end in zip(plain[0], plain[-1], strict=True):
        assert end == pytest.approx(start, rel=1e-5)
    decided = [{"variant": variant, "scope": scope} for variant in ("nbar", "obar") for scope in ("layer", "weight")]
    for options in decided:
        found = trajectory(seed, mu=1.0, schedule="constant", **options)
        for before, after in zip(found, found[1:], strict=False):
            assert all(new < old for new, old in zip(after, before, strict=True)), options
        assert all(end < 0.9 * start for end, start in zip(found[-1], found[0], strict=True)), options


def test_theta_changes_by_the_square_alone():
    sparse = attached(*one_layer([3.0, 0.1], [1.0, -2.0], variant="obar", mu=0.2, schedule="constant"))
    m, w = push(sparse, [0.0, 0.0])
    assert [a * b for a, b in zip(m, w, strict=True)] == pytest.approx([3 * 0.99, -0.2 * 0.99])


def test_without_mu_it_is_the_product_and_from_balance_spred():
    for name, beta in (("product", 1.0), ("spred", 0.0)):
        ends = []
        for own, options in (("bar", {"mu": 0.0, "beta": beta}), (name, {"beta": beta} if name == "product" else {})):
            model = two_layers(own, dtype=torch.float32, **options)
            sparse = attached(model, represented(model), "rigl", sparsity=0.5, total_steps=8, update_every=2)
            for step in range(8):
                sparse.optimizer.zero_grad()
                loss_of(model, step).backward()
                sparse.step()
            ends.append([factor for pair in pairs(model) for factor in pair])
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*ends, strict=True)), name


# ---- masks and steps that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["layer", "weight"])
@pytest.mark.parametrize("variant", ["nbar", "obar"])
def test_weights_that_do_not_exist_have_no_say(variant: str, scope: str):
    """A layer with two of its weights goes the way of a layer that has no others; what is parked stays parked."""
    options = {"variant": variant, "scope": scope, "mu": 0.2, "schedule": "constant"}
    whole, part = (
        attached(*one_layer(m, w, **options), total_steps=3, steps_per_epoch=3, lr=0.1)
        for m, w in (([0.5, 7.0, 0.1, 9.0], [1.0, 3.0, 2.0, 3.0]), ([0.5, 0.1], [1.0, 2.0]))
    )
    whole.set_masks(sparsity.MaskSet({"0.weight": torch.tensor([[True, False, True, False]])}), "initial")
    for _ in range(3):
        m, w = push(whole, [0.1, 50.0, 0.2, -80.0])
        smaller = push(part, [0.1, 0.2])
        assert (m[::2], w[::2]) == (pytest.approx(smaller[0]), pytest.approx(smaller[1]))
        assert (m[1::2], w[1::2]) == ([1, 1], [0, 0])
    (mine,), (theirs,) = ([e for e in run.events if e["event"] == "balance"] for run in (whole, part))
    for key in ("layer", "weight"):
        assert mine[key] == pytest.approx(theirs[key])


def test_a_step_that_a_scaler_skips_leaves_the_factors():
    sparse = attached(*one_layer([2.0, 1.0], [1.0, 0.5], variant="obar", mu=0.2))
    (slot,) = sparse.representation.slots.values()
    before = [factor.detach().clone() for factor in slot.factors]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale((slot.module.weight * math.inf).sum()).backward()  # pyright: ignore
    sparse.step(scaler=scaler)
    assert sparse.skipped == 1
    assert all(torch.equal(factor, old) for factor, old in zip(slot.factors, before, strict=True))


def test_a_mask_update_in_place_of_a_step_leaves_the_factors():
    model = two_layers("bar", variant="obar", mu=0.2)
    sparse = attached(model, represented(model), "rigl", sparsity=0.5, total_steps=20, update_every=2)
    before = [factor.detach().clone() for pair in pairs(model) for factor in pair]
    masks = {name: mask.clone() for name, mask in sparse.masks.items()}
    loss_of(model).backward()
    sparse.step()
    assert sparse.event_counts["update"] == 1
    stayed = [masks[name] & sparse.masks[name] for name in masks for _ in range(2)]
    factors = [factor for pair in pairs(model) for factor in pair]
    for factor, old, mask in zip(factors, before, stayed, strict=True):
        assert mask.any()
        assert torch.equal(factor[mask], old[mask])


def test_a_layer_without_a_gradient_is_passed_over():
    model = two_layers("bar", variant="obar", mu=0.2)
    sparse = attached(model, represented(model))
    before = [factor.detach().clone() for factor in pairs(model)[1]]
    model[0].weight.sum().backward()
    sparse.step()
    assert all(torch.equal(new, old) for new, old in zip(pairs(model)[1], before, strict=True))


# ---- rates ----------------------------------------------------------------------------------------------------------


def test_each_factor_has_the_rate_of_its_group():
    model, rep = one_layer([2.0], [1.0], variant="obar", mu=0.2, schedule="constant")
    sparse = attached(model, rep)
    sparse.optimizer.param_groups[1]["lr"] = torch.tensor(0.25, **DOUBLE)
    assert push(sparse, [0.0]) == ([pytest.approx(1.8)], [pytest.approx(1.05)])


def test_a_factor_keeps_its_sign():
    sparse = attached(*one_layer([2.0], [1.0], mu=2.0))
    with pytest.raises(ValueError, match=r"mu: 2 times the learning rate, 0\.5, must be below 1"):
        push(sparse, [1.0])
    text = r"representation\.mu: 4 times the learning rate, 0\.25, must be below 1"
    with pytest.raises(UserError, match=text):
        resolve(load("base", ["optimizer.lr=0.25", "representation={name: bar, mu: 4}"]))
