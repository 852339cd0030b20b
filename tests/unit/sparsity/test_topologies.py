"""Topologies on networks small enough to say by hand which weight drops and which grows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsity
from sparsity import MaskSet
from sparsity.dynamic import rounded
from sparsity.options import Infeasible
from sparsity.topologies.rigl import drop_and_grow


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def bits(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


# ---- RiGL: the rule for one layer -----------------------------------------------------------------------------------


def test_drop_and_grow_by_hand():
    # theta   .5  -.1   .3    0    0    0     mask 1 1 1 0 0 0, k = 1
    # |grad|   7   .4    8   .2   .9   .1
    # keep     x          x                   -.1 is the smallest and drops
    # grow                          x         .9 beats -.1's own .4; the kept 7 and 8 do not compete
    mask = drop_and_grow(row(0.5, -0.1, 0.3, 0, 0, 0), row(7, 0.4, -8, 0.2, -0.9, 0.1), bits(1, 1, 1, 0, 0, 0), 3, 1)
    assert mask.tolist() == [[True, False, True, False, True, False]]


def test_a_just_dropped_weight_may_grow_again():
    # -.1 drops, and its own gradient .95 is the largest outside the kept set
    mask = drop_and_grow(row(0.5, -0.1, 0.3, 0, 0), row(0, 0.95, 0, 0.2, 0.9), bits(1, 1, 1, 0, 0), 3, 1)
    assert mask.tolist() == [[True, True, True, False, False]]


def test_an_active_weight_of_exactly_zero_is_kept_before_an_inactive_one():
    # active: .5 and two zeros at 1 and 4; one of three drops: of the tied zeros the higher index, never into position 0
    mask = drop_and_grow(row(0, 0, 0.5, 0, 0), row(0, 0, 0, 1, 0), bits(0, 1, 1, 0, 1), 3, 1)
    assert mask.tolist() == [[False, True, True, True, False]]


def test_ties_go_to_the_lowest_index():
    mask = drop_and_grow(row(1, 1, 1, 1, 0, 0, 0, 0), row(*[0.5] * 8), bits(1, 1, 1, 1, 0, 0, 0, 0), 4, 2)
    # keep 0 and 1; grow the two lowest of the six tied others, which are the ones just dropped
    assert mask.tolist() == [[True, True, True, True, False, False, False, False]]


def test_a_dense_layer_stays_dense():
    assert drop_and_grow(row(1, 2, 3), row(1, 2, 3), bits(1, 1, 1), 3, 3).all()


def test_the_number_to_replace_is_rounded_as_the_option_says():
    assert [rounded("floor")(number) for number in (0.99, 2.0, 2.01)] == [0, 2, 2]
    assert [rounded("ceil")(number) for number in (0.99, 2.0, 2.01)] == [1, 2, 3]


# ---- RiGL: in training ----------------------------------------------------------------------------------------------


class Toy:
    """One layer of six weights whose gradients the test writes itself."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, **options: Any):
        self.layer = nn.Linear(6, 1, bias=False)
        settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
        self.optimizer = optimizer(self.layer.parameters(), lr=0.1, **settings)
        given = {"update_every": 2, "drop_fraction": 0.7, "end": 1.0, "allocation": "uniform", **options}
        self.sparse = sparsity.attach("rigl", self.layer, self.optimizer, sparsity=0.5, total_steps=8, **given)

    @property
    def theta(self) -> list[float]:
        return [round(value, 6) for value in self.layer.weight[0].tolist()]

    def start(self, theta: Tensor, mask: Tensor) -> None:
        self.sparse.set_masks(MaskSet({"weight": mask}), "initial")
        with torch.no_grad():
            self.layer.weight.copy_(theta * mask)

    def step(self, grad: Tensor) -> None:
        self.layer.weight.grad = grad.clone()
        self.sparse.step()


THETA, MASK = row(0.5, -0.1, 0.3, 0, 0, 0), bits(1, 1, 1, 0, 0, 0)
#           k = int(.7 * 3) = 2: .5 stays, -.1 and .3 drop; .9 grows, and .4 brings -.1 back
GRADIENT = row(9, 0.4, 0.1, 0.2, 0.9, 0.3)
UPDATED = [[True, True, False, False, True, False]]


def test_the_first_update_is_at_step_zero_and_replaces_the_weight_step():
    toy = Toy()
    toy.start(THETA, MASK)
    toy.step(GRADIENT)
    assert toy.sparse.masks["weight"].tolist() == UPDATED
    # .5 had a gradient of 9 and has not moved; -.1 was dropped and regrown and kept its value; the new one is zero
    assert toy.theta == [0.5, -0.1, 0, 0, 0, 0]
    event = toy.sparse.events[-1]
    assert (event["event"], event["step"]) == ("update", 0)
    assert (event["changed"], event["dropped"], event["grown"], event["density"]) == (2, 1, 1, 0.5)


def test_the_step_after_an_update_moves_the_new_weights_alone():
    toy = Toy()
    toy.start(THETA, MASK)
    toy.step(GRADIENT)
    toy.step(row(1, 1, 1, 1, 1, 1))  # SGD, lr .1, first momentum 1
    assert toy.theta == [0.4, -0.2, 0, 0, -0.1, 0]


def test_momentum_of_kept_regrown_dropped_and_new_weights():
    toy = Toy()
    toy.start(THETA, MASK)
    # a previous step has left these; position 4 carries what must not come back to life
    buffer = row(1, 2, 3, 0, 5, 0)
    toy.optimizer.state[toy.layer.weight]["momentum_buffer"] = buffer
    toy.step(GRADIENT)
    #   kept 1, dropped and regrown 2, dropped 0, newly grown 0
    assert buffer.tolist() == [[1, 2, 0, 0, 0, 0]]


def test_both_moments_of_adam():
    toy = Toy(torch.optim.Adam)
    toy.start(THETA, MASK)
    state = toy.optimizer.state[toy.layer.weight]
    state.update(step=torch.tensor(7.0), exp_avg=row(1, 2, 3, 0, 5, 0), exp_avg_sq=row(2, 4, 6, 0, 10, 0))
    toy.step(GRADIENT)
    assert state["exp_avg"].tolist() == [[1, 2, 0, 0, 0, 0]]
    assert state["exp_avg_sq"].tolist() == [[2, 4, 0, 0, 0, 0]]
    assert state["step"] == 7


def test_update_steps_and_the_end():
    # T_end = int(.5 * 8) = 4: updates at 0, 2 and 4; the last one replaces nothing, since its cosine is zero
    toy = Toy(end=0.5, drop_fraction=1.0)
    toy.start(THETA, MASK)
    moved = []
    for _ in range(8):
        before = toy.theta
        toy.step(torch.rand(1, 6) + 0.5)
        alive = toy.sparse.masks["weight"][0]
        moved.append(any(a != b for a, b, live in zip(toy.theta, before, alive, strict=True) if live and b != 0))
    updates = [event for event in toy.sparse.events if event["event"] == "update"]
    assert [event["step"] for event in updates] == [0, 2, 4]
    assert updates[-1]["changed"] == 0
    assert [step for step, it in enumerate(moved) if not it] == [0, 2, 4]


def test_the_number_replaced_follows_the_cosine():
    layer = nn.Linear(100, 2, bias=False)
    sparse = sparsity.attach(
        "rigl",
        layer,
        torch.optim.SGD(layer.parameters(), lr=0.0),
        sparsity=0.5,
        total_steps=90,
        update_every=30,
        drop_fraction=0.5,
        end=1.0,
    )
    for _ in range(90):
        # gradients of the inactive weights are always larger, so that no dropped one is regrown
        layer.weight.grad = torch.where(sparse.masks["weight"], 0.0, 1.0 + torch.rand(2, 100))
        # growth at zero with a rate of zero leaves zeros, which the next drop would take first: give them a value
        with torch.no_grad():
            layer.weight[sparse.masks["weight"] & (layer.weight == 0)] = 1.0
        sparse.step()
    # 100 active: .5/2 * (1 + cos 0), (1 + cos 60), (1 + cos 120 degrees) = .5, .375, .125
    grown = [event["grown"] for event in sparse.events if event["event"] == "update"]
    assert grown == [50, 37, 12]


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 10)
    )


def train(sparse: sparsity.SparseTraining, model: nn.Module, steps: int) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        x = torch.randn(16, 1, 8, 8, generator=generator)
        y = torch.randint(10, (16,), generator=generator)
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        sparse.step()


def test_rigl_grows_where_the_dense_gradient_of_the_masked_network_is_largest():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.8, total_steps=200, allocation="uniform")
    old = {name: mask.clone() for name, mask in sparse.masks.items()}
    x, y = torch.randn(16, 1, 8, 8), torch.randint(10, (16,))
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    loss = nn.functional.cross_entropy(torch.func.functional_call(model, {**leaves, **buffers}, (x,)), y)
    dense = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    nn.functional.cross_entropy(model(x), y).backward()
    sparse.step()
    # 54 and 540 weights: 54 - floor(.8 * 54) = 11 and 108; int(.3 * 11) = 3 and int(.3 * 108) = 32 are replaced
    for name, active, replaced in (("0.weight", 11, 3), ("5.weight", 108, 32)):
        new = sparse.masks[name]
        assert int(old[name].sum()) == int(new.sum()) == active
        theta = leaves[name].detach().abs()
        by_size = sorted(theta[old[name]].tolist(), reverse=True)[: active - replaced]
        kept = old[name] & (theta >= by_size[-1])
        candidates = dense[name].abs().masked_fill(kept, 0)
        threshold = sorted(candidates.flatten().tolist(), reverse=True)[replaced - 1]
        assert torch.equal(new, kept | (candidates >= threshold))


def test_rigl_keeps_every_layers_count_and_pruned_weights_at_zero():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.9, total_steps=12, update_every=3)
    counts = sparse.masks.num_active()
    for _ in range(12):
        train(sparse, model, 1)
        assert sparse.masks.num_active() == counts
        assert not model[0].weight[~sparse.masks["0.weight"]].any()
        assert not model[5].weight[~sparse.masks["5.weight"]].any()
    assert sum(sparse.finalize().values()) == sum(counts.values())


# ---- random ---------------------------------------------------------------------------------------------------------


def test_random_counts_by_hand():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.7, total_steps=1, allocation="uniform")
    # 54 - floor(37.8) = 17 and 540 - 378 = 162
    assert sparse.masks.num_active() == {"0.weight": 17, "5.weight": 162}
    assert int((model[0].weight != 0).sum()) == 17
    assert sparse.events[0]["event"] == "initial"
    assert sparse.events[0]["dropped"] == 594 - 179


def mask_digest(topology: str, representation: str, optimizer: type[torch.optim.Optimizer], seed: int) -> str:
    model = small_net()
    rep = sparsity.represent(model, representation)
    opt = optimizer(rep.param_groups(), lr=0.01)
    settings = {"sparsity": 0.8, "total_steps": 200, "steps_per_epoch": 5, "seed": seed}
    return sparsity.attach(topology, model, opt, **settings).masks.digest()


def test_the_random_mask_depends_on_nothing_but_its_seed():
    reference = mask_digest("random", "plain", torch.optim.SGD, 3)
    torch.manual_seed(1234)  # another initialisation
    for representation in ("plain", "product", "bar", "sign_in", "spred", "pilot", "str", "powerprop"):
        for optimizer in (torch.optim.SGD, torch.optim.AdamW):
            assert mask_digest("random", representation, optimizer, 3) == reference
    assert mask_digest("rigl", "plain", torch.optim.SGD, 3) == reference
    assert mask_digest("random", "plain", torch.optim.SGD, 4) != reference


def test_drawing_masks_leaves_the_global_generator_alone():
    model = small_net()
    before = torch.get_rng_state()
    sparsity.attach("random", model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.8, total_steps=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_masks_are_spread_evenly():
    # 500 draws of 3 of 6: each position is kept in half of them, within five standard deviations (5 * 11.2)
    hits = torch.zeros(6)
    for seed in range(500):
        layer = nn.Linear(6, 1, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        sparse = sparsity.attach(
            "random", layer, optimizer, sparsity=0.5, total_steps=1, seed=seed, allocation="uniform"
        )
        hits += sparse.masks["weight"][0]
    assert (hits - 250).abs().max() < 56


def random_masks(share: float, seed: int = 0, **options: Any) -> sparsity.SparseTraining:
    network = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 40), nn.Linear(40, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return sparsity.attach("random", network, optimizer, sparsity=share, total_steps=1, seed=seed, **options)


def test_bernoulli_masks_have_the_density_on_average_alone():
    # 600 + 1200 + 400 weights at density .3; 100 draws: 66,000 expected, standard deviation sqrt(220,000 * .3 * .7)
    counts = []
    for seed in range(100):
        sparse = random_masks(0.7, seed, allocation="uniform", counts="bernoulli")
        counts.append(sum(sparse.masks.num_active().values()))
        assert sparse.topology.expected_active(sparse.shapes, 0.7) is None
    assert abs(sum(counts) - 66_000) < 5 * math.sqrt(220_000 * 0.3 * 0.7)
    assert len(set(counts)) > 20  # standard deviation of one is 21.5
    again = random_masks(0.7, 99, allocation="uniform", counts="bernoulli")
    assert sum(again.masks.num_active().values()) == counts[-1]
    assert again.finalize()  # no count is stated, so none is missed


def test_bernoulli_masks_leave_dense_layers_dense():
    sparse = random_masks(0.7, allocation="erk", counts="bernoulli", dense="first")
    assert sparse.masks.num_active()["0.weight"] == 600


def test_random_masks_with_dense_layers():
    # 30 % of 2,200 are 660, of which 400 are the last layer's; 260 of the other 1,800 in equal shares
    sparse = random_masks(0.7, allocation="uniform", dense="last")
    assert sparse.masks.num_active() == {"0.weight": 87, "1.weight": 174, "2.weight": 400}
    sparse = random_masks(0.7, allocation="uniform", dense="last", rebudget=False)
    assert sparse.masks.num_active() == {"0.weight": 180, "1.weight": 360, "2.weight": 400}


@pytest.mark.parametrize("topology", ["random", "rigl"])
def test_the_same_layers_stay_dense_in_all_methods(topology: str):
    network = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 40), nn.Linear(40, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    options = {"allocation": "erk", "dense": "first_last", "rebudget": False}
    if topology == "rigl":
        options["update_every"] = 4
    sparse = sparsity.attach(topology, network, optimizer, sparsity=0.9, total_steps=10, **options)
    for _ in range(10):
        optimizer.zero_grad()
        network(torch.ones(3, 20)).sum().backward()
        sparse.step()
    assert sparse.finalize() == {"0.weight": 600, "1.weight": 120, "2.weight": 400}


# ---- AC/DC ----------------------------------------------------------------------------------------------------------


def two_layers(first: Tensor, last: Tensor) -> nn.Sequential:
    model = nn.Sequential(
        nn.Linear(first.shape[1], first.shape[0], bias=False), nn.Linear(last.shape[1], last.shape[0], bias=False)
    )
    with torch.no_grad():
        model[0].weight.copy_(first)
        model[1].weight.copy_(last)
    return model


def compressed(model: nn.Module, share: float, **options: Any) -> sparsity.SparseTraining:
    """AC/DC after its first compression, with weights that never moved."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparse = sparsity.attach("acdc", model, optimizer, sparsity=share, total_steps=10, **options)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sparse.step()
    assert sparse.event_counts == {"compress": 1}
    return sparse


FIRST = torch.tensor([[0.9, -0.8, 0.1], [0.05, 0.02, 0.3]])
LAST = torch.tensor([[0.4, -0.35]])


def test_global_threshold_by_hand():
    # sorted: .9 .8 .4 | .35 .3 .1 .05 .02; k = ceil(8 * .5) = 4, the 4th largest is .35, and strictly larger are three,
    # two of the first layer and one of the last
    model = two_layers(FIRST, LAST)
    sparse = compressed(model, 0.5)
    assert sparse.masks["0.weight"].tolist() == [[True, True, False], [False, False, False]]
    assert sparse.masks["1.weight"].tolist() == [[True, False]]
    assert model[0].weight.tolist() == [[pytest.approx(0.9), pytest.approx(-0.8), 0], [0, 0, 0]]
    assert sparse.events[0]["dropped"] == 5


def test_global_threshold_rounds_k_up():
    # k = ceil(8 * .4) = ceil(3.2) = 4 as well; at .35 it is ceil(2.8) = 3, which leaves two
    assert compressed(two_layers(FIRST, LAST), 0.6).masks.num_active() == {"0.weight": 2, "1.weight": 1}
    assert compressed(two_layers(FIRST, LAST), 0.65).masks.num_active() == {"0.weight": 2, "1.weight": 0}


def three_layers() -> nn.Sequential:
    """|weights| 9 to 6 | 5 4 3 2 1 | .5"""
    network = nn.Sequential(*(nn.Linear(1, size, bias=False) for size in (4, 5, 1)))
    with torch.no_grad():
        for layer, values in zip(network, ((9, -8, 7, 6), (5, -4, 3, 2, 1), (0.5,)), strict=True):
            layer.weight.copy_(torch.tensor(values).view(-1, 1))  # pyright: ignore
    return network


def test_the_authors_global_threshold_without_first_and_last():
    # over the five in the middle alone: k = ceil(5 * .6) = 3, strictly larger than 3 are 5 and 4
    sparse = compressed(three_layers(), 0.4, dense="first_last", rebudget=False)
    assert sparse.masks.num_active() == {"0.weight": 4, "1.weight": 2, "2.weight": 1}
    assert sparse.topology.expected_active(sparse.shapes, 0.4) == 7
    assert sparse.masks["1.weight"].flatten().tolist() == [True, True, False, False, False]


def test_the_global_threshold_where_others_pay_for_the_dense_layers():
    # ceil(10 * .7) = 7 of ten, 5 of them in dense layers: k = 2 of the middle, strictly larger than 4 is one
    sparse = compressed(three_layers(), 0.3, dense="first_last")
    assert sparse.masks.num_active() == {"0.weight": 4, "1.weight": 1, "2.weight": 1}
    assert sparse.topology.expected_active(sparse.shapes, 0.3) == 6


def test_the_authors_uniform_allocation_leaves_first_and_last_dense():
    sparse = compressed(three_layers(), 0.4, allocation="uniform", dense="first_last", rebudget=False)
    assert sparse.masks.num_active() == {"0.weight": 4, "1.weight": 3, "2.weight": 1}
    sparse = compressed(three_layers(), 0.4, allocation="uniform")
    assert sparse.masks.num_active() == {"0.weight": 3, "1.weight": 3, "2.weight": 1}


def test_dense_layers_beyond_the_budget_are_refused():
    with pytest.raises(Infeasible, match=r"hold 50\.00% of the weights, more than the density 40\.00% allows"):
        compressed(three_layers(), 0.6, dense="first_last")


def test_the_phases_of_a_run_are_those_of_its_table():
    layer = nn.Linear(10, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    sparse = sparsity.attach("acdc", layer, optimizer, sparsity=0.5, total_steps=200, table="200ep")
    for _ in range(200):
        sparse.step()
    steps = {kind: [e["step"] for e in sparse.events if e["event"] == kind] for kind in ("compress", "decompress")}
    assert steps == {"compress": [*range(10, 171, 10), 185], "decompress": [*range(15, 176, 10)]}
    assert sparse.event_counts == sparse.expected_events()


def test_k_does_not_depend_on_binary_rounding():
    layer = nn.Linear(10, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 11.0)[None])
    assert compressed(layer, 0.7).masks.num_active() == {"weight": 2}


def test_ties_at_the_threshold_drop_together():
    # sorted: .9 .8 .5 .5 | .5 .1; k = 3 and the 3rd largest is .5: all three halves go
    layer = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(row(0.5, 0.9, -0.5, 0.1, 0.8, 0.5))
    assert compressed(layer, 0.5).masks["weight"].tolist() == [[False, True, False, False, True, False]]


def test_the_authors_constant_is_added_to_the_score():
    # in single precision 1e-4 swallows these weights, so that all four tie and none is strictly larger
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(row(1e-13, 2e-13, 3e-13, 4e-13))
    assert compressed(layer, 0.5).masks.num_active() == {"weight": 0}


def test_layer_criteria_by_hand():
    # uniform: 6 - 3 = 3 of the first layer, 2 - 1 = 1 of the last, exactly
    sparse = compressed(two_layers(FIRST, LAST), 0.5, allocation="uniform")
    assert sparse.masks["0.weight"].tolist() == [[True, True, False], [False, False, True]]
    assert sparse.masks["1.weight"].tolist() == [[True, False]]
    # ERK: raw 5/6 and 3/2, scale 4 / (5 + 3): densities 5/12 and 3/4, so 6 - 3 = 3 and 2 - 0 = 2 stay
    sparse = compressed(two_layers(FIRST, LAST), 0.5, allocation="erk")
    assert sparse.masks["0.weight"].tolist() == [[True, True, False], [False, False, True]]
    assert sparse.masks["1.weight"].tolist() == [[True, True]]


def momenta(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    return {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}


def acdc_and_dense_twin() -> list[tuple[nn.Sequential, torch.optim.Optimizer, sparsity.SparseTraining]]:
    runs = []
    for topology in ("acdc", "dense"):
        torch.manual_seed(0)
        model = small_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        runs.append((model, optimizer, sparsity.attach(topology, model, optimizer, sparsity=0.8, total_steps=40)))
    return runs


def test_compression_leaves_the_momentum_of_kept_weights_and_of_all_else():
    (model, optimizer, sparse), (twin, twin_optimizer, dense) = acdc_and_dense_twin()
    train(sparse, model, 4)  # 10 % of 40 steps
    train(dense, twin, 4)
    assert sparse.event_counts == {"compress": 1}
    expected, found = momenta(twin_optimizer, twin), momenta(optimizer, model)
    for name, buffer in found.items():
        mask = sparse.masks.get(name, torch.ones_like(buffer, dtype=torch.bool))
        assert torch.equal(buffer, torch.where(mask, expected[name], 0.0))
        assert buffer.any()
        assert torch.equal(model.get_parameter(name), torch.where(mask, twin.get_parameter(name), 0.0))


def test_decompression_restarts_the_momentum_of_all_parameters():
    model, optimizer, sparse = acdc_and_dense_twin()[0]
    train(sparse, model, 6)  # 15 % of 40 steps
    assert sparse.event_counts == {"compress": 1, "decompress": 1}
    buffers = momenta(optimizer, model)
    assert set(buffers) == {"0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias"}
    assert not any(buffer.any() for buffer in buffers.values())
    assert sparse.masks.density == 1


def test_decompression_restarts_the_momentum_of_a_learned_scalar():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.temperature = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.temperature

    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = sparsity.attach("acdc", model, optimizer, sparsity=0.5, total_steps=20)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        sparse.step()
    assert sparse.event_counts["decompress"] == 1
    assert optimizer.state[model.temperature]["momentum_buffer"] == 0


def test_decompressed_weights_return_at_zero_and_move_at_once():
    model, _, sparse = acdc_and_dense_twin()[0]
    train(sparse, model, 5)
    pruned = ~sparse.masks["5.weight"]
    train(sparse, model, 1)
    assert not model[5].weight[pruned].any()
    assert model[5].weight[~pruned].all()
    train(sparse, model, 1)
    assert model[5].weight[pruned].all()


def test_the_mask_is_built_anew_at_each_compression():
    model, _, sparse = acdc_and_dense_twin()[0]
    train(sparse, model, 7)
    assert sparse.masks.density == 1
    # the 18 largest convolution weights and 100 of the classifier, none of which was in the first mask
    with torch.no_grad():
        model[0].weight.fill_(0.01).view(-1)[-18:] = 7.0
        model[5].weight.fill_(0.01)[4, :].fill_(-7.0)
        model[5].weight[5, :46] = 7.0
    train(sparse, model, 1)
    assert sparse.event_counts == {"compress": 2, "decompress": 1}
    # 594 weights: k = ceil(118.8) = 119
    assert sparse.masks.num_active() == {"0.weight": 18, "5.weight": 100}
    assert sparse.masks["0.weight"].view(-1)[-18:].all()
    assert sparse.masks["5.weight"][4].all()


def test_acdc_run_ends_with_the_stated_count():
    model, _, sparse = acdc_and_dense_twin()[0]
    train(sparse, model, 40)
    kept = sparse.finalize()
    assert sum(kept.values()) == 118
    assert sparse.event_counts == {"compress": 8, "decompress": 7} == sparse.expected_events()


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 6, 7, 10, 13])
def test_short_acdc_runs_do_what_they_announce(total: int):
    layer = nn.Linear(6, 5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    sparse = sparsity.attach("acdc", layer, optimizer, sparsity=0.5, total_steps=total)
    for _ in range(total):
        optimizer.zero_grad()
        layer(torch.randn(4, 6)).square().sum().backward()
        sparse.step()
    assert sum(sparse.finalize().values()) == 14
    assert sparse.event_counts == {name: count for name, count in sparse.expected_events().items() if count}


def test_ties_at_the_threshold_do_not_fail_the_run():
    # adding 1e-4 in single precision makes a few of the millions of weights of a ResNet-50 tie at the threshold
    layer = nn.Linear(1000, 1000, bias=False)
    k = 50_000
    with torch.no_grad():
        layer.weight.view(-1).copy_(torch.arange(1e6) / 1e4)
        layer.weight.view(-1)[-k - 3 : -k + 2] = layer.weight.view(-1)[-k].item()  # the k-th and four around it
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    sparse = sparsity.attach("acdc", layer, optimizer, sparsity=0.95, total_steps=2)
    for _ in range(2):
        layer.weight.grad = torch.zeros_like(layer.weight)
        sparse.step()
    # by the authors' own rule all five go: k - 2 stay
    assert sparse.finalize() == {"weight": k - 2}


# ---- sparsity zero --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["random", "rigl", "acdc", "dense"])
def test_sparsity_zero_is_dense_training_bit_for_bit(topology: str):
    torch.manual_seed(0)
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.0, total_steps=12)
    train(sparse, model, 12)
    assert sparse.events == []
    assert sparse.expected_events() == {}
    assert sparse.finalize() == {"0.weight": 54, "5.weight": 540}

    torch.manual_seed(0)
    twin = small_net()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(5)
    for _ in range(12):
        x = torch.randn(16, 1, 8, 8, generator=generator)
        y = torch.randint(10, (16,), generator=generator)
        twin.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        optimizer.step()
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


# ---- what methods announce ------------------------------------------------------------------------------------------


def test_expected_kept_by_hand():
    from sparsity import registry

    shapes = {"a": (10, 10), "b": (5, 10)}
    acdc, rigl, random = (registry.topology(name) for name in ("acdc", "rigl", "random"))
    assert acdc(acdc.Options()).expected_active(shapes, 0.9) == math.ceil(15) - 1
    assert acdc(acdc.Options(allocation="uniform")).expected_active(shapes, 0.9) == 15
    assert rigl(rigl.Options(allocation="uniform")).expected_active(shapes, 0.85) == 15 + 8
    assert random(random.Options(allocation="uniform")).expected_active(shapes, 0.85) == 15 + 8
    assert acdc(acdc.Options()).expected_active(shapes, 0.0) == 150


@pytest.mark.parametrize(
    ("total", "every", "end", "updates"),
    [(100, 10, 0.75, 8), (100, 100, 0.75, 1), (100, 10, 1.0, 10), (40, 7, 0.5, 3), (1, 1, 1.0, 1)],
)
def test_rigl_announces_its_updates(total: int, every: int, end: float, updates: int):
    from sparsity import registry

    rigl = registry.topology("rigl")
    method = rigl(rigl.Options(update_every=every, end=end))
    assert method.expected_events(total, 0.9) == {"initial": 1, "update": updates}
