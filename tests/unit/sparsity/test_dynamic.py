"""Dynamic sparse training: which weight drops and which grows, on layers small enough to say by hand."""

from __future__ import annotations

import hashlib
import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sparsity
from sparsity import MaskSet, OptionError, registry
from sparsity.dynamic import MaskUpdates, share_out
from sparsity.topologies.set import keep_of_each_sign


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def bits(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


class Toy:
    """Layers of one row each, whose weights, masks and gradients the test writes itself."""

    def __init__(self, topology: str, *sizes: int, share: float = 0.5, lr: float = 0.0, total: int = 8, **options: Any):
        self.model = nn.ModuleList(nn.Linear(size, 1, bias=False) for size in sizes)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        per_epoch, seed = options.pop("per_epoch", None), options.pop("seed", 0)
        settings: dict[str, Any] = {"total_steps": total, "steps_per_epoch": per_epoch, "seed": seed, **options}
        self.sparse = sparsity.attach(topology, self.model, self.optimizer, sparsity=share, **settings)

    def start(self, *layers: tuple[Tensor, Tensor]) -> None:
        """Weights and masks of each layer."""
        self.sparse.set_masks(MaskSet({f"{i}.weight": mask for i, (_, mask) in enumerate(layers)}), "initial")
        with torch.no_grad():
            for layer, (theta, mask) in zip(self.model, layers, strict=True):
                layer.weight.copy_(theta * mask)

    def step(self, *gradients: Tensor) -> None:
        for layer, gradient in zip(self.model, gradients, strict=True):
            layer.weight.grad = gradient.clone()
        self.sparse.step()

    def mask(self, layer: int = 0) -> list[int]:
        return self.sparse.masks[f"{layer}.weight"][0].int().tolist()

    def theta(self, layer: int = 0) -> list[float]:
        return [round(value, 6) for value in self.model[layer].weight[0].tolist()]


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 10)
    )


def batch(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)


def train(sparse: sparsity.SparseTraining, model: nn.Module, steps: range) -> list[float]:
    losses = []
    for index in steps:
        x, y = batch(index % 4)  # the same four batches, so that something can be learned
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        sparse.step()
        losses.append(loss.item())
    return losses


# ---- RiGL with averaged gradients -----------------------------------------------------------------------------------

THETA, MASK = row(0.5, -0.1, 0.3, 0, 0, 0), bits(1, 1, 1, 0, 0, 0)
RIGL = {"update_every": 2, "drop_fraction": 0.7, "end": 1.0, "allocation": "uniform"}
#   f(2) = .35 (1 + cos(2 pi / 8)) = .597, so k = int(.597 * 3) = 1: -.1 drops


def test_growth_by_the_mean_gradient_of_the_last_passes():
    toy = Toy("rigl", 6, **RIGL, average=2, at_start=False)
    toy.start((THETA, MASK))
    #   position 0  1  2   3     4    5
    toy.step(row(9, 9, 9, 0, 0, 99))  # not among the last two
    toy.step(row(9, 0, 9, -0.5, 0.2, 0))
    toy.step(row(9, 0, 9, 0.6, 0.5, 0))
    #   mean               .05  .35        4 grows; by the last gradient alone it would be 3
    assert toy.mask() == [1, 0, 1, 0, 1, 0]
    assert toy.sparse.event_counts == {"initial": 2, "update": 1}
    assert toy.sparse.events[-1]["step"] == 2


def test_gradients_are_held_within_the_window_alone():
    toy = Toy("rigl", 6, **{**RIGL, "update_every": 4}, average=2, at_start=False)
    held = []
    for _ in range(8):
        toy.step(torch.ones(1, 6))
        held.append(len(toy.sparse.topology.state_dict()["_gradient"]["_sums"]))
    #   updates at 4 alone (8 is the end): the pass at 3 is kept, that at 4 is used, and nothing is kept for an update
    #   that will not come
    assert held == [0, 0, 0, 1, 0, 0, 0, 0]


def test_fewer_passes_than_are_averaged_at_the_start():
    toy = Toy("rigl", 6, **RIGL, average=2)
    toy.start((THETA, MASK))
    #   k = int(.7 * 3) = 2: -.1 and .3 drop, 4 and 1 grow by the one gradient there is
    toy.step(row(9, 0.4, 0.1, 0.2, 0.9, 0.3))
    assert toy.mask() == [1, 1, 0, 0, 1, 0]


def test_the_weight_step_before_the_update():
    toy = Toy("rigl", 6, **RIGL, also_step=True, lr=0.1)
    toy.start((row(0.5, 0.05, 0.06, 0, 0, 0), MASK))
    toy.step(torch.zeros(1, 6))
    assert toy.sparse.event_counts == {"initial": 2}  # none at step 0
    #   lr .1, only .05 has a gradient among the active and becomes .55: after the step .06 is the smallest and drops,
    #   before it .05 was; 4 grows by the dense gradient of the same step, and has not moved yet
    toy.step(row(0, -5, 0, 0.2, 0.9, 0))
    assert toy.mask() == [1, 1, 0, 0, 1, 0]
    assert toy.theta() == [0.5, 0.55, 0, 0, 0, 0]
    assert toy.sparse.events[-1]["step"] == 2


@pytest.mark.parametrize("options", [{"average": 3}, {"also_step": True}, {"average": 4, "also_step": True}])
@pytest.mark.parametrize("cut", [5, 6, 7])
def test_resumed_in_the_middle_of_a_window(options: dict[str, Any], cut: int):
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer, sparsity.SparseTraining]:
        torch.manual_seed(0)
        model = small_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        settings = {"sparsity": 0.8, "total_steps": 12, "update_every": 4, **options}
        return model, optimizer, sparsity.attach("rigl", model, optimizer, **settings)

    whole, resumed = fresh(), fresh()
    saved = io.BytesIO()
    for index in range(12):
        if index == cut:
            torch.save([part.state_dict() for part in whole], saved)
        train(whole[2], whole[0], range(index, index + 1))
    for part, state in zip(resumed, torch.load(io.BytesIO(saved.getvalue()), weights_only=True), strict=True):
        part.load_state_dict(state)
    train(resumed[2], resumed[0], range(cut, 12))
    assert whole[2].event_counts == resumed[2].event_counts
    assert whole[2].masks == resumed[2].masks
    assert all(torch.equal(value, resumed[0].state_dict()[key]) for key, value in whole[0].state_dict().items())


# ---- when masks are updated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "total", "updates"),
    [
        ("rigl", {"update_every": 10, "at_start": False}, 100, 7),  # 10 ... 70
        ("rigl", {"update_every": 10, "also_step": True, "end": 1.0}, 100, 9),  # not at 100, the end
        ("set", {"update_every": 10}, 100, 8),  # 0 ... 70
        ("set", {"update_every": 10, "also_step": True, "end": 1.0}, 101, 10),
        ("snfs", {"update_every": 5, "unit": "step"}, 20, 3),  # after epochs 1, 2, 3 of 4
        ("granet", {"update_every": 10}, 100, 9),
        ("granet", {"update_every": 10, "ramp_start": 0.2}, 100, 8),  # from 20
        ("granet", {"update_every": 10, "ramp_start": 0.25}, 100, 7),  # from 30, the first that is not before the ramp
        (
            "mest",
            {"update_every": 10, "unit": "step", "mutation": 0.05},
            100,
            7,
        ),  # 10 ... 70; from 80 on nothing mutates
        ("mest", {"update_every": 10, "unit": "step", "soft_bound": True, "mutation": 0.05}, 100, 8),  # 80: no growth
        (
            "mest",
            {"update_every": 30, "unit": "step", "soft_bound": True, "end": 1.0, "mutation": 0.05},
            100,
            3,
        ),  # 90 is the last there is
    ],
)
def test_updates_are_announced_and_happen(name: str, options: dict[str, Any], total: int, updates: int):
    method = registry.topology(name)
    assert method(method.Options(**options)).expected_events(total, 0.9).get("update", 0) == updates
    toy = Toy(name, 40, 20, share=0.9, total=total, **options)
    for _ in range(total):
        toy.step(torch.randn(1, 40), torch.randn(1, 20))
    counts = {kind: count for kind, count in toy.sparse.expected_events().items() if count}
    assert toy.sparse.event_counts == counts
    assert counts.get("update", 0) == updates
    toy.sparse.finalize()  # holds the count against what is announced


@pytest.mark.parametrize("name", ["rigl", "set", "snfs", "granet", "mest"])
def test_nothing_happens_without_sparsity(name: str):
    toy = Toy(name, 6, share=0.0, per_epoch=4)
    for _ in range(8):
        toy.step(torch.randn(1, 6))
    assert (toy.sparse.events, toy.sparse.expected_events()) == ([], {})
    assert toy.sparse.finalize() == {"0.weight": 6}
    assert toy.sparse.cost.fraction({"0.weight": 1}) == 1


def test_an_update_that_a_non_finite_step_puts_off():
    toy = Toy("set", 8, total=12, update_every=4, also_step=True, end=1.0, allocation="uniform")
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for index in range(12):
        scaler.scale((toy.model[0](torch.randn(2, 8)) * (math.inf if index == 3 else 1)).sum()).backward()
        toy.sparse.step(scaler=scaler)
        toy.optimizer.zero_grad()
    assert [event["step"] for event in toy.sparse.events] == [0, 5, 8]


def test_steps_between_updates_are_rescaled_to_the_batch_size():
    toy = Toy("rigl", 8, batch_reference=4096, batch_size=512, total=1100)
    assert (toy.sparse.topology.options.update_every, toy.sparse.topology.options.batch_reference) == (800, None)
    often = Toy("set", 8, update_every=1, batch_reference=8, batch_size=64, also_step=True)
    assert often.sparse.topology.options.update_every == 1
    granet = Toy("granet", 6, total=20, update_every=3, batch_reference=7, batch_size=8)
    assert granet.sparse.topology.options.update_every == 3  # 2.6 steps
    with pytest.raises(ValueError, match="'rigl' has batch_reference: give attach batch_size"):
        Toy("rigl", 8, batch_reference=4096, total=1100)


@pytest.mark.parametrize(
    ("name", "options", "total"),
    [
        ("rigl", {}, 100),  # updates end at step 75, the first after step 0 would be that at 100
        ("rigl", {"update_every": 9, "at_start": False}, 11),
        ("set", {}, 50),
        ("snfs", {"update_every": 5, "unit": "step"}, 5),
        ("granet", {"update_every": 40}, 100),  # the ramp ends at 30
        ("mest", {"update_every": 200, "unit": "step", "soft_bound": True}, 100),
    ],
)
def test_a_schedule_without_an_update_after_the_start_is_refused(name: str, options: dict[str, Any], total: int):
    with pytest.raises(sparsity.OptionError, match=r"update_every: \d+ steps are too long.*would never"):
        Toy(name, 40, total=total, **options)
    Toy(name, 40, total=total, share=0.0, **options)  # a dense training has no masks to update


@pytest.mark.parametrize("options", [{}, {"unit": "epoch", "per_epoch": 1}, {"batch_reference": 8, "batch_size": 64}])
@pytest.mark.parametrize("name", ["rigl", "set"])
def test_updates_in_place_of_every_weight_step_are_refused(name: str, options: dict[str, Any]):
    with pytest.raises(sparsity.OptionError) as caught:
        Toy(name, 40, update_every=1, total=40, **options)
    assert str(caught.value) == (
        f"update_every: 1 is out of range: an update of {name} replaces the weight step, so no weight would move until "
        "step 31; must be >= 2 steps, or also_step: true"
    )
    Toy(name, 40, update_every=1, total=40, **options, also_step=True)
    Toy(name, 40, update_every=1, total=40, share=0.0, **options)


@pytest.mark.parametrize("name", registry.topologies())
def test_no_topology_replaces_every_weight_step(name: str):
    """Whatever updates in place is refused where nothing would train, found by what the classes say of themselves."""
    method = registry.topology(name)
    if not (issubclass(method, MaskUpdates) and method(method.Options()).in_place):
        return
    with pytest.raises(sparsity.OptionError, match="so no weight would move"):
        Toy(name, 40, update_every=1, total=40)


@pytest.mark.parametrize(
    ("name", "key", "options"),
    [
        ("rigl", "drop_fraction", {"drop_fraction": 1e-9}),
        ("set", "drop_fraction", {"drop_fraction": 0.04}),
        ("mest", "mutation", {"mutation": 0.02, "unit": "step"}),
    ],
)
def test_an_update_that_could_replace_no_weight_is_refused(name: str, key: str, options: dict[str, Any]):
    with pytest.raises(sparsity.OptionError) as caught:
        Toy(name, 40, update_every=2, total=40, **options)
    assert str(caught.value) == (
        f"{key}: {options[key]:g} is out of range: in no layer is it a whole weight, so {name} would never change its "
        "masks"
    )
    if options.get("drop_fraction") == 0.04:  # of 20; a billionth of them is none, however it is rounded
        Toy(name, 40, update_every=2, total=40, **options, rounding="ceil")


def test_epochs_between_updates():
    toy = Toy("mest", 6, per_epoch=7, update_every=2, total=70, share=0.5, mutation=0.2)
    assert (toy.sparse.topology.options.update_every, toy.sparse.topology.options.unit) == (14, "step")
    with pytest.raises(ValueError, match="'snfs' counts update_every in epochs: give attach steps_per_epoch"):
        Toy("snfs", 6)


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("rigl", {"average": 5, "update_every": 4}, "average"),
        ("rigl", {"average": 5, "update_every": 10, "batch_reference": 1, "batch_size": 8}, "average"),
        ("set", {"unit": "epoch", "batch_reference": 8}, "batch_reference"),
        ("granet", {"initial_sparsity": 0.6}, "initial_sparsity"),
        ("mest", {"mutation": 0.5, "per_epoch": 4}, "mutation"),
    ],
)
def test_options_that_do_not_go_together(name: str, options: dict[str, Any], key: str):
    with pytest.raises(OptionError) as caught:
        Toy(name, 6, **options)
    assert caught.value.key == key


# ---- SET ------------------------------------------------------------------------------------------------------------


def test_the_smallest_of_each_sign_drop():
    #   theta   .5  .1  .2  -.9  -.8  -.7   0    half of each sign: of .5 .1 .2 one drops, .1, of the negatives -.7,
    #   active   x   x   x   x    x    x         though .2 is smaller
    theta, mask = row(0.5, 0.1, 0.2, -0.9, -0.8, -0.7, 0), bits(1, 1, 1, 1, 1, 1, 0)
    assert keep_of_each_sign(theta, mask, 0.5).int().tolist() == [[1, 0, 1, 1, 1, 0, 0]]
    #   an active zero counts as positive and is the first to drop; the inactive one stays out
    assert keep_of_each_sign(row(0.5, 0, 0), bits(1, 1, 0), 0.5).int().tolist() == [[1, 0, 0]]
    #   of two a quarter is none
    assert keep_of_each_sign(row(0.5, 0, 0), bits(1, 1, 0), 0.25).int().tolist() == [[1, 1, 0]]


def set_twin(theta: list[float], mask: list[int], fraction: float, seed: int, step: int) -> list[int]:
    """The rule in plain Python: sort, drop, and grow by the highest of random scores."""
    active = [i for i, on in enumerate(mask) if on]
    replaced = int(fraction * len(active))
    kept = sorted(active, key=lambda i: (-abs(theta[i]), i))[: len(active) - replaced]
    digest = hashlib.sha256(f"{seed}/grow 0.weight/{step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    scores = torch.rand((1, len(mask)), generator=generator)[0].tolist()
    others = [i for i in range(len(mask)) if i not in kept]
    grown = sorted(others, key=lambda i: (-scores[i], i))[:replaced]
    return [int(i in kept or i in grown) for i in range(len(mask))]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_set_against_a_literal_twin(seed: int):
    toy = Toy("set", 30, lr=0.1, total=20, update_every=3, end=1.0, drop_fraction=0.5, allocation="uniform", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for step in range(20):
        expected = toy.mask()
        if step % 3 == 0:
            fraction = 0.25 * (1 + math.cos(math.pi * step / 20))
            expected = set_twin(toy.model[0].weight[0].tolist(), expected, fraction, seed, step)
        before = toy.mask()
        theta = toy.theta()
        toy.step(torch.randn(1, 30, generator=generator))
        assert toy.mask() == expected
        if step % 3 == 0:  # in place of the weight step: what existed has not moved, what is new is zero
            assert toy.theta() == [t if new and old else 0 for t, old, new in zip(theta, before, expected, strict=True)]
    assert toy.sparse.event_counts == {"initial": 1, "update": 7}


def test_growth_is_uniform_over_all_positions_outside_the_kept_set():
    #   4 of 8 active, 2 drop (k = 2): 2 of 6 grow, so each of the six, the two just dropped among them, in a third
    hits = torch.zeros(8)
    for seed in range(300):
        toy = Toy("set", 8, seed=seed, total=4, update_every=2, end=1.0, drop_fraction=0.5, allocation="uniform")
        toy.start((row(4, 3, 2, 1, 0, 0, 0, 0), bits(1, 1, 1, 1, 0, 0, 0, 0)))
        toy.step(torch.zeros(1, 8))
        hits += torch.tensor(toy.mask())
    assert hits[:2].tolist() == [300, 300]
    # 100 each, within five standard deviations (8.2)
    assert (hits[2:] - 100).abs().max() < 41


def test_layers_and_steps_grow_differently():
    toy = Toy("set", 40, 40, update_every=2, end=1.0, drop_schedule="constant", drop_fraction=1.0, allocation="uniform")
    seen = []
    for _ in range(3):
        if seen:
            toy.step(torch.zeros(1, 40), torch.zeros(1, 40))
        toy.step(torch.zeros(1, 40), torch.zeros(1, 40))
        seen += [tuple(toy.mask(0)), tuple(toy.mask(1))]
    assert len(set(seen)) == 6


def test_set_needs_no_gradient_to_grow():
    toy = Toy("set", 8, total=4, update_every=2)
    toy.sparse.grad = None  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(4):
        toy.step(torch.zeros(1, 8))
    assert toy.sparse.event_counts["update"] == 2


# ---- SNFS -----------------------------------------------------------------------------------------------------------


def test_sharing_out_by_hand():
    # the drawing in the docstring: 6 3 1, two of the six do not fit and go in equal parts
    assert share_out(10, [0.6, 0.3, 0.1], [4, 9, 9]) == [4, 4, 2]
    # 2, 1.2, .8: the largest remainder; equal ones go to the first
    assert share_out(4, [0.5, 0.3, 0.2], [9, 9, 9]) == [2, 1, 1]
    assert share_out(1, [0.5, 0.5], [9, 9]) == [1, 0]
    # everything fits only if every place is taken
    assert share_out(6, [1.0, 0.0, 0.0], [1, 2, 3]) == [1, 2, 3]
    assert share_out(0, [0.5, 0.5], [0, 0]) == [0, 0]


@given(st.data())
def test_all_is_shared_out_and_nothing_overflows(data: st.DataObject):
    weights = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3))
    room = data.draw(st.lists(st.integers(0, 50), min_size=len(weights), max_size=len(weights)))
    number = data.draw(st.integers(0, sum(room)))
    given_out = share_out(number, [weight / sum(weights) for weight in weights], room)
    assert sum(given_out) == number
    assert all(0 <= out <= limit for out, limit in zip(given_out, room, strict=True))


HALF = {"drop_fraction": 0.5, "final_drop_fraction": 0.5, "momentum": 0.5, "unit": "step", "update_every": 2}


def test_sparse_momentum_by_hand():
    #           layer 0: 0   1   2   3      layer 1: 0   1   2   3      half of each layer drops: .4 and .1, so R = 2
    #   theta           .5  .4   -   -              .9  .1   -   -
    #   v = g1/2 + g2    3   3  -2   1               1   1   5   0      mean |v| of the active: 3 and 1
    #   shares: 3/4 and 1/4 of 2 are 1.5 and .5; equal remainders, so 2 and 0: weights move to layer 0
    #   layer 0 keeps 0 and grows 1 (3, just dropped) and 2 (2); layer 1 keeps 0; its large 5 does not count
    toy = Toy("snfs", 4, 4, total=6, **HALF)
    toy.start((row(0.5, 0.4, 0, 0), bits(1, 1, 0, 0)), (row(0.9, 0.1, 0, 0), bits(1, 1, 0, 0)))
    toy.step(row(2, 2, 0, 2), row(0, 2, 10, 0))
    toy.step(row(2, 2, -2, 0), row(1, 0, 0, 0))
    assert (toy.mask(0), toy.mask(1)) == ([1, 1, 1, 0], [1, 0, 0, 0])
    # dropped and regrown keeps its value, what is new is zero
    assert (toy.theta(0), toy.theta(1)) == ([0.5, 0.4, 0, 0], [0.9, 0, 0, 0])
    assert toy.sparse.event_counts == {"initial": 2, "update": 1}
    assert sum(toy.sparse.masks.num_active().values()) == 4


def test_an_almost_full_layer_that_would_grow_drops_no_more_than_its_sparsity():
    #   layer 0: 9 of 10, sparsity .1 < .2, and three quarters of the momentum: it drops ceil(.1 * 9) = 1, not 5
    #   layer 1: 1 of 10, drops ceil(.5) = 1; R = 2 is shared as 1.5 and .5, so 2 and 0: layer 0 fills up
    toy = Toy("snfs", 10, 10, total=6, **HALF)
    full = torch.arange(10.0, 0, -1)[None]
    toy.start((full, bits(*[1] * 9, 0)), (full, bits(1, *[0] * 9)))
    for _ in range(2):
        toy.step(torch.full((1, 10), 2.0), torch.full((1, 10), 2 / 3))
    assert toy.sparse.masks.num_active() == {"0.weight": 10, "1.weight": 0}
    # one layer is full and nothing is left to move
    for _ in range(2):
        toy.step(torch.ones(1, 10), torch.ones(1, 10))
    assert toy.sparse.masks.num_active() == {"0.weight": 10, "1.weight": 0}
    assert toy.sparse.event_counts["update"] == 2


def test_the_share_that_drops_is_annealed():
    #   one layer of 50 of 100; at step 2 of 6 f = .005 + .2475 (1 + cos(pi / 3)) = .37625, so ceil(18.8) = 19 drop;
    #   at step 4 f = .005 + .2475 / 2 = .12875, so ceil(6.4) = 7. All others have a larger momentum
    toy = Toy("snfs", 100, total=6, unit="step", update_every=2)
    theta = torch.arange(100.0, 0, -1)[None]
    mask = theta > 50
    toy.start((theta, mask))
    for _ in range(4):
        toy.step(torch.where(toy.sparse.masks["0.weight"], 0.0, 1.0))
    dropped = [event["dropped"] for event in toy.sparse.events if event["event"] == "update"]
    assert dropped == [19, 7]


def test_the_momentum_is_dense_under_every_optimizer():
    torch.manual_seed(0)
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = sparsity.attach("snfs", model, optimizer, sparsity=0.8, total_steps=9, unit="step", update_every=3)
    train(sparse, model, range(5))
    held = sparse.topology.state_dict()["_momentum"]["_sums"]
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == dict(sparse.shapes)
    assert all(tensor[~sparse.masks[name]].count_nonzero() > 0 for name, tensor in held.items())
    assert all(not optimizer.state[model.get_parameter(n)]["exp_avg"][~m].any() for n, m in sparse.masks.items())


def grown(optimizer: type[torch.optim.Optimizer], representation: str = "plain", **options: Any):
    """One update of sparse momentum; the model, the optimizer, the masks of what grew, and the method's own v."""
    torch.manual_seed(0)
    model = small_net()
    rep = sparsity.represent(model, representation)
    values = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    inner = optimizer(rep.param_groups(weight_decay=0.01), lr=0.01, **values)
    settings = {"sparsity": 0.8, "total_steps": 9, "unit": "step", "update_every": 3, **options}
    sparse = sparsity.attach("snfs", model, inner, **settings)
    before = dict(sparse.masks)
    train(sparse, model, range(3))
    new = {name: mask & ~before[name] for name, mask in sparse.masks.items()}
    assert all(mask.any() for mask in new.values())
    return sparse, inner, new, sparse.topology.state_dict()["_momentum"]["_sums"]


def test_a_grown_weight_moves_on_with_the_dense_momentum():
    sparse, optimizer, new, v = grown(torch.optim.SGD)
    for name, mask in new.items():
        held = optimizer.state[sparse.representation.slots[name].factors[0]]["momentum_buffer"]
        assert torch.equal(held[mask], v[name][mask])
        assert not held[~sparse.masks[name]].any()
        there = sparse.masks[name] & ~mask
        assert not torch.isclose(held[there], v[name][there]).any()  # its own, which has weight decay


@pytest.mark.parametrize(
    ("optimizer", "key", "options"),
    [(torch.optim.SGD, "momentum_buffer", {"grown_momentum": "restart"}), (torch.optim.AdamW, "exp_avg", {})],
)
def test_a_grown_weight_restarts_by_option_and_under_other_optimizers(
    optimizer: type[torch.optim.Optimizer], key: str, options: dict[str, Any]
):
    sparse, held, new, _ = grown(optimizer, **options)
    for name, mask in new.items():
        assert not held.state[sparse.representation.slots[name].factors[0]][key][mask].any()


def test_the_momentum_of_a_product_is_that_of_its_factors():
    sparse, optimizer, new, v = grown(torch.optim.SGD, "product")
    for name, mask in new.items():
        m, w = sparse.representation.slots[name].factors
        of_m, of_w = (optimizer.state[factor]["momentum_buffer"] for factor in (m, w))
        assert torch.equal(of_m[mask], (w * v[name])[mask])  # w is 0 where a weight grows
        assert torch.allclose(of_w[mask], (m * v[name])[mask])
        assert of_w[mask].all()


# ---- GraNet ---------------------------------------------------------------------------------------------------------


def test_prune_and_regenerate_by_hand():
    #   8 weights, 2 in the end, dense at first; updates at 2, 4 and 6 of the ramp (half of 12 steps)
    #   at 2: 2 + int(6 * (2/3)^3) = 3 stay after pruning; f = .005 + .2475 (1 + cos(pi / 6)) = .467, so
    #   ceil(.467 * 3) = 2 of them drop and 2 grow
    #
    #   theta    .8   .7   .6   .5   .4   .3   .2   .1
    #   prune     x    x    x
    #   keep      x
    #   |g|       -    5   .1    1    0    0    0    9
    #   grow           x                             x      .7 keeps its value, .1 was pruned and starts at zero
    toy = Toy("granet", 8, share=0.75, total=12, update_every=2, initial_sparsity=0.0, ramp_end=0.5)
    with torch.no_grad():
        toy.model[0].weight.copy_(row(0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1))
    momentum = torch.arange(1.0, 9.0)[None]
    toy.step(torch.zeros(1, 8))
    toy.optimizer.state[toy.model[0].weight]["momentum_buffer"] = momentum
    toy.step(row(0, 5, 0.1, 1, 0, 0, 0, 9))
    assert toy.mask() == [1, 1, 0, 0, 0, 0, 0, 1]
    assert toy.theta() == [0.8, 0.7, 0, 0, 0, 0, 0, 0]
    assert momentum.tolist() == [[1, 2, 0, 0, 0, 0, 0, 0]]
    event = toy.sparse.events[-1]
    # six go (the last comes back), one comes
    assert (event["event"], event["step"], event["dropped"], event["grown"]) == ("update", 2, 6, 1)
    kept = [3]
    for _ in range(10):
        toy.step(torch.randn(1, 8))
        kept.append(sum(toy.mask()))
    #   at 4: 2 + int(6 / 27) = 2
    assert kept == [3, 3, *[2] * 9]
    assert toy.sparse.event_counts == {"update": 5} == {k: n for k, n in toy.sparse.expected_events().items() if n}


def test_pruning_is_over_all_layers_together():
    #   4 + 4 weights at density 1, 2 in the end; the only update of the ramp is its end: the largest two of all are
    #   both in layer 1. f = .005 + .2475 (1 + cos(pi 4 / 8)) = .2525: ceil(.2525 * 2) = 1 of them drops and grows again
    toy = Toy("granet", 4, 4, share=0.75, update_every=4, initial_sparsity=0.0, ramp_end=0.5)
    with torch.no_grad():
        toy.model[0].weight.copy_(row(0.1, 0.2, 0.3, 0.4))
        toy.model[1].weight.copy_(row(0.5, 0.9, 0.8, 0.6))
    for _ in range(4):
        toy.step(torch.ones(1, 4), row(0, 0, 1, 0))
    assert (toy.mask(0), toy.mask(1)) == ([0, 0, 0, 0], [0, 1, 1, 0])


def test_the_ramp_of_the_published_setting():
    #   ImageNet at batch 128: 10,010 steps an epoch, 100 epochs, ΔT = 4000, so 75 updates in 30 epochs
    method = registry.topology("granet")
    granet = method(method.Options())
    shapes, total = {"layer": (1000, 1000)}, 1_001_000
    assert granet.budget(shapes, 0.9, 0, total) == 500_000
    assert granet.budget(shapes, 0.9, 75 * 4000, total) == 100_000
    #   update 25 of 75: .1 + .4 * (2/3)^3
    assert granet.budget(shapes, 0.9, 25 * 4000, total) == 100_000 + int(400_000 * 8 / 27)
    assert granet.budget(shapes, 0.9, 80 * 4000, total) == 100_000
    assert granet.expected_events(total, 0.9) == {"initial": 1, "update": 250}


def test_the_ramp_is_cubic_and_ends_at_the_target():
    torch.manual_seed(0)
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    options = {"update_every": 5, "initial_sparsity": 0.2, "ramp_end": 0.5}
    sparse = sparsity.attach("granet", model, optimizer, sparsity=0.9, total_steps=60, **options)
    first = sum(sparse.masks.num_active().values())
    kept = []
    for index in range(60):
        train(sparse, model, range(index, index + 1))
        kept.append(sum(sparse.masks.num_active().values()))
    #   594 weights; in the end 594 - int(534.6) = 60
    ramp = [60 + math.floor((first - 60) * (1 - i / 6) ** 3 + 1e-6) for i in range(7)]
    assert kept[4::5] == [*ramp[1:], *[60] * 6]
    assert sum(sparse.finalize().values()) == 60


def test_a_ramp_without_an_update_is_refused():
    with pytest.raises(OptionError, match="update_every: 4000 steps are too long: the ramp ends after ramp_end = 0.3"):
        Toy("granet", 8)


# ---- MEST -----------------------------------------------------------------------------------------------------------

#   8 weights, 4 of them; a quarter of all mutates, so 2 of the 4
MUTATE = {"mutation": 0.25, "unit": "step", "update_every": 2, "total": 16}
FOUR = (row(0.5, 0.4, 0.3, 0.2, 0, 0, 0, 0), bits(1, 1, 1, 1, 0, 0, 0, 0))


def test_elastic_mutation_by_hand():
    regrown = 0
    for seed in range(20):
        toy = Toy("mest", 8, seed=seed, **MUTATE)
        toy.start(FOUR)
        toy.step(torch.zeros(1, 8))
        toy.step(torch.zeros(1, 8))
        #   .3 and .2 drop, two of the six others grow, at zero even if they have just dropped
        assert toy.mask()[:2] == [1, 1]
        assert sum(toy.mask()) == 4
        assert toy.theta() == [0.5, 0.4, 0, 0, 0, 0, 0, 0]
        assert toy.sparse.events[-1]["dropped"] == toy.sparse.events[-1]["grown"] == 2
        regrown += sum(toy.mask()[2:4])
    # two of six are the just-dropped, so 20 * 2 * 2 / 6 = 13 are expected
    assert 4 <= regrown <= 23


def test_the_gradient_in_the_score():
    #   score   .5   .4   .3   .2    lambda 2
    #   + 2|g|   0    0   .6    1    of the step before the update: .4 and .5 are now the smallest; a gradient where
    #                                there is no weight (9) does not matter
    toy = Toy("mest", 8, gradient_weight=2.0, **MUTATE)
    toy.start(FOUR)
    toy.step(row(9, 9, 0, 0, 0, 0, 0, 0))
    toy.step(row(0, 0, -0.3, 0.5, 9, 9, 9, 9))
    assert toy.mask()[2:4] == [1, 1]
    assert toy.theta() == [0, 0, 0.3, 0.2, 0, 0, 0, 0]


def test_mutation_halves_and_ends():
    #   .5625 of 16 is 9 and .75 is 12: two of four at 2 ... 8, one at 10, nothing from 12 on
    toy = Toy("mest", 8, **MUTATE)
    for _ in range(16):
        toy.step(torch.zeros(1, 8))
        assert sum(toy.mask()) == 4
    updates = [(event["step"], event["grown"]) for event in toy.sparse.events if event["event"] == "update"]
    assert updates == [(2, 2), (4, 2), (6, 2), (8, 2), (10, 1)]


def test_the_soft_bound_grows_before_it_drops():
    toy = Toy("mest", 8, soft_bound=True, **MUTATE)
    kept = [sum(toy.mask())]
    for _ in range(16):
        toy.step(torch.zeros(1, 8))
        kept.append(sum(toy.mask()))
    #   two more than 4 up to the update at 10, which grows one; that at 12 only drops
    assert kept == [*[6] * 10, 5, 5, *[4] * 5]
    assert toy.sparse.event_counts == {"initial": 1, "update": 6}
    assert toy.sparse.finalize() == {"0.weight": 4}


def test_under_the_soft_bound_the_best_of_old_and_new_stay():
    toy = Toy("mest", 8, soft_bound=True, **MUTATE)
    #   six exist; the best four stay, .4 and .3 go, and two of the four others grow at zero
    toy.start((row(0.5, 0.4, 0.3, 0.9, 0.8, 0.7, 0, 0), bits(1, 1, 1, 1, 1, 1, 0, 0)))
    toy.step(torch.zeros(1, 8))
    toy.step(torch.zeros(1, 8))
    assert (sum(toy.mask()), toy.theta()) == (6, [0.5, 0, 0, 0.9, 0.8, 0.7, 0, 0])
    assert [toy.mask()[i] for i in (0, 3, 4, 5)] == [1] * 4


def test_a_full_layer_does_not_mutate():
    #   ERK leaves the small layer full at half of all: raw 9/8 and 101/100, of 54 weights the 8 are over
    toy = Toy("mest", 8, 100, allocation="erk", dense=["0"], **MUTATE)
    before = toy.theta(0)
    assert toy.sparse.masks.num_active() == {"0.weight": 8, "1.weight": 46}
    for _ in range(4):
        toy.step(torch.zeros(1, 8), torch.zeros(1, 100))
    assert toy.theta(0) == before
    #   .25 / .5 of 46 is 23
    assert [event["grown"] for event in toy.sparse.events[1:]] == [23, 23]


# ---- with representations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topology", "representation", "options", "total", "until"),
    [
        # one update, at step 40
        ("rigl", "sign_in", {"update_every": 40, "at_start": False, "end": 0.75}, 100, 41),
        ("set", "product", {"update_every": 40, "also_step": True}, 100, 40),
        # decompressed after 15 % of training, compressed again after 20 %
        ("acdc", "sign_in", {}, 420, 63),
    ],
)
def test_regrown_entries_of_a_product_move(
    topology: str, representation: str, options: dict[str, Any], total: int, until: int
):
    torch.manual_seed(0)
    model = small_net()
    rep = sparsity.represent(model, representation)
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=1e-4), lr=0.05, momentum=0.9)
    settings: dict[str, Any] = {"sparsity": 0.7, "total_steps": total, "steps_per_epoch": 10, **options}
    sparse = sparsity.attach(topology, model, optimizer, **settings)
    losses = train(sparse, model, range(until - 1))
    before = dict(sparse.masks)
    losses += train(sparse, model, range(until - 1, until))
    regrown = {name: mask & ~before[name] for name, mask in sparse.masks.items()}
    assert sum(int(mask.sum()) for mask in regrown.values()) > 20
    assert all(not theta[regrown[name]].any() for name, theta in rep.weights())
    losses += train(sparse, model, range(until, until + 20))
    for name, theta in rep.weights():
        assert theta[regrown[name]].all(), name
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert all(math.isfinite(loss) for loss in losses)


# ---- what training costs --------------------------------------------------------------------------------------------


def cost(topology: str, *, steps: int, share: float = 0.8, **options: Any) -> float:
    """One layer of 100 weights, so that a share is exact and nothing moves between layers."""
    toy = Toy(topology, 100, share=share, total=steps, **options)
    for _ in range(steps):
        toy.step(torch.randn(1, 100))
    toy.sparse.finalize()
    return toy.sparse.cost.fraction({"0.weight": 7})


@pytest.mark.parametrize("delta", [1, 3, 9])
def test_rigl_costs_what_its_paper_says(delta: int):
    #   ΔT weight steps and one update: (3 f_S ΔT + 2 f_S + f_D) / (ΔT + 1)
    formula = (3 * 0.2 * delta + 2 * 0.2 + 1) / (delta + 1)
    found = cost("rigl", steps=4 * (delta + 1), update_every=delta + 1, end=1.0, allocation="uniform")
    assert found == pytest.approx(formula / 3)


def test_every_averaged_gradient_is_dense():
    #   of 20 steps the updates are at 5, 10 and 15, each looks at the gradients of 3 steps
    options = {"update_every": 5, "end": 1.0, "at_start": False, "average": 3}
    assert cost("rigl", steps=20, **options) == pytest.approx((11 * 3 * 0.2 + 9 * (2 * 0.2 + 1)) / 60)


def test_an_update_after_the_weight_step_costs_as_much():
    found = cost("rigl", steps=20, update_every=5, end=1.0, also_step=True)
    assert found == pytest.approx((17 * 3 * 0.2 + 3 * (2 * 0.2 + 1)) / 60)


def test_random_growth_costs_what_static_training_does():
    assert cost("set", steps=20, update_every=5) == pytest.approx(0.2)
    assert cost("mest", steps=20, update_every=5, unit="step", gradient_weight=0.5) == pytest.approx(0.2)


def test_sparse_momentum_costs_a_dense_gradient_at_every_step():
    assert cost("snfs", steps=20, update_every=5, unit="step") == pytest.approx((2 * 0.2 + 1) / 3)


def test_the_soft_bound_costs_what_it_holds():
    #   20 + 5 until the update at 12 of .5625 * 20 = 11.25 halves it, to 20 + 2 until 15, then 20
    found = cost("mest", steps=20, update_every=3, unit="step", mutation=0.05, soft_bound=True)
    assert found == pytest.approx((12 * 0.25 + 3 * 0.22 + 5 * 0.2) / 20)


def test_granet_costs_its_ramp_and_a_dense_gradient_an_update():
    #   50 of 100 until 4, then 20 + int(30 / 8) = 23 until 8, then 20; updates at 4 (looking from 50), 8, 12 and 16
    steps = 4 * 0.5 + 4 * 0.23 + 12 * 0.2
    dense = (1 - 0.5) + (1 - 0.23) + 2 * (1 - 0.2)
    assert cost("granet", steps=20, update_every=4, ramp_end=0.4) == pytest.approx((3 * steps + dense) / 60)
