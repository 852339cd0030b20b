"""Representations against literal formulas, autograd, and each other."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sparsity
from ham import HAM
from sparsity import representation as protocol
from sparsity.representations.product import split

TRAINED = ("product", "bar", "sign_in", "spred", "pilot", "str", "powerprop")


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ).to(dtype)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(12, 1, 8, 8, generator=generator).to(dtype), torch.randint(5, (12,), generator=generator)


def backward(model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    x, y = batch(dtype)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", *TRAINED])
def test_the_initial_weights_stay(name: str):
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rep = sparsity.represent(model, name)
    weights = dict(rep.weights())
    assert list(weights) == ["0.weight", "5.weight"]
    for key, theta in weights.items():
        torch.testing.assert_close(theta, before[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TRAINED)
def test_folding_leaves_a_plain_network_with_the_same_output(name: str):
    model = net(torch.float64).eval()
    keys = list(model.state_dict())
    rep = sparsity.represent(model, name, **({"initial_threshold": -3.0} if name == "str" else {}))
    x, _ = batch(torch.float64)
    before, thetas = model(x), {key: theta.clone() for key, theta in rep.weights()}
    rep.fold()
    assert torch.equal(model(x), before)
    assert sorted(model.state_dict()) == sorted(keys)
    assert type(model[0]) is nn.Conv2d
    for key, theta in thetas.items():
        assert torch.equal(model.get_parameter(key), theta)


@pytest.mark.parametrize("name", ["plain", *TRAINED])
def test_parameter_groups_hold_every_parameter_once(name: str):
    model = net()
    rep = sparsity.represent(model, name, **({"decay_factors": True} if name == "pilot" else {}))
    for decay in ("weights", "all"):
        groups = rep.param_groups(weight_decay=0.25, weight_decay_on=decay)
        held = [id(p) for group in groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        for group in groups:
            vectors = {p.ndim < 2 for p in group["params"]}
            assert len(vectors) == 1
            assert group["weight_decay"] == (0.0 if vectors == {True} and decay == "weights" else 0.25)


def test_which_groups_ham_may_touch():
    def allowed(name: str) -> list[tuple[bool, list[tuple[int, ...]]]]:
        rep = sparsity.represent(nn.Sequential(nn.Linear(3, 2)), name)
        return [(group["ham"], [tuple(p.shape) for p in group["params"]]) for group in rep.param_groups()]

    assert allowed("plain") == [(True, [(2, 3)]), (True, [(2,)])]
    for name in ("product", "bar", "sign_in", "spred", "pilot"):
        assert allowed(name) == [(False, [(2, 3)]), (False, [(2, 3)]), (True, [(2,)])]
    assert allowed("powerprop") == allowed("plain")
    assert allowed("str") == [(True, [(2, 3)]), (False, [(1, 1)]), (True, [(2,)])]


def test_refuses_an_unknown_way_to_decay():
    with pytest.raises(ValueError, match="weight_decay_on='none' is not one of weights, all"):
        sparsity.represent(net()).param_groups(weight_decay_on="none")


def test_matrices_outside_prunable_layers_are_decayed_as_weights():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 2)})
    groups = sparsity.represent(model).param_groups(weight_decay=0.5)
    decayed = [tuple(p.shape) for group in groups if group["weight_decay"] for p in group["params"]]
    assert decayed == [(2, 3), (5, 3)]


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_is_represented_once(name: str):
    model = net()
    rep = sparsity.represent(model, name)
    assert protocol.of(model) is rep
    for again in ("plain", name):
        with pytest.raises(ValueError, match="represented already"):
            sparsity.represent(model, again)


def test_a_plain_model_is_represented_once():
    model = net()
    sparsity.represent(model, "plain")
    with pytest.raises(ValueError, match="represented already"):
        sparsity.represent(model, "plain")


def test_attach_finds_a_representation_that_keeps_the_plain_weight(open_registry):
    @sparsity.register_representation("clipped")
    class Clipped(sparsity.Representation):
        """Plain weights, bounded after each epoch."""

        def after_epoch(self, ctx: Any, metrics: Any) -> None:
            with torch.no_grad():
                for slot in self.slots.values():
                    slot.factors[0].clamp_(-0.01, 0.01)

    model = net()
    rep = sparsity.represent(model, "clipped")
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.0)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=1)
    backward(model)
    sparse.step()
    assert model[5].weight.abs().max() <= 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_a_copied_model_has_its_own_representation(name: str):
    model = net()
    sparsity.represent(model, name)
    twin = copy.deepcopy(model)
    rep = protocol.of(twin)
    assert rep is not None
    owned = {id(p) for p in twin.parameters()}
    assert all(id(factor) in owned for slot in rep.slots.values() for factor in slot.factors)
    assert {id(p) for group in rep.param_groups() for p in group["params"]} == owned


@pytest.mark.parametrize("name", ["plain", *TRAINED])
def test_weights_are_named_alike_through_wrappers(name: str):
    inner = net()
    rep = sparsity.represent(inner, name)
    wrapped = torch.compile(nn.DataParallel(inner), backend="eager")
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.1)
    sparse = sparsity.attach("dense", wrapped, optimizer, sparsity=0.0, total_steps=2, steps_per_epoch=1)
    assert list(sparse.masks) == ["0.weight", "5.weight"]


def test_listing_weights_leaves_gradients_on():
    weights = sparsity.represent(net(), "product").weights()
    next(weights)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["plain", *TRAINED])
def test_weights_can_be_listed_after_folding(name: str):
    rep = sparsity.represent(net(), name)
    before = [(key, theta.clone()) for key, theta in rep.weights()]
    rep.fold()
    for (key, theta), (name_before, theta_before) in zip(rep.weights(), before, strict=True):
        assert key == name_before
        assert torch.equal(theta, theta_before)


def test_refuses_tied_layers():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight share a parameter: tied weights"):
        sparsity.represent(model)


@pytest.mark.parametrize("name", ["plain", "product"])
def test_refuses_a_head_tied_to_an_embedding(name: str):
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match="tied"):
        sparsity.represent(model, name)


def test_refuses_a_model_without_weights():
    with pytest.raises(ValueError, match="nothing can be pruned"):
        sparsity.represent(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))


# ---- soft threshold -------------------------------------------------------------------------------------------------


def literal_str(w: Tensor, s: Tensor) -> Tensor:
    """Kusupati et al., equation (3)."""
    return torch.sign(w) * torch.relu(torch.abs(w) - torch.sigmoid(s))


def test_str_forward_is_the_literal_formula():
    model = net(torch.float64)
    rep = sparsity.represent(model, "str", initial_threshold=-2.0)
    for slot in rep.slots.values():
        w, s = slot.factors
        assert s.shape == (1, 1)
        assert s.item() == -2
        assert torch.equal(slot.module.weight, literal_str(w, s))
    # sigmoid(-2) = .1192: .3 becomes .1808, -.1 becomes 0
    assert rep.materialise(torch.tensor([0.3, -0.1, -0.5]), torch.full((1, 1), -2.0)).tolist() == pytest.approx(
        [0.18079708, 0, -0.38079708]
    )


def test_str_gradients_are_numerically_right():
    rep = sparsity.represent(net(), "str")
    # sigmoid(-1.5) = .18: nothing lies near the kink
    w = torch.tensor([[0.5, -0.4, 0.05], [-0.9, 0.3, -0.01]], dtype=torch.float64, requires_grad=True)
    s = torch.full((1, 1), -1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rep.materialise, (w, s))


def test_str_gradients_in_a_network():
    model = net(torch.float64)
    reference = copy.deepcopy(model)
    rep = sparsity.represent(model, "str", initial_threshold=-2.0)
    backward(model, torch.float64)
    s = {name: torch.full((1, 1), -2.0, dtype=torch.float64, requires_grad=True) for name in rep.slots}
    w = {name: reference.get_parameter(name).detach().clone().requires_grad_() for name in rep.slots}
    x, y = batch(torch.float64)
    thetas = {name: literal_str(w[name], s[name]) for name in w}
    nn.functional.cross_entropy(torch.func.functional_call(reference, thetas, (x,)), y).backward()
    for name, slot in rep.slots.items():
        torch.testing.assert_close(slot.factors[0].grad, w[name].grad)
        torch.testing.assert_close(slot.factors[1].grad, s[name].grad)
        assert slot.factors[1].grad.item() != 0


def str_run(steps: int, **options: Any) -> tuple[sparsity.Representation, sparsity.SparseTraining]:
    model = net()
    rep = sparsity.represent(model, "str", **options)
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=0.01), lr=0.1)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.5, total_steps=steps, steps_per_epoch=2)
    for _ in range(steps):
        backward(model)
        sparse.step()
    return rep, sparse


def test_at_the_published_start_the_threshold_moves_by_decay_alone():
    rep, sparse = str_run(10)
    for slot in rep.slots.values():
        # s <- s - .1 * .01 * s, ten times; its gradient underflows to exactly zero
        assert slot.factors[1].item() == pytest.approx(-3200 * 0.999**10, rel=1e-6)
        assert slot.factors[1].grad.item() == 0
        assert slot.module.weight.all()
    assert sparse.event_counts == {"projection": 1}  # this will never be sparse


def test_threshold_decay_is_its_own_group():
    rep, _ = str_run(10, threshold_decay=0.5)
    for slot in rep.slots.values():
        assert slot.factors[1].item() == pytest.approx(-3200 * 0.95**10, rel=1e-6)
    groups = rep.param_groups(weight_decay=0.01)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.5, 0.0]
    zero = sparsity.represent(net(), "str", threshold_decay=0.0)
    assert [group["weight_decay"] for group in zero.param_groups(0.01, weight_decay_on="all")] == [0.01, 0.0, 0.01]


def test_the_step_at_which_the_threshold_turns_on_is_recorded_once():
    # s: -3200 * .05^n reaches -8 at n = 2 and -.4 at n = 3, where sigmoid is .4 and cuts; epochs are two steps
    _, sparse = str_run(8, threshold_decay=9.5)
    assert sparse.event_counts["threshold"] == 1
    assert sparse.events[0]["event"] == "threshold"
    assert sparse.events[0]["step"] == 4
    _, sparse = str_run(4)
    assert "threshold" not in sparse.event_counts


@pytest.mark.parametrize("wrap", [lambda base: base, lambda base: HAM(base, alpha=200.0, beta=1.0)])
def test_ham_leaves_the_thresholds_alone(wrap: Any):
    model = net()
    rep = sparsity.represent(model, "str")
    optimizer = wrap(torch.optim.SGD(rep.param_groups(weight_decay=0.01), lr=0.1))
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=10)
    for _ in range(10):
        backward(model)
        sparse.step()
    for slot in rep.slots.values():
        assert slot.factors[1].item() == pytest.approx(-3200 * 0.999**10, rel=1e-6)


def test_a_classifier_without_a_threshold():
    model = net()
    rep = sparsity.represent(model, "str", initial_threshold=-0.5, classifier=False)
    start = model[5].weight.detach().clone()
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=0.5), lr=0.1, momentum=0.9)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=4)
    assert torch.equal(model[5].weight, rep.slots["5.weight"].factors[0])
    for _ in range(4):
        backward(model)
        sparse.step()
    assert rep.slots["0.weight"].factors[1].item() > -0.5
    # sigmoid(-.5) = .38 cuts all of the convolution, whose weights are below 1/3; the classifier learns
    assert sparse.finalize() == {"0.weight": 0, "5.weight": 180}
    assert not torch.equal(model[5].weight, start)


def test_the_classifier_is_thresholded_by_default():
    rep = sparsity.represent(net(), "str", initial_threshold=0.0)
    assert not rep.slots["5.weight"].weight.any()


def projected(sparsities: list[float], target: float) -> list[dict[str, Any]]:
    """What is projected in a run of as many epochs in which so large a share of ten weights is zero after each."""
    model = nn.Sequential(nn.Linear(10, 1, bias=False))
    rep = sparsity.represent(model, "str", initial_threshold=0.0)  # cuts at .5
    sparse = sparsity.attach(
        "dense",
        model,
        torch.optim.SGD(rep.param_groups(), lr=0.0),
        sparsity=target,
        total_steps=len(sparsities),
        steps_per_epoch=1,
    )
    weight = rep.slots["0.weight"].factors[0]
    for share in sparsities:
        with torch.no_grad():
            weight.copy_((torch.arange(10) >= round(10 * share)).float()[None])
        model(torch.ones(1, 10)).sum().backward()
        sparse.step()
    return [event for event in sparse.events if event["event"] == "projection"]


def test_a_target_that_will_be_missed_is_said(caplog: pytest.LogCaptureFixture):
    # after 6 of 8 epochs .4 is zero, .1 more than before: between .4 and .4 + 2 * .1 in the end
    found = projected([0, 0, 0, 0, 0.3, 0.4, 0.5, 0.5], 0.9)
    assert [(event["step"], event["target"]) for event in found] == [(6, 0.9)]
    assert (found[0]["low"], found[0]["high"]) == pytest.approx((0.4, 0.6))
    assert "between 0.4000 and 0.6000, its target is 0.9000" in caplog.text
    # too much already; and a threshold that never woke up
    assert [event["low"] for event in projected([0, 0, 0.8, 0.8], 0.7)] == pytest.approx([0.8])
    assert [(event["low"], event["high"]) for event in projected([0, 0, 0, 0], 0.7)] == [(0, 0)]


@pytest.mark.parametrize(
    ("sparsities", "target"),
    [
        ([0, 0, 0, 0, 0.3, 0.4, 0.5, 0.5], 0.4),
        ([0, 0, 0, 0, 0.3, 0.4, 0.5, 0.5], 0.5),
        ([0, 0, 0, 0, 0.3, 0.4, 0.5, 0.5], 0.6),
        ([0.7], 0.7),
        ([0, 0, 0, 0], 0.0),  # no target at all
    ],
)
def test_a_target_within_reach_is_not_warned_of(
    sparsities: list[float], target: float, caplog: pytest.LogCaptureFixture
):
    assert projected(sparsities, target) == []
    assert not caplog.records


def test_a_mask_is_not_taken_for_the_threshold():
    model = net()
    rep = sparsity.represent(model, "str")
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.1)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=4, steps_per_epoch=2)
    for _ in range(4):
        backward(model)
        sparse.step()
    assert sparse.event_counts == {"initial": 1}  # and its zeros count towards the target: nothing is missed


def test_str_needs_a_decay_of_its_threshold_solved_before():
    with pytest.raises(ValueError, match="calibrat"):
        sparsity.represent(net(), "str", threshold_decay="calibrated")


def test_str_zeros_are_counted_at_the_end():
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, -0.8, 0.1, 0.7], [-0.2, 2.0, 0.6, 0.4]]))
    rep = sparsity.represent(model, "str", initial_threshold=0.0)
    sparse = sparsity.attach("dense", model, torch.optim.SGD(rep.param_groups(), lr=0.0), sparsity=0.5, total_steps=1)
    assert sparse.densities() == {"0.weight": 5 / 8}
    assert sparse.finalize() == {"0.weight": 5}
    expected = [[0.4, -0.3, 0, 0.2], [0, 1.5, 0.1, 0]]
    assert torch.allclose(model[0].weight, torch.tensor(expected))


# ---- powers ---------------------------------------------------------------------------------------------------------


def test_powers_by_hand():
    rep = sparsity.represent(nn.Sequential(nn.Linear(3, 1)), "powerprop", power=3.0)
    (v,) = rep.factorise(torch.tensor([8.0, -27.0, 0.0]))
    assert v.tolist() == pytest.approx([2, -3, 0])
    assert rep.materialise(v).tolist() == pytest.approx([8, -27, 0])


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 4.0])
def test_the_gradient_of_a_power(power: float):
    rep = sparsity.represent(nn.Sequential(nn.Linear(3, 1)), "powerprop", power=power)
    v = nn.Parameter(torch.tensor([0.5, -2.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(rep.materialise(v), v * v.abs() ** (power - 1))
    dense = torch.tensor([3.0, -1.0, 0.5, 7.0], dtype=torch.float64)  # dL/dtheta
    (rep.materialise(v) * dense).sum().backward()
    expected = [dense[i].item() * power * abs(v[i].item()) ** (power - 1) for i in range(3)]
    assert v.grad is not None
    assert v.grad.tolist() == pytest.approx([*expected, 7 if power == 1 else 0])
    found = rep.grad(v)
    assert found is not None
    assert found.tolist() == pytest.approx([3, -1, 0.5, 7 if power == 1 else 0])


def test_powers_have_the_gradient_of_theta_as_a_leaf():
    model = net(torch.float64)
    reference = copy.deepcopy(model)
    rep = sparsity.represent(model, "powerprop", power=2.5)
    assert rep.grad(*rep.slots["5.weight"].factors) is None
    backward(model, torch.float64)
    leaves = {name: theta.clone().requires_grad_() for name, theta in rep.weights()}
    x, y = batch(torch.float64)
    nn.functional.cross_entropy(torch.func.functional_call(reference, leaves, (x,)), y).backward()
    for name, slot in rep.slots.items():
        torch.testing.assert_close(rep.grad(*slot.factors), leaves[name].grad)


def test_the_large_learn_faster_under_a_power():
    """One step of rate r moves theta by about r p^2 |theta|^(2 - 2/p) g: at p = 2, four times r |theta| g."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.25, 0.01]]))
    rep = sparsity.represent(model, "powerprop")
    optimizer = torch.optim.SGD(rep.param_groups(), lr=1e-4)
    model(torch.ones(1, 3)).sum().backward()
    before = rep.slots["0.weight"].weight.clone()
    optimizer.step()
    moved = before - rep.slots["0.weight"].weight
    torch.testing.assert_close(moved, 1e-4 * 4 * before, rtol=5e-3, atol=1e-7)


# ---- the product ----------------------------------------------------------------------------------------------------


@given(theta=st.floats(-1e3, 1e3), beta=st.sampled_from([0.01, 0.3, 1.0, 2.0]))
def test_split_in_double_precision(theta: float, beta: float):
    m, w = (value.item() for value in split(torch.tensor([theta], dtype=torch.float64), beta))
    assert m > 0
    assert m * w == pytest.approx(theta, rel=1e-12, abs=1e-300)
    # exactly beta, up to the rounding of the squares that are subtracted
    assert m * m - w * w == pytest.approx(beta, rel=1e-12, abs=1e-14 * m * m)


@given(theta=st.floats(-2, 2, width=32))
def test_split_in_single_precision(theta: float):
    m, w = split(torch.tensor([theta]), 1.0)
    assert (m * w).item() == pytest.approx(theta, abs=1e-6)
    assert (m.double() ** 2 - w.double() ** 2).item() == pytest.approx(1, abs=2e-6)


def test_split_by_hand():
    # beta 1, theta sqrt(2): sqrt(4 * 2 + 1) = 3, so m = sqrt(2), w = 1;  theta 0 is (1, 0)
    m, w = split(torch.tensor([math.sqrt(2), -math.sqrt(2), 0.0], dtype=torch.float64), 1.0)
    assert m.tolist() == pytest.approx([math.sqrt(2), math.sqrt(2), 1])
    assert w.tolist() == pytest.approx([1, -1, 0])
    # balanced: (2, 2), (2, -2) and (0, 0)
    m, w = split(torch.tensor([4.0, -4.0, 0.0]), 0.0)
    assert (m.tolist(), w.tolist()) == ([2, 2, 0], [2, -2, 0])


@pytest.mark.parametrize("beta", [1.0, 0.25, 0.0])
def test_product_gradient_is_that_of_theta_as_a_leaf(beta: float):
    model = net(torch.float64)
    reference = copy.deepcopy(model)
    rep = sparsity.represent(model, "product", beta=beta)
    backward(model, torch.float64)
    leaves = {name: theta.clone().requires_grad_() for name, theta in rep.weights()}
    x, y = batch(torch.float64)
    nn.functional.cross_entropy(torch.func.functional_call(reference, leaves, (x,)), y).backward()
    for name, slot in rep.slots.items():
        found = rep.grad(*slot.factors)
        assert found is not None
        torch.testing.assert_close(found, leaves[name].grad, rtol=1e-9, atol=1e-12)


def test_product_gradient_is_right_under_accumulation():
    model = net(torch.float64)
    rep = sparsity.represent(model, "product")
    x, y = batch(torch.float64)
    model.eval()  # batch statistics would differ between halves
    nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    whole = {name: rep.grad(*slot.factors) for name, slot in rep.slots.items()}
    model.zero_grad()
    for half in (slice(0, 5), slice(5, 12)):
        nn.functional.cross_entropy(model(x[half]), y[half], reduction="sum").backward()
    for name, slot in rep.slots.items():
        torch.testing.assert_close(rep.grad(*slot.factors), whole[name])


def test_product_has_no_gradient_before_a_backward_pass():
    rep = sparsity.represent(net(), "product")
    assert rep.grad(*rep.slots["5.weight"].factors) is None


@pytest.mark.parametrize(("options", "parked"), [({}, 1.0), ({"beta": 0.25}, 0.5), ({"beta": 0.0}, 1.0)])
def test_pruned_entries_are_parked_where_a_gradient_reaches_them(options: dict[str, float], parked: float):
    model = net()
    rep = sparsity.represent(model, "product", **options)
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=0.1), lr=0.1, momentum=0.9)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.8, total_steps=3)
    for _ in range(3):
        backward(model)
        sparse.step()
        for name, slot in rep.slots.items():
            m, w = slot.factors
            pruned = ~sparse.masks[name]
            # decay alone would have shrunk m
            assert set(m[pruned].tolist()) == {parked}
            assert not w[pruned].any()
            assert not slot.module.weight[pruned].any()
    backward(model)
    w = rep.slots["5.weight"].factors[1]
    assert w.grad[~sparse.masks["5.weight"]].abs().min() > 0


def recovering(topology: str, name: str, given: dict[str, Any], **options: Any) -> None:
    """Some weights that came back at zero are non-zero 20 steps later, and no factor pair is stuck at (0, 0)."""
    model = net()
    rep = sparsity.represent(model, name, **given)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.1, momentum=0.9)
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.8, total_steps=200, steps_per_epoch=10, **options)
    revived: dict[str, Tensor] = {}
    since = 0
    for _ in range(200):
        old = dict(sparse.masks)
        backward(model)
        sparse.step(metrics=lambda: {"train_accuracy": 0.5})
        grown = {name: sparse.masks[name] & ~old[name] for name in old}
        if not revived and any(mask.any() for mask in grown.values()):
            revived, since = grown, sparse.steps_done
            for name, theta in rep.weights():
                assert not theta[grown[name]].any()
        alive = {name: mask & sparse.masks[name] for name, mask in revived.items()}
        if revived and sparse.steps_done == since + (9 if topology == "acdc" else 20):
            assert sum(int(mask.sum()) for mask in alive.values()) > 10
            for name, theta in rep.weights():
                assert theta[alive[name]].all()
            return
    raise AssertionError("nothing ever grew")


PRODUCTS = [
    *(("sign_in", {"beta": 1.0}), ("sign_in", {"beta": 0.0})),
    *((name, {}) for name in ("pilot", "spred", "product", "bar")),
]


@pytest.mark.parametrize(("name", "given"), PRODUCTS)
def test_weights_grown_by_rigl_recover(name: str, given: dict[str, Any]):
    recovering("rigl", name, given, update_every=40, drop_fraction=0.5)


@pytest.mark.parametrize(("name", "given"), PRODUCTS)
def test_weights_decompressed_by_acdc_recover(name: str, given: dict[str, Any]):
    # the dense phases of 200 steps are ten steps long
    recovering("acdc", name, given)


# ---- Sign-In --------------------------------------------------------------------------------------------------------


def before_and_after_reset(
    optimizer: type[torch.optim.Optimizer], dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]], dict[str, int]]:
    """Factors and moments just before the first reset and just after it, from twin runs of which one resets."""
    pairs = []
    for reset_every in (4, 1):
        torch.manual_seed(1)
        model = net(dtype)
        rep = sparsity.represent(model, "sign_in", **{**options, "reset_every": reset_every})
        groups = rep.param_groups(weight_decay=0.05)
        opt = optimizer(groups, lr=0.05, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}))
        sparse = sparsity.attach("random", model, opt, sparsity=0.5, total_steps=20, steps_per_epoch=4)
        for _ in range(4):
            backward(model, dtype)
            sparse.step()
        found = []
        for name, slot in rep.slots.items():
            entry = {"mask": sparse.masks[name]}
            for label, factor in zip("mw", slot.factors, strict=True):
                entry[label] = factor.detach().clone()
                entry |= {f"{label}.{k}": v.clone() for k, v in opt.state[factor].items() if v.ndim}
            found.append(entry)
        pairs.append((found, dict(sparse.event_counts)))
    return pairs[0][0], pairs[1][0], pairs[1][1]


def average_gradient(entry: dict[str, Tensor], key: str) -> Tensor:
    """What the two moments say about dL/dtheta: exact where each is g times the other factor."""
    m, w = entry["m"], entry["w"]
    return (w * entry[f"m.{key}"] + m * entry[f"w.{key}"]) / (m * m + w * w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reset_restores_the_geometry_and_not_theta(dtype: torch.dtype):
    before, after, events = before_and_after_reset(torch.optim.SGD, dtype)
    assert events == {"initial": 1, "reset": 1}
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new["m"] * new["w"], old["m"] * old["w"], rtol=0, atol=1e-6)
        drift = (old["m"] ** 2 - old["w"] ** 2 - 1)[old["mask"]].abs()
        assert drift.max() > 1e-3  # four steps of decay had moved it
        assert (new["m"] ** 2 - new["w"] ** 2 - 1).abs().max() < (1e-6 if dtype == torch.float32 else 1e-14)
        assert (new["m"] > 0).all()
        assert set(new["m"][~new["mask"]].tolist()) == {1.0}
        assert not new["w"][~new["mask"]].any()


@pytest.mark.parametrize(("optimizer", "key"), [(torch.optim.SGD, "momentum_buffer"), (torch.optim.AdamW, "exp_avg")])
def test_remapped_moments_keep_the_average_gradient_of_theta(optimizer: type[torch.optim.Optimizer], key: str):
    before, after, _ = before_and_after_reset(optimizer)
    for old, new in zip(before, after, strict=True):
        velocity = average_gradient(old, key)
        assert velocity[old["mask"]].all()
        torch.testing.assert_close(average_gradient(new, key), velocity, rtol=1e-9, atol=1e-12)
        # written in the new coordinates as a gradient of theta would be
        torch.testing.assert_close(new[f"m.{key}"], velocity * new["w"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(new[f"w.{key}"], velocity * new["m"], rtol=1e-9, atol=1e-12)
        if optimizer is torch.optim.AdamW:
            assert torch.equal(new["m.exp_avg_sq"], old["m.exp_avg_sq"])
            assert torch.equal(new["w.exp_avg_sq"], old["w.exp_avg_sq"])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zeroed_and_kept_moments(optimizer: type[torch.optim.Optimizer]):
    _, after, _ = before_and_after_reset(optimizer, moments="zero")
    for new in after:
        moments = [key for key in new if "." in key]
        assert moments
        assert not any(new[key].any() for key in moments)
    before, after, _ = before_and_after_reset(optimizer, moments="keep")
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(new[key], old[key]) for key in new if "." in key)


def sign_in_run(total: int, steps_per_epoch: int, **options: Any) -> sparsity.SparseTraining:
    model = nn.Sequential(nn.Linear(4, 3))
    rep = sparsity.represent(model, "sign_in", **options)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.05)
    sparse = sparsity.attach(
        "random", model, optimizer, sparsity=0.5, total_steps=total, steps_per_epoch=steps_per_epoch
    )
    for _ in range(total):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().mean().backward()
        sparse.step()
    return sparse


@pytest.mark.parametrize(
    ("total", "steps_per_epoch", "period", "steps"),
    [
        (12, 3, 1, [3, 6, 9]),  # four epochs, none after the last
        (12, 3, 2, [6]),
        (15, 3, 2, [6, 12]),
        (8, 3, 1, [3, 6]),
    ],
)
def test_resets_by_hand(total: int, steps_per_epoch: int, period: int, steps: list[int]):
    sparse = sign_in_run(total, steps_per_epoch, reset_every=period)
    resets = [event for event in sparse.events if event["event"] == "reset"]
    assert [event["step"] for event in resets] == steps
    assert sparse.expected_events().get("reset") == len(steps)


@pytest.mark.parametrize(("total", "period"), [(12, 4), (3, 1), (2, 1)])
def test_a_period_within_which_nothing_is_reset_is_refused(total: int, period: int):
    with pytest.raises(sparsity.OptionError, match="sign_in would never reset") as refused:
        sign_in_run(total, 3, reset_every=period)
    assert (refused.value.section, refused.value.key) == ("representation", "reset_every")


def test_a_reset_counts_the_weights_it_rewrote():
    # twelve weights, six of them parked: only the six that live have moved off the curve
    sparse = sign_in_run(6, 3)
    assert [event["changed"] for event in sparse.events if event["event"] == "reset"] == [6]


@pytest.mark.parametrize(("beta", "parked"), [(1.0, 1.0), (0.25, 0.5), (0.0, 1.0)])
def test_a_reset_leaves_pruned_entries_parked(beta: float, parked: float):
    model = nn.Sequential(nn.Linear(4, 3))
    rep = sparsity.represent(model, "sign_in", beta=beta)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.05)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=4, steps_per_epoch=1)
    model(torch.randn(5, 4)).square().mean().backward()
    sparse.step()
    assert sparse.event_counts["reset"] == 1
    pruned = ~sparse.masks["0.weight"]
    m, w = rep.slots["0.weight"].factors
    assert (set(m[pruned].tolist()), set(w[pruned].tolist())) == ({parked}, {0.0})


def test_sign_in_needs_to_know_its_epochs():
    model = net()
    rep = sparsity.represent(model, "sign_in")
    with pytest.raises(ValueError, match="'sign_in' acts once an epoch: give steps_per_epoch"):
        sparsity.attach("random", model, torch.optim.SGD(rep.param_groups(), lr=0.1), sparsity=0.5, total_steps=9)


def test_product_never_resets():
    model = net()
    rep = sparsity.represent(model, "product")
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=0.1), lr=0.1)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=6, steps_per_epoch=2)
    for _ in range(6):
        backward(model)
        sparse.step()
    assert sparse.events == []
    m, w = rep.slots["5.weight"].factors
    assert (m**2 - w**2 - 1).abs().min() > 1e-3


@pytest.mark.parametrize(("total", "per_epoch", "epochs"), [(6, 3, [1, 2]), (7, 3, [1, 2, 3]), (2, 3, [1])])
def test_after_epoch_is_called_after_a_short_last_epoch_too(
    monkeypatch: pytest.MonkeyPatch, total: int, per_epoch: int, epochs: list[int]
):
    model, seen = nn.Linear(3, 2), []
    representation = sparsity.represent(model, "plain")
    monkeypatch.setattr(type(representation), "after_epoch", lambda self, ctx, metrics: seen.append(ctx.epoch))
    optimizer = torch.optim.SGD(representation.param_groups(), lr=0.1)
    sparse = sparsity.attach("dense", model, optimizer, sparsity=0.0, total_steps=total, steps_per_epoch=per_epoch)
    for _ in range(total):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        sparse.step()
    assert seen == epochs
