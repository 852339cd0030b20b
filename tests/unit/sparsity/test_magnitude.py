"""GMP and one-shot pruning on rows of weights whose order is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from sparsity import registry
from sparsity.masking.schedules import cubic
from sparsity.options import OptionError


def row_net(*sizes: int) -> nn.Sequential:
    """Layers of one input each; |weights| 1, 2, 3, … through all layers, of alternating sign."""
    network, start = nn.Sequential(), 1
    for size in sizes:
        layer = nn.Linear(1, size, bias=False)
        with torch.no_grad():
            values = torch.arange(start, start + size, dtype=torch.float32)
            layer.weight.copy_((values * (-1) ** values).view(size, 1))
        network.append(layer)
        start += size
    return network


def attach(topology: str, network: nn.Module, share: float, steps: int, **options: Any) -> sparsity.SparseTraining:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    return sparsity.attach(topology, network, optimizer, sparsity=share, total_steps=steps, **options)


def kept_by_step(sparse: sparsity.SparseTraining) -> list[int]:
    """Number of weights after each step of a run in which none moves."""
    counts = []
    for _ in range(sparse.total_steps):
        sparse.step()
        counts.append(sum(sparse.masks.num_active().values()))
    return counts


# ---- the curve ------------------------------------------------------------------------------------------------------


def test_the_cubic_curve_by_hand():
    # 1 - (1 - x)^3
    assert [cubic(x) for x in (0, 1 / 3, 0.5, 2 / 3, 1)] == pytest.approx([0, 19 / 27, 7 / 8, 26 / 27, 1])
    assert [cubic(x) for x in (-0.5, 1.5)] == [0, 1]


def test_gmp_by_hand():
    # t0 = 4, t1 = 16, every 4 steps: cuts after 8, 12 and 16 at 19/27, 26/27 and all of the 27 zeros of 54 weights
    sparse = attach("gmp", row_net(54), 0.5, 20, start=0.2, end=0.8, update_every=4)
    assert kept_by_step(sparse) == [54] * 7 + [54 - 19] * 4 + [54 - 26] * 4 + [27] * 5
    assert [(e["event"], e["step"], e["dropped"], e["grown"]) for e in sparse.events] == [
        ("prune", 8, 19, 0),
        ("prune", 12, 7, 0),
        ("prune", 16, 1, 0),
    ]
    assert sparse.masks["0.weight"].flatten().tolist() == [False] * 27 + [True] * 27
    assert sparse.finalize() == {"0.weight": 27}


def test_gmp_reaches_the_target_at_the_end_of_its_ramp_whatever_the_interval():
    # cuts after 7 = 2 + 5 and, off the grid, after 10
    sparse = attach("gmp", row_net(8), 0.75, 12, start=0.17, end=0.84, update_every=5)
    assert [event["step"] for event in sparse.events] == []
    counts = kept_by_step(sparse)
    # share 5/8 of the ramp: 1 - (3/8)^3 = .947 of 6 zeros is 5.68
    assert counts == [8] * 6 + [3] * 3 + [2] * 3
    assert sparse.expected_events() == {"prune": 2}


@pytest.mark.parametrize("total", range(1, 30))
def test_gmp_does_what_it_announces_however_short_the_run(total: int):
    sparse = attach("gmp", row_net(5, 7), 0.5, total, update_every=3)
    kept_by_step(sparse)
    assert sparse.event_counts == sparse.expected_events()
    assert sum(sparse.finalize().values()) == 6


def test_the_ramp_of_strs_configuration():
    # 100 epochs, pruned from epoch 20 on, once an epoch: 1 - (1 - (e - 20) / 60)^3 for e = 21 ... 79
    gmp = registry.topology("gmp")
    method = gmp(gmp.Options(update_every=1))
    assert method.cuts(100) == list(range(21, 81))
    size = 1_000_000
    sparse = attach("gmp", nn.Linear(1000, 1000, bias=False), 0.9, 100, update_every=1, allocation="uniform")
    counts = kept_by_step(sparse)
    for epoch in range(21, 80):
        published = 0.9 - 0.9 * (1 - (epoch - 20) / 60) ** 3
        assert abs(size - counts[epoch - 1] - published * size) <= 1
    assert counts[79] == counts[99] == 100_000


# ---- what goes ------------------------------------------------------------------------------------------------------


def test_global_pruning_empties_the_layer_of_the_smallest():
    # weights 1-4 | 5-12: half of twelve are 1-6
    sparse = attach("gmp", row_net(4, 8), 0.5, 1)
    kept_by_step(sparse)
    assert sparse.masks.num_active() == {"0.weight": 0, "1.weight": 6}


def test_pruning_by_layer_follows_each_layers_own_curve():
    # 18 and 54 weights of which 9 and 27 go; after 1/3 of the ramp 19/27 of them: 6.33 and 19
    sparse = attach("gmp", row_net(18, 54), 0.5, 3, start=0.0, end=1.0, update_every=1, allocation="uniform")
    sparse.step()
    assert sparse.masks.num_active() == {"0.weight": 18 - 6, "1.weight": 54 - 19}
    sparse.step()
    assert sparse.masks.num_active() == {"0.weight": 18 - 8, "1.weight": 54 - 26}
    sparse.step()
    assert sparse.masks.num_active() == {"0.weight": 9, "1.weight": 27}


def test_what_is_gone_stays_gone_and_a_zero_that_exists_goes_last():
    found = set()
    for seed in range(10):
        network = row_net(6)
        sparse = attach("gmp", network, 0.5, 2, start=0.0, end=1.0, update_every=1, seed=seed)
        sparse.step()  # 7/8 of 3 zeros: 1 and 2 go
        assert sparse.masks["0.weight"].flatten().tolist() == [False, False, True, True, True, True]
        with torch.no_grad():
            network[0].weight[2:] = torch.tensor([[4.0], [0.0], [0.0], [6.0]])
        sparse.step()
        found.add(tuple(sparse.masks["0.weight"].flatten().nonzero().flatten().tolist()))
    # three stay: two, and one of the zeros that exist, not of those before them that do not
    assert found == {(2, 3, 5), (2, 4, 5)}


def test_a_cut_put_off_by_a_step_that_is_not_finite_comes_after_the_next():
    network = row_net(4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    sparse = sparsity.attach("gmp", network, optimizer, sparsity=0.5, total_steps=4, start=0.0, end=0.5, update_every=9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for bad in (False, True, False, False):
        optimizer.zero_grad()
        loss = scaler.scale(network(torch.full((1, 1), float("inf") if bad else 0.0)).sum())
        loss.backward()
        sparse.step(scaler=scaler)
    assert [(event["event"], event["step"]) for event in sparse.events] == [("prune", 3)]


# ---- one shot -------------------------------------------------------------------------------------------------------


def test_one_shot_before_the_first_step():
    sparse = attach("one_shot", row_net(4, 8), 0.75, 5)
    assert sparse.masks.num_active() == {"0.weight": 0, "1.weight": 3}
    assert kept_by_step(sparse) == [3] * 5
    assert sparse.event_counts == sparse.expected_events() == {"initial": 1}


def test_one_shot_by_layer():
    sparse = attach("one_shot", row_net(4, 8), 0.75, 5, allocation="uniform")
    assert [mask.flatten().tolist() for mask in sparse.masks.values()] == [
        [False] * 3 + [True],
        [False] * 6 + [True] * 2,
    ]


@pytest.mark.parametrize(("at", "step"), [(0.5, 5), (0.39, 3), (1.0, 10)])
def test_one_shot_on_the_way(at: float, step: int):
    sparse = attach("one_shot", row_net(4, 8), 0.5, 10, at=at)
    assert kept_by_step(sparse) == [12] * (step - 1) + [6] * (11 - step)
    assert [(event["event"], event["step"]) for event in sparse.events] == [("prune", step)]
    assert sparse.expected_events() == {"prune": 1}


def test_layers_left_dense_pay_nothing_and_others_pay_for_them():
    # weights 1-4 | 5-12 | 13-16; 50 % of 16 are 8 zeros, all in the middle
    sparse = attach("one_shot", row_net(4, 8, 4), 0.5, 1, dense="first_last")
    assert sparse.masks.num_active() == {"0.weight": 4, "1.weight": 0, "2.weight": 4}
    sparse = attach("one_shot", row_net(4, 8, 4), 0.5, 1, dense="first_last", rebudget=False)
    assert sparse.masks.num_active() == {"0.weight": 4, "1.weight": 4, "2.weight": 4}
    sparse = attach("one_shot", row_net(4, 8, 4), 0.5, 1, dense="last")
    assert sparse.masks.num_active() == {"0.weight": 0, "1.weight": 4, "2.weight": 4}


@pytest.mark.parametrize("topology", ["gmp", "one_shot"])
def test_sparsity_zero_does_nothing(topology: str):
    sparse = attach(topology, row_net(4, 8), 0.0, 5)
    assert kept_by_step(sparse) == [12] * 5
    assert sparse.events == []
    assert sparse.expected_events() == {}
    assert sum(sparse.finalize().values()) == 12


def test_options_out_of_range_are_refused():
    with pytest.raises(OptionError, match="end: 0.5 is out of range: must be > start, 0.8"):
        attach("gmp", row_net(4), 0.5, 5, start=0.8, end=0.5)
    with pytest.raises(OptionError, match="at: 1.5 is out of range: must be <= 1"):
        attach("one_shot", row_net(4), 0.5, 5, at=1.5)
