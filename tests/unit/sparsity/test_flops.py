"""FLOPs against torch's own counter, RigL's formula and sums done by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sparsity
from sparsity.engine.flops import TrainingCost, inference_fraction, layer_macs
from sparsity.options import Infeasible


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 8, 3), (3, 9, 9)),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9)),
        (nn.Conv2d(8, 12, 3, groups=4, bias=False), (8, 7, 5)),
        (nn.Conv2d(8, 8, 3, groups=8, padding=1), (8, 6, 6)),
        (nn.Conv2d(2, 4, (3, 1), dilation=2, stride=(1, 2)), (2, 11, 8)),
        (nn.Conv2d(5, 7, 1), (5, 4, 4)),
        (nn.Conv1d(4, 6, 5, stride=3), (4, 20)),
        (nn.Conv3d(2, 3, 2, padding=1), (2, 4, 4, 4)),
        (nn.Linear(10, 7), (10,)),
        (nn.Linear(10, 7, bias=False), (6, 10)),
        (nn.ConvTranspose2d(4, 6, 1), (4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
    ],
    ids=lambda value: str(value),
)
def test_layer_macs_are_half_of_torchs_flops(layer: nn.Module, shape: tuple[int, ...]):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(1, *shape))
    assert counter.get_total_flops() > 0
    assert layer_macs(layer, shape) == {"weight": counter.get_total_flops() // 2}


class Reuse(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twice(self.norm(self.twice(x)))


def test_a_layer_counts_as_often_as_it_is_used():
    assert layer_macs(Reuse(), (3,)) == {"twice.weight": 18}


def test_a_layer_that_takes_no_part_is_an_error():
    model = Reuse()
    model.never = nn.Linear(3, 5)
    with pytest.raises(sparsity.Infeasible, match=r"does not multiply by never\.weight"):
        layer_macs(model, (3,))
    model.never.weight.requires_grad_(False)
    assert layer_macs(model, (3,)) == {"twice.weight": 18}


def test_measuring_leaves_the_model_as_it_was():
    model = Reuse().train()
    state = copy.deepcopy(model.state_dict())
    layer_macs(model, (3,))
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_measuring_leaves_frozen_layers_frozen():
    model = Reuse().train()
    model.norm.eval()
    layer_macs(model, (3,))
    assert not model.norm.training


def test_represented_and_wrapped_models_count_alike():
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    expected = {"0.weight": 2 * 9 * 4, "2.weight": 24}
    assert layer_macs(plain, (1, 4, 4)) == expected
    represented = copy.deepcopy(plain)
    sparsity.represent(represented, "sign_in")
    assert layer_macs(represented, (1, 4, 4)) == expected


def test_inference_fraction_by_hand():
    # (100 * .5 + 300 * .1) / 400
    assert inference_fraction({"a": 100, "b": 300}, {"a": 0.5, "b": 0.1}) == pytest.approx(0.2)


# ---- training -------------------------------------------------------------------------------------------------------


def test_cost_before_the_first_step():
    assert TrainingCost(["a"]).fraction({"a": 10}) == 1.0


def test_cost_by_hand():
    cost = TrainingCost(["a", "b"])
    for _ in range(4):
        cost.count_step(dense_gradient=False)
    cost.advance(4, {"a": 1.0, "b": 1.0})  # four dense steps
    for dense in (True, False, True, False, False, False):
        cost.count_step(dense)
    cost.advance(10, {"a": 0.5, "b": 0.1})  # six sparse ones, two of which also need the dense weight gradient
    # a, 100 MACs: 4 * 3 * 100 + 6 * 3 * 50 + 2 * 50 = 2200;  b, 300 MACs: 4 * 3 * 300 + 6 * 3 * 30 + 2 * 270 = 4680
    assert cost.fraction({"a": 100, "b": 300}) == pytest.approx((2200 + 4680) / (10 * 3 * 400))


def test_cost_state():
    cost = TrainingCost(["a", "b"])
    cost.count_step(True)
    cost.advance(1, {"a": 0.5, "b": 0.25})
    cost.count_step(True)  # not charged yet
    state = copy.deepcopy(cost.state_dict())
    other = TrainingCost(["a", "b"])
    other.load_state_dict(state)
    for either in (cost, other):
        either.count_step(False)
        either.advance(3, {"a": 0.5, "b": 0.75})
    macs = {"a": 7, "b": 11}
    assert other.fraction(macs) == cost.fraction(macs)
    # a: 3 * .5 * 3 + 2 * .5 = 5.5;  b: .25 * 3 + .75 + .75 * 6 + .25 = 6.25
    assert cost.fraction(macs) == pytest.approx((7 * 5.5 + 11 * 6.25) / (3 * 3 * 18))


def test_cost_state_is_a_copy():
    cost = TrainingCost(["a"])
    state = cost.state_dict()
    cost.count_step(False)
    cost.advance(1, {"a": 0.5})
    assert state["_sum"] == {"a": 0.0}


def train(topology: str, *, steps: int, sparsity_: float, representation: str = "plain", **options) -> TrainingCost:
    """A run on random gradients; layers of 100 and 50 weights, so that shares of a tenth are exact."""
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 5))
    rep = sparsity.represent(model, representation)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.01)
    sparse = sparsity.attach(topology, model, optimizer, sparsity=sparsity_, total_steps=steps, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 10)).square().mean().backward()
        sparse.step()
    sparse.finalize()
    return sparse.cost


MACS = {"0.weight": 700, "1.weight": 200}


def test_static_training_costs_what_inference_does():
    cost = train("random", steps=12, sparsity_=0.8, allocation="uniform")
    assert cost.fraction(MACS) == pytest.approx(0.2)


def test_dense_training_costs_one():
    assert train("dense", steps=12, sparsity_=0.0).fraction(MACS) == pytest.approx(1.0)


def test_rigl_cost_of_whole_periods():
    # RigL's appendix has (3 f_S dT + 2 f_S + f_D) / (dT + 1) for dT weight steps and one update. In the authors' code
    # one step in dT *is* the update, so a period holds dT - 1 weight steps: the same formula with dT - 1 for dT
    f_s, period = 0.2, 5
    formula = (3 * f_s * (period - 1) + 2 * f_s + 1) / period
    cost = train("rigl", steps=20, sparsity_=0.8, allocation="uniform", update_every=period, end=1.0)
    assert cost.fraction(MACS) == pytest.approx(formula / 3)


def test_rigl_cost_with_an_end_of_updates():
    # T_end = 10: updates at steps 0, 4 and 8, each 2 * .2 + 1; the other 17 steps cost 3 * .2
    cost = train("rigl", steps=20, sparsity_=0.8, allocation="uniform", update_every=4, end=0.5)
    assert cost.fraction(MACS) == pytest.approx((17 * 0.6 + 3 * 1.4) / 60)


def test_rigl_cost_weighs_layers_by_their_operations():
    # balanced at .3: 45 weights, 22.5 a layer, so densities .225 -> 23 of 100 and .45 -> 23 of 50
    cost = train("rigl", steps=6, sparsity_=0.7, allocation="balanced", update_every=3, end=1.0)
    spent = 700 * (6 * 3 * 0.23 + 2 * (1 - 0.23)) + 200 * (6 * 3 * 0.46 + 2 * (1 - 0.46))
    assert cost.fraction(MACS) == pytest.approx(spent / (3 * 6 * 900))


def test_acdc_cost_by_its_phases():
    # 50 of 100 steps are dense, 50 have a fifth of each layer
    cost = train("acdc", steps=100, sparsity_=0.8, allocation="uniform")
    assert cost.fraction(MACS) == pytest.approx(0.5 + 0.5 * 0.2)


def test_acdc_cost_of_a_short_run():
    # boundaries of 20 steps: sparse [2,3) [4,5) [6,7) [8,9) [10,11) [12,13) [14,15) and [17,20), so 10 of 20
    cost = train("acdc", steps=20, sparsity_=0.9, allocation="uniform")
    assert cost.fraction(MACS) == pytest.approx(0.5 + 0.5 * 0.1)


def test_soft_threshold_cost_follows_its_zeros():
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    # sigmoid(0) = .5 cuts three of the eight weights
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, -0.8, 0.1, 0.7], [-0.2, 2.0, 0.6, 0.4]]))
    rep = sparsity.represent(model, "str", initial_threshold=0.0)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.0)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.5, total_steps=6, steps_per_epoch=2)
    for _ in range(6):
        model(torch.randn(3, 4)).sum().backward()
        sparse.step()
    assert sparse.cost.fraction({"0.weight": 8}) == pytest.approx(5 / 8)


class Functional(nn.Module):
    """A head whose weight the forward pass reads and changes."""

    def __init__(self, change):
        super().__init__()
        self.body, self.head, self.change = nn.Linear(6, 8), nn.Linear(8, 5, bias=False), change

    def forward(self, x):
        return nn.functional.linear(self.body(x), self.change(self.head.weight))


@pytest.mark.parametrize(
    "change",
    [
        nn.functional.normalize,
        lambda w: 3 * w,
        lambda w: w / w.norm(dim=1, keepdim=True),
        lambda w: -w.clone(),
        lambda w: w.double().float(),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_head_that_keeps_the_zeros_of_its_weight_counts(change, device):
    assert layer_macs(Functional(change).to(device), (6,)) == {"body.weight": 48, "head.weight": 40}


@pytest.mark.parametrize("change", [lambda w: w - w.mean(), lambda w: w + 0.1, lambda w: w.softmax(1)])
def test_a_head_that_fills_the_zeros_of_its_weight_is_refused(change):
    with pytest.raises(Infeasible, match=r"does not multiply by head\.weight"):
        layer_macs(Functional(change), (6,))
