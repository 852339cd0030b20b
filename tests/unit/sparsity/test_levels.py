"""Several trainings in one run: densities, what is pruned, what begins again and what goes back."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from ham import HAM
from sparsity import registry
from sparsity.engine.levels import Levels
from sparsity.masking.schedules import pruning_densities
from sparsity.topology import Plan

SGD = torch.optim.SGD


@pytest.mark.parametrize(
    ("target", "fraction", "expected"),
    [
        (0.0, 0.2, []),
        (0.1, 0.2, [0.9]),  # less than one pruning
        (0.2, 0.2, [0.8]),
        (0.36, 0.2, [0.8, 0.64]),  # exactly two
        (0.37, 0.2, [0.8, 0.64, 0.63]),  # the last takes what is left to take
        (0.75, 0.5, [0.5, 0.25]),
    ],
)
def test_densities_are_powers_and_end_on_the_target(target: float, fraction: float, expected: list[float]):
    assert pruning_densities(target, fraction) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "prunings"), [(0.8, 8), (0.9, 11), (0.95, 14), (0.98, 18)])
def test_number_of_prunings_at_the_published_fraction(target: float, prunings: int):
    """0.8^7 = 0.2097 > 0.2 >= 0.8^8; 0.8^10 = 0.107 and 0.8^11 = 0.086; 0.8^13 = 0.055, 0.8^14 = 0.044; ..."""
    densities = pruning_densities(target, 0.2)
    assert len(densities) == prunings
    assert densities[-1] == 1 - target
    assert densities[-2] > 1 - target >= 0.8**prunings


# ---- by hand --------------------------------------------------------------------------------------------------------


def layer(*weights: float) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


class Toy:
    """One layer whose gradients are given by hand, at a rate of 1."""

    def __init__(self, topology: str, *weights: float, steps: int = 1, **options: Any):
        self.model = layer(*weights)
        optimizer = SGD(sparsity.represent(self.model).param_groups(), lr=1.0)
        self.sparse = sparsity.attach(
            topology, self.model, optimizer, sparsity=0.75, total_steps=steps, prune_fraction=0.5, **options
        )

    def step(self, *gradient: float) -> list[float]:
        self.model.weight.grad = torch.tensor([gradient])
        self.sparse.step()
        return self.weights

    def next_level(self) -> list[float]:
        self.sparse.next_level()
        return self.weights

    @property
    def weights(self) -> list[float]:
        return [round(value, 4) for value in self.model.weight[0].tolist()]


def test_imp_prunes_by_trained_and_continues_from_initial_weights():
    toy = Toy("imp", 0.1, -0.4, 0.3, 0.2)  # 4 weights, then 2, then 1: three levels
    assert toy.sparse.total_steps == 3
    # level 0     .1  -.4   .3   .2
    # trained     .6  -.4   .3   .2     the two largest: .6 and -.4
    # level 1     .1  -.4    -    -     at their initial values
    assert toy.step(-0.5, 0.0, 0.0, 0.0) == [0.6, -0.4, 0.3, 0.2]
    assert toy.next_level() == [0.1, -0.4, 0.0, 0.0]
    # trained     .1  -.3    -    -     the gradient of what does not exist counts for nothing
    # level 2      -  -.4    -    -
    assert toy.step(0.0, -0.1, -9.0, -9.0) == [0.1, -0.3, 0.0, 0.0]
    assert toy.next_level() == [0.0, -0.4, 0.0, 0.0]
    toy.step(0.0, -0.1, 0.0, 0.0)
    assert toy.sparse.finalize() == {"weight": 1}
    assert toy.weights == [0.0, -0.3, 0.0, 0.0]


def test_lrr_continues_from_trained_weights():
    toy = Toy("lrr", 0.1, -0.4, 0.3, 0.2)
    assert toy.step(-0.5, 0.0, 0.0, 0.0) == [0.6, -0.4, 0.3, 0.2]
    assert toy.next_level() == [0.6, -0.4, 0.0, 0.0]
    assert toy.step(0.0, -0.1, -9.0, -9.0) == [0.6, -0.3, 0.0, 0.0]
    assert toy.next_level() == [0.6, 0.0, 0.0, 0.0]
    assert toy.sparse.levels.state_dict()["origin"] == {}, "nothing goes back, so nothing is kept"


def test_wr_goes_back_to_an_early_step():
    toy = Toy("wr", 0.1, -0.4, 0.3, 0.2, steps=2, rewind=0.5)
    assert toy.step(-0.5, 0.0, 0.0, 0.0) == [0.6, -0.4, 0.3, 0.2]  # step 1 of 2: these are remembered
    assert toy.step(0.0, 0.0, -0.5, 0.0) == [0.6, -0.4, 0.8, 0.2]  # the two largest: .6 and .8
    assert toy.next_level() == [0.6, 0.0, 0.3, 0.0]
    assert toy.step(0.5, 0.0, -0.2, 0.0) == [0.1, 0.0, 0.5, 0.0]  # step 1 of level 1 is not remembered
    assert toy.step(0.0, 0.0, -0.3, 0.0) == [0.1, 0.0, 0.8, 0.0]
    assert toy.next_level() == [0.0, 0.0, 0.3, 0.0]


def test_a_weight_that_is_zero_exists_before_one_that_does_not():
    """Trained to zero, the second half is still all there is, of which a half is drawn; chance would take others."""
    toy = Toy("lrr", *range(1, 65))
    toy.step(*[0.0] * 64)
    assert toy.next_level() == [0.0] * 32 + list(range(33, 65))
    assert toy.step(*toy.weights) == [0.0] * 64
    toy.next_level()
    gone, zero = toy.sparse.masks["weight"].view(2, 32).sum(dim=1).tolist()
    assert (gone, zero) == (0, 16)
    assert toy.sparse.events[-1]["drawn"] == 16


def two_layers(allocation: str) -> dict[str, int]:
    """4 small weights and 4 large ones; 8 -> 4 -> 2."""
    model = nn.Sequential(layer(0.1, 0.2, 0.3, 0.4), layer(1.0), layer(5.0, 6.0, 7.0, 8.0))
    optimizer = SGD(sparsity.represent(model).param_groups(), lr=0.0)
    sparse = sparsity.attach(
        "imp", model, optimizer, sparsity=2 / 3, total_steps=1, prune_fraction=0.5, allocation=allocation
    )
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        sparse.step()
        sparse.next_level()
    return sparse.masks.num_active()


def test_criteria():
    # global, 9 - floor(6) = 3 of 9: the three largest of all. A layer: 4 - floor(2.67) = 2, and 1 - floor(.67) = 1
    assert two_layers("global") == {"0.weight": 0, "1.weight": 0, "2.weight": 3}
    assert two_layers("uniform") == {"0.weight": 2, "1.weight": 1, "2.weight": 2}


# ---- against twins --------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    images, labels = torch.randn(8, 1, 6, 6, generator=generator), torch.randint(5, (8,), generator=generator)
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()


MAKERS = {
    "SGD": lambda groups: SGD(groups, lr=0.1, momentum=0.9),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "HAM": lambda groups: HAM(SGD(groups, lr=0.1, momentum=0.9), alpha=5.0),
}


def until_next_level(topology: str, maker: str, steps: int = 4, representation: str = "plain") -> tuple[Any, Any]:
    model = network()
    rep = sparsity.represent(model, representation)
    sparse = sparsity.attach(
        topology, model, MAKERS[maker](rep.param_groups(1e-3)), sparsity=0.6, total_steps=steps, steps_per_epoch=steps
    )
    for step in range(steps):
        backward(model, step)
        sparse.step()
    sparse.next_level()
    return model, sparse


@pytest.mark.parametrize("maker", MAKERS)
def test_lrr_is_training_on_with_a_fresh_optimizer(maker: str):
    model, sparse = until_next_level("lrr", maker)
    twin = network()
    optimizer = MAKERS[maker](sparsity.represent(twin).param_groups(1e-3))
    for step in range(4):
        backward(twin, step)
        optimizer.step()
    masks = dict(sparse.masks)
    with torch.no_grad():  # pruning to 80 %, spelled out: 356 - floor(0.2 · 356) = 285 largest
        weights = {name: parameter for name, parameter in twin.named_parameters() if name in masks}
        threshold = torch.cat([w.abs().flatten() for w in weights.values()]).sort(descending=True).values[284]
        for name, weight in weights.items():
            assert torch.equal(weight.abs() >= threshold, masks[name])
            weight.masked_fill_(~masks[name], 0.0)
    optimizer = MAKERS[maker](_groups(twin, optimizer))
    for step in range(4, 8):
        backward(model, step)
        sparse.step()
        backward(twin, step)
        for name, weight in weights.items():
            assert weight.grad is not None
            weight.grad.masked_fill_(~masks[name], 0.0)
        optimizer.step()
    for name, tensor in twin.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def _groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{key: group[key] for key in ("params", "weight_decay", "ham")} for group in optimizer.param_groups]


@pytest.mark.parametrize("maker", MAKERS)
def test_imp_begins_its_second_level_as_its_first_under_the_mask(maker: str):
    """Bit for bit: weights, biases, normalisation and batch statistics; and so do its moments."""
    model, sparse = until_next_level("imp", maker)
    initial = network().state_dict()
    assert 0 < sum(sparse.masks.num_active().values()) < sum(sparse.masks.sizes.values())
    for name, tensor in model.state_dict().items():
        expected = initial[name].masked_fill(~sparse.masks[name], 0.0) if name in sparse.masks else initial[name]
        assert torch.equal(tensor, expected), name
    assert not sparse.optimizer.state


def test_a_rewound_product_has_its_early_factors_back():
    """m and w themselves, not another factorisation of the same product; what was pruned is parked at (1, 0)."""
    model, sparse = until_next_level("imp", "SGD", representation="product")
    twin = network()
    before = sparsity.represent(twin, "product")
    for name, slot in sparse.representation.slots.items():
        mask, (m, w), (old_m, old_w) = sparse.masks[name], slot.factors, before.slots[name].factors
        assert torch.equal(m, old_m.where(mask, torch.ones(())))
        assert torch.equal(w, old_w.where(mask, torch.zeros(())))


def test_the_copy_survives_a_checkpoint_and_is_not_the_live_network():
    model, sparse = until_next_level("wr", "SGD")
    buffer = io.BytesIO()
    torch.save(sparse.state_dict(), buffer)
    backward(model, 0)
    sparse.step()
    loaded = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)["levels"]
    twin = network()
    optimizer = MAKERS["SGD"](sparsity.represent(twin).param_groups(1e-3))
    backward(twin, 0)  # a tenth of four steps is rounded up to the first
    optimizer.step()
    assert loaded["index"] == 1
    assert all(torch.equal(loaded["origin"][name], tensor) for name, tensor in twin.state_dict().items())


# ---- cyclic ---------------------------------------------------------------------------------------------------------


def attached(topology: str, target: float, **options: Any) -> sparsity.SparseTraining:
    model = network()
    return sparsity.attach(
        topology, model, SGD(model.parameters(), lr=0.1), sparsity=target, total_steps=2, seed=7, **options
    )


def walk(sparse: sparsity.SparseTraining) -> list[tuple[int, float]]:
    """(level, density) at the beginning of each level."""
    seen = []
    for step in range(sparse.total_steps):
        if sparse.step_in_level == 0:
            seen.append((sparse.level, sparse.masks.density))
        backward(sparse.representation.model, step)
        sparse.step()
        if sparse.level_ended:
            sparse.next_level()
    return seen


def test_cyclic_prunes_once_after_its_cycles():
    sparse = attached("cyclic", 0.9, cycles=2, retrain=2)
    first = dict(sparse.masks)
    # 0.8 and 0.1 of 36 + 320 = 356 weights: ERK by layer, at most one more each; then 356 - floor(320.4) = 36 exactly
    assert walk(sparse) == [
        (0, pytest.approx(0.8, abs=2 / 356)),
        (1, pytest.approx(0.8, abs=2 / 356)),
        (2, 36 / 356),
        (3, 36 / 356),
    ]
    assert sparse.event_counts == sparse.expected_events() == {"initial": 1, "prune": 1}
    assert all(not (mask & ~first[name]).any() for name, mask in sparse.masks.items()), "nothing comes back"
    assert sum(sparse.finalize().values()) == 36


def test_the_weights_of_cyclic_run_through():
    sparse = attached("cyclic", 0.9, cycles=2, retrain=1)
    for step in range(sparse.total_steps):
        backward(sparse.representation.model, step)
        sparse.step()
        if sparse.level_ended:
            trained = {name: theta.clone() for name, theta in sparse.representation.weights()}
            sparse.next_level()
            for name, theta in sparse.representation.weights():
                assert torch.equal(theta, trained[name] * sparse.masks[name])
    assert sparse.level == 2


@pytest.mark.parametrize("prune_globally", [True, False])
def test_the_first_mask_of_cyclic_contains_that_of_random_pruning(prune_globally: bool):
    sparse = attached("cyclic", 0.9, prune_globally=prune_globally, allocation="balanced")
    random = attached("random", 0.9, allocation="balanced")
    assert all(not (mask & ~sparse.masks[name]).any() for name, mask in random.masks.items())
    walk(sparse)
    assert (sparse.masks.num_active() == random.masks.num_active()) == (not prune_globally)


def test_cyclic_at_a_low_target_trains_the_mask_of_random_pruning():
    sparse, random = attached("cyclic", 0.15), attached("random", 0.15)
    assert sparse.masks == random.masks
    walk(sparse)
    assert sparse.masks == random.masks
    assert sparse.event_counts == sparse.expected_events() == {"initial": 1}
    assert sum(sparse.finalize().values()) == sum(random.masks.num_active().values())


# ---- what is refused, and what happens without levels ---------------------------------------------------------------


def test_levels_are_begun_where_one_ended_and_nowhere_else():
    toy = Toy("imp", 0.1, -0.4, 0.3, 0.2)
    with pytest.raises(RuntimeError, match="between two trainings alone"):
        toy.next_level()
    toy.step(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(RuntimeError, match=r"level 0 has ended: call next_level\(\)"):
        toy.step(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(RuntimeError, match=r"1 of 3 trainings are done: call next_level\(\)"):
        toy.sparse.finalize()


def test_levels_are_whole_epochs():
    model = network()
    with pytest.raises(ValueError, match="total_steps must be whole epochs"):
        sparsity.attach("imp", model, SGD(model.parameters()), sparsity=0.5, total_steps=5, steps_per_epoch=2)


def test_a_target_that_cannot_be_had_is_refused_before_training():
    with pytest.raises(ValueError, match="the layers kept dense hold"):
        attached("imp", 0.9, dense="last")


def test_all_weights_are_one_level():
    sparse = attached("imp", 0.0)
    assert (sparse.levels.count, sparse.total_steps, sparse.expected_events()) == (1, 2, {})
    assert sparse.masks.density == 1


@pytest.mark.parametrize("topology", [name for name, kind in registry.topologies().items() if kind.repeats])
def test_a_representation_with_a_target_of_its_own_is_refused(topology: str):
    reason = registry.refusal(topology, "str")
    assert reason is not None
    assert "aims at it itself" in reason


def test_training_costs_what_each_level_costs():
    """8 -> 4 -> 2 of 8 weights, one step each: (1 + 1/2 + 1/4) / 3 of dense training for as many steps."""
    toy = Toy("lrr", *[float(n) for n in range(1, 9)])
    for _ in range(2):
        toy.step(*[0.0] * 8)
        toy.next_level()
    toy.step(*[0.0] * 8)
    toy.sparse.finalize()
    assert toy.sparse.cost.fraction({"weight": 1}) == pytest.approx(1.75 / 3)


@pytest.mark.parametrize(("share", "steps", "step"), [(0.3, 5, 2), (0.25, 6, 2), (0.1, 4, 1), (0.9, 7, 6)])
def test_a_rewind_goes_back_to_the_nearest_step(share: float, steps: int, step: int):
    """1.5 steps are 2 (to even), 1.5, 0.4 and 6.3; at least one."""
    model = nn.Linear(1, 1, bias=False)
    levels = Levels(Plan(2, share), steps, model)
    for done in range(1, steps + 1):
        with torch.no_grad():
            model.weight.fill_(done)
        levels.remember(done)
    levels.rewind()
    assert model.weight.item() == step
