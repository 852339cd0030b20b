"""Products m ⊙ w: initialisation, penalty, cut; spred and PILoT against what their papers say, by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsity
from ham import HAM
from sparsity.representations.cut import largest

NO_TIES: Any = None  # a run is asked for draws alone


def linear(values: list[list[float]], dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """One layer with the given weights."""
    layer = nn.Linear(len(values[0]), len(values), bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values, dtype=dtype))
    return nn.Sequential(layer)


def two_layers(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def loss_of(model: nn.Module, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(10, 6, generator=generator).to(dtype)
    return nn.functional.cross_entropy(model(x), torch.randint(3, (10,), generator=generator))


def factors(rep: sparsity.Representation, name: str = "0.weight") -> list[list[Any]]:
    return [factor.tolist() for factor in rep.slots[name].factors]


def attached(
    model: nn.Module, rep: sparsity.Representation, *, topology: str = "dense", decay: float = 0.0, **keywords: Any
) -> tuple[torch.optim.Optimizer, sparsity.SparseTraining]:
    lr, momentum = keywords.pop("lr", 0.1), keywords.pop("momentum", 0.0)
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=decay), lr=lr, momentum=momentum)
    settings = {"sparsity": 0.5, "total_steps": 8, "steps_per_epoch": 2, **keywords}
    return optimizer, sparsity.attach(topology, model, optimizer, **settings)


def train(
    model: nn.Module, sparse: sparsity.SparseTraining, steps: int, accuracy: Callable[[], float] = lambda: 0.5
) -> None:
    for _ in range(steps):
        sparse.optimizer.zero_grad()
        loss_of(model).backward()
        sparse.step(metrics=lambda: {"train_accuracy": accuracy()})


# ---- initialisation -------------------------------------------------------------------------------------------------


def test_spred_starts_balanced_at_the_weights():
    rep = sparsity.represent(linear([[4.0, -9.0, 0.25]]), "spred")
    assert factors(rep) == [[[2, 3, 0.5]], [[2, -3, 0.5]]]


def test_pilot_starts_at_the_weights_with_the_invariant_at_one():
    model = two_layers()
    theta = {name: value.clone() for name, value in model.named_parameters() if value.ndim == 2}
    rep = sparsity.represent(model, "pilot")
    for name, slot in rep.slots.items():
        m, w = slot.factors
        assert (m * w - theta[name]).abs().max() < 1e-12
        assert (m**2 - w**2 - 1).abs().max() < 1e-12
        assert (m > 0).all()
    # by hand: theta = sqrt(2) is sqrt(2) * 1
    rep = sparsity.represent(linear([[math.sqrt(2), 0.0]]), "pilot")
    assert factors(rep) == [[pytest.approx([math.sqrt(2), 1])], [pytest.approx([1, 0])]]


@pytest.mark.parametrize("name", ["spred", "product"])
def test_cloned_factors_square_the_weights(name: str):
    model = linear([[0.5, -3.0, 0.0]])
    rep = sparsity.represent(model, name, init="clone")
    assert factors(rep) == [[[0.5, -3, 0]], [[0.5, -3, 0]]]
    assert model[0].weight.tolist() == [[0.25, 9, 0]]


@pytest.mark.parametrize("name", ["spred", "product"])
def test_independent_factors_are_a_function_of_the_seed(name: str):
    def drawn(seed: int) -> list[list[list[Any]]]:
        rep = sparsity.represent(two_layers(), name, init="independent", seed=seed)
        return [factors(rep, layer) for layer in rep.slots]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1)[0][0] != drawn(1)[0][1]
    model = two_layers()
    state = torch.get_rng_state()
    sparsity.represent(model, name, init="independent")
    assert torch.equal(torch.get_rng_state(), state)


def test_independent_factors_are_kaiming_normal():
    rep = sparsity.represent(nn.Sequential(nn.Conv2d(32, 64, 3)), "spred", init="independent")
    for factor in rep.slots["0.weight"].factors:
        assert factor.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.02)
        assert factor.mean().abs() < 1e-3
    # the product is smaller than the weights would be: sigma^2, not sigma
    assert rep.slots["0.weight"].weight.std().item() == pytest.approx(2 / (32 * 9), rel=0.05)


def test_a_weight_that_is_set_later_is_kept_whatever_the_initialisation():
    model = linear([[0.5, -3.0]])
    sparsity.represent(model, "spred", init="independent")
    model[0].weight = torch.tensor([[4.0, -1.0]], dtype=torch.float64)
    assert model[0].weight.tolist() == [[4, -1]]


# ---- what decay and penalty do --------------------------------------------------------------------------------------


def fitted(name: str, decay: float, **options: Any) -> list[float]:
    """Minimise ½ |θ − a|² for a = (1, −0.6, 0.2, −0.05) to convergence."""
    target = torch.tensor([[1.0, -0.6, 0.2, -0.05]], dtype=torch.float64)
    model = linear([[0.3, -0.4, 0.3, -0.4]])
    rep = sparsity.represent(model, name, **options)
    optimizer, sparse = attached(model, rep, decay=decay, sparsity=0.0, lr=0.2, total_steps=1500)
    for _ in range(1500):
        optimizer.zero_grad()
        ((model[0].weight - target) ** 2).sum().div(2).backward()
        sparse.step(metrics=lambda: {"train_accuracy": 0.0})
    return model[0].weight.flatten().tolist()


def test_decay_on_both_factors_is_an_l1_penalty():
    # argmin ½ (x − a)² + λ |x| = sign(a) · max(|a| − λ, 0), with λ = 0.1
    assert fitted("spred", 0.1) == pytest.approx([0.9, -0.5, 0.1, 0.0], abs=1e-3)
    # L2 would have shrunk in proportion
    assert fitted("plain", 0.1) == pytest.approx([1 / 1.1, -0.6 / 1.1, 0.2 / 1.1, -0.05 / 1.1], abs=1e-6)


def test_a_penalty_of_alpha_is_an_l1_penalty_of_two_alpha():
    found = fitted("product", 0.0, beta=0.0, penalty=0.05)
    assert found == pytest.approx([0.9, -0.5, 0.1, 0.0], abs=1e-3)
    assert fitted("pilot", 0.0, penalty=0.05, multiplier=1.0) == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("name", ["product", "pilot"])
def test_the_penalty_is_that_of_the_penalised_loss(name: str):
    """Training with the penalty equals training a loss that has it, with momentum, step by step."""
    model = two_layers()
    rep = sparsity.represent(model, name, penalty=0.03)
    twin = copy.deepcopy(model)
    _, sparse = attached(model, rep, momentum=0.9, total_steps=8, steps_per_epoch=8, sparsity=0.0)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    pairs = [p for key, p in twin.named_parameters() if "original" in key]
    assert len(pairs) == 4
    for _ in range(5):
        train(model, sparse, 1)
        plain.zero_grad()
        (loss_of(twin) + 0.03 * torch.stack([(p**2).sum() for p in pairs]).sum()).backward()
        plain.step()
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


class Watcher(sparsity.Topology):
    """Keeps the first half of each layer, notes the gradients it is shown, and may leave out the weight step."""

    shown: list[Tensor]
    apply = True

    def initial_masks(self, ctx: sparsity.Context) -> sparsity.MaskSet:
        self.shown = []
        return sparsity.MaskSet(
            {n: (torch.arange(s[0] * s[1]) < s[0] * s[1] // 2).view(s) for n, s in ctx.shapes.items()}
        )

    def after_backward(self, ctx: sparsity.Context) -> bool:
        self.shown.append(ctx.grad("0.weight").clone())
        return self.apply


@pytest.fixture
def watcher(open_registry) -> type[Watcher]:
    return sparsity.register_topology("watcher")(type("Fresh", (Watcher,), {}))


def test_the_topology_sees_the_gradient_without_the_penalty(watcher: type[Watcher]):
    def gradients(penalty: float) -> tuple[Tensor, Tensor, Tensor]:
        model = two_layers()
        rep = sparsity.represent(model, "product", penalty=penalty)
        _, sparse = attached(model, rep, topology="watcher")
        before = [factor.detach().clone() for factor in rep.slots["0.weight"].factors]
        train(model, sparse, 1)
        m, _ = rep.slots["0.weight"].factors
        assert m.grad is not None
        return sparse.topology.shown[0], m.grad.clone(), before[0]

    shown, without, m = gradients(0.0)
    shown_too, with_penalty, _ = gradients(0.25)
    assert torch.equal(shown, shown_too)
    assert shown.flatten()[24:].abs().min() > 0  # dense, also where there is no weight
    # 2 alpha m where a weight lives; a weight that does not exist is not penalised
    kept = torch.arange(48).view(8, 6) < 24
    torch.testing.assert_close(with_penalty - without, torch.where(kept, 0.5 * m, torch.zeros_like(m)))


def test_the_penalty_is_not_rescaled_by_sparse_opt():
    def gradient(penalty: float, **keywords: Any) -> tuple[Tensor, Tensor]:
        model = two_layers()
        rep = sparsity.represent(model, "product", penalty=penalty)
        _, sparse = attached(model, rep, topology="random", lr=0.0, **keywords)
        m, _ = rep.slots["0.weight"].factors
        train(model, sparse, 1)
        assert m.grad is not None
        return m.grad.clone(), (m * sparse.masks["0.weight"]).detach()

    plain, m = gradient(0.0)
    scaled, _ = gradient(0.0, sparse_opt="layer")
    assert not torch.allclose(plain, scaled)
    torch.testing.assert_close(gradient(0.25, sparse_opt="layer")[0] - scaled, 0.5 * m)


def test_no_penalty_without_a_weight_step(watcher: type[Watcher]):
    watcher.apply = False
    model = two_layers()
    rep = sparsity.represent(model, "pilot", penalty=0.25)
    _, sparse = attached(model, rep, topology="watcher")
    before = factors(rep)
    train(model, sparse, 1)
    assert factors(rep) == before


def test_a_scaled_loss_does_not_scale_the_penalty():
    """The penalty is added to unscaled gradients: with a scale of 1024 the step is that without a scaler."""
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = two_layers(torch.float32)
        rep = sparsity.represent(model, "product", penalty=0.1)
        optimizer, sparse = attached(model, rep, sparsity=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            loss = loss_of(model, torch.float32)
            (loss if scaler is None else scaler.scale(loss)).backward()
            sparse.step(scaler=scaler)
        ends.append(dict(sparse.representation.weights()))
    for name, theta in ends[0].items():
        torch.testing.assert_close(ends[1][name], theta, rtol=1e-5, atol=1e-7)


# ---- PILoT's controller ---------------------------------------------------------------------------------------------


def test_the_controller_by_hand():
    """α is raised on accuracy no worse and enough L1 in the first half of training, and lowered otherwise."""
    model = linear([[3.0, -1.0]])
    rep = sparsity.represent(model, "pilot", penalty=0.8, multiplier=2.0, l1_level=2.5)
    optimizer, sparse = attached(model, rep, sparsity=0.0, lr=0.0, total_steps=8, steps_per_epoch=1)
    # epoch, accuracy, weights it ends with: (3, -1) has L1 norm 4, (1, -1) has 2
    table = [
        (0.3, (3.0, -1.0), 1.6),  # better than nothing: raised
        (0.3, (3.0, -1.0), 3.2),  # no worse: raised
        (0.2, (3.0, -1.0), 1.6),  # worse: lowered
        (0.25, (1.5, -1.0), 3.2),  # better than the epoch before (not than the best), L1 exactly K, k = T/2: raised
        (0.4, (3.0, -1.0), 1.6),  # second half: lowered for ever
        (0.5, (3.0, -1.0), 0.8),
        (0.6, (1.0, -1.0), 0.4),
        (0.7, (3.0, -1.0), 0.2),
    ]
    for accuracy, theta, alpha in table:
        model[0].weight = torch.tensor([theta], dtype=torch.float64)
        optimizer.zero_grad()
        model[0].weight.sum().backward()
        sparse.step(metrics=lambda accuracy=accuracy: {"train_accuracy": accuracy})
        assert rep.penalty == pytest.approx(alpha)
    recorded = [event for event in sparse.events if event["event"] == "penalty"]
    assert [event["alpha"] for event in recorded] == pytest.approx([alpha for *_, alpha in table])
    assert [event["l1"] for event in recorded] == pytest.approx([4, 4, 4, 2.5, 4, 4, 2, 4])
    assert sparse.event_counts == sparse.expected_events() == {"penalty": 8}


def test_a_network_that_is_sparse_enough_is_not_pushed_further():
    rep = sparsity.represent(linear([[1.0, -1.0]]), "pilot", penalty=0.8, multiplier=2.0, l1_level=2.5)
    model = rep.model
    _, sparse = attached(model, rep, sparsity=0.0, lr=0.0, total_steps=8, steps_per_epoch=1)
    model[0].weight.sum().backward()
    sparse.step(metrics=lambda: {"train_accuracy": 1.0})
    assert rep.penalty == 0.4


def test_pilot_asks_for_the_accuracy_at_once():
    model = two_layers()
    rep = sparsity.represent(model, "pilot")
    _, sparse = attached(model, rep)
    loss_of(model).backward()
    with pytest.raises(ValueError, match=r"'pilot' reads train_accuracy after an epoch: call step\(metrics=...\)"):
        sparse.step()
    assert sparse.steps_done == 0


@pytest.mark.parametrize(("name", "expected"), [("pilot", [2, 4]), ("sign_in", [])])
def test_metrics_are_asked_for_at_the_end_of_an_epoch_and_only_where_needed(name: str, expected: list[int]):
    asked: list[int] = []
    model = two_layers()
    rep = sparsity.represent(model, name)
    _, sparse = attached(model, rep)
    train(model, sparse, 5, lambda: asked.append(sparse.steps_done) or 0.5)
    assert asked == expected


def test_pilots_penalty_stands_in_for_decay_of_the_factors():
    rep = sparsity.represent(two_layers(), "pilot")
    assert [g["weight_decay"] for g in rep.param_groups(0.3, weight_decay_on="all")] == [0, 0, 0.3]
    rep = sparsity.represent(two_layers(), "pilot", decay_factors=True)
    assert [g["weight_decay"] for g in rep.param_groups(0.3)] == [0.3, 0.3, 0]
    assert [g["weight_decay"] for g in sparsity.represent(two_layers(), "spred").param_groups(0.3)] == [0.3, 0.3, 0]


def test_a_resumed_controller_goes_on():
    rep = sparsity.represent(two_layers(), "pilot", penalty=0.1, multiplier=2.0)
    _, sparse = attached(rep.model, rep)
    train(rep.model, sparse, 2, lambda: 0.9)
    state = sparse.state_dict()
    twin = sparsity.represent(two_layers(), "pilot", penalty=0.1, multiplier=2.0)
    twin.load_state_dict(state["representation"])
    assert twin.penalty == 0.2
    _, resumed = attached(twin.model, twin)
    resumed.load_state_dict(state)
    train(twin.model, resumed, 2, lambda: 0.8)  # worse than the 0.9 before the pause
    assert twin.penalty == 0.1


# ---- the cut --------------------------------------------------------------------------------------------------------


def test_the_cut_by_hand():
    thetas = {"a": torch.tensor([[5.0, -4.0], [0.1, 3.0]]), "b": torch.tensor([0.3, -0.2, 0.1, 0.4])}
    # half of eight stay: 5, 4 and 3 in a, .4 in b
    masks = largest(NO_TIES, thetas, 0.5, "global")
    assert masks["a"].tolist() == [[True, True], [False, True]]
    assert masks["b"].tolist() == [False, False, False, True]
    # two of each layer
    masks = largest(NO_TIES, thetas, 0.5, "uniform")
    assert masks["a"].tolist() == [[True, True], [False, False]]
    assert masks["b"].tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", ["spred", "pilot"])
@pytest.mark.parametrize(("cut_at", "step"), [(1.0, 8), (0.75, 6), (0.3, 4), (0.01, 2)])
def test_the_cut_is_global_exact_and_once(name: str, cut_at: float, step: int):
    model = two_layers()
    rep = sparsity.represent(model, name, cut_at=cut_at)
    _, sparse = attached(model, rep, sparsity=0.7, decay=0.01)
    before: dict[str, Tensor] = {}
    for _ in range(8):
        if sparse.steps_done < step:
            assert sparse.masks.density == 1
        if sparse.steps_done == step - 1:
            train(twin := copy.deepcopy(model), copied(twin, sparse), 1)  # the step that ends with the cut, without it
            before = {key: theta.abs() for key, theta in twin_weights(twin)}
        train(model, sparse, 1)
    kept = 72 - math.floor(0.7 * 72)
    flat = torch.cat([before["0.weight"].flatten(), before["2.weight"].flatten()])
    threshold = flat.sort(descending=True).values[kept - 1]
    for key, mask in sparse.masks.items():
        assert torch.equal(mask, before[key] >= threshold)
    cuts = [event for event in sparse.events if event["event"] == "cut"]
    assert [(event["step"], event["dropped"]) for event in cuts] == [(step, 72 - kept)]
    assert sparse.event_counts["cut"] == sparse.expected_events()["cut"] == 1
    assert sum(sparse.finalize().values()) == kept == sparse.expected_active()


def copied(model: nn.Module, sparse: sparsity.SparseTraining) -> sparsity.SparseTraining:
    """The same training without a sparsity, so that nothing is cut, for a copy of its network."""
    rep = sparsity.representation.of(model)
    assert rep is not None
    _, twin = attached(model, rep, sparsity=0.0, decay=0.01)
    return twin


def twin_weights(model: nn.Module) -> list[tuple[str, Tensor]]:
    rep = sparsity.representation.of(model)
    assert rep is not None
    return [(name, theta.clone()) for name, theta in rep.weights()]


def test_the_same_share_of_each_layer():
    model = two_layers()
    rep = sparsity.represent(model, "spred", allocation="uniform")
    _, sparse = attached(model, rep, sparsity=0.7)
    train(model, sparse, 8)
    # 48 - floor(33.6) and 24 - floor(16.8)
    assert sparse.finalize() == {"0.weight": 15, "2.weight": 8}


@pytest.mark.parametrize("name", ["spred", "pilot"])
def test_nothing_is_cut_where_there_is_no_target_or_the_topology_has_it(name: str):
    for topology, target in (("dense", 0.0), ("random", 0.5), ("rigl", 0.5)):
        model = two_layers()
        rep = sparsity.represent(model, name)
        options = {"update_every": 3} if topology == "rigl" else {}
        _, sparse = attached(model, rep, topology=topology, sparsity=target, **options)
        train(model, sparse, 8)
        assert "cut" not in sparse.event_counts
        assert "cut" not in sparse.expected_events()
        assert sum(sparse.finalize().values()) == sparse.topology.expected_active(sparse.shapes, target) or target == 0


def test_a_run_that_is_ended_before_its_cut_is_not_passed_off_as_sparse():
    model = two_layers()
    rep = sparsity.represent(model, "spred")
    _, sparse = attached(model, rep, sparsity=0.7)
    train(model, sparse, 4)
    with pytest.raises(RuntimeError, match="spred kept 72 weights where its rule says 22"):
        sparse.finalize()


def test_fine_tuning_moves_what_is_left_and_nothing_else():
    model = two_layers()
    rep = sparsity.represent(model, "spred", cut_at=0.5)
    _, sparse = attached(model, rep, sparsity=0.7, decay=0.01)
    train(model, sparse, 4)
    after_cut = dict(twin_weights(model))
    train(model, sparse, 4)
    for name, theta in rep.weights():
        mask = sparse.masks[name]
        assert not theta[~mask].any()
        assert (theta[mask] != after_cut[name][mask]).all()


# ---- beside HAM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spred", "pilot", "product"])
def test_ham_leaves_the_factors_alone(name: str):
    ends = []
    for wrap in (lambda base: base, lambda base: HAM(base, alpha=50.0, beta=0.1)):
        model = two_layers()
        rep = sparsity.represent(model, name)
        optimizer = wrap(torch.optim.SGD(rep.param_groups(weight_decay=0.01), lr=0.1))
        sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=4, steps_per_epoch=4)
        train(model, sparse, 3)
        ends.append(factors(rep))
    assert ends[0] == ends[1]
