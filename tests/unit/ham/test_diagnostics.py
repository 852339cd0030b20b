"""What a look at HAM's step shows: hand-computed figures, the verdict, and that looking changes nothing."""

import copy
import math

import pytest
import torch
from ham_helpers import NoHostSync, make_model, make_optimizer, parameter, train, weights
from torch.optim import SGD

from ham import HAM, OptimizerWrapper
from ham.diagnostics import IDLE, TOO_LARGE, Watch


def stepped(values, grads, **options):
    """A weight at ``values`` with ``grads``, as it stands after a step; the base does not move it."""
    weight = torch.nn.Parameter(torch.tensor([values]))
    weight.grad = torch.tensor([grads])
    return weight, HAM(SGD([weight], lr=0.1), **{"alpha": 2.0, "beta": 0.5, **options})


def test_figures_by_hand():
    # exponents .1 * (-2 * sign * g - .5): -0.25, +0.35, (none), -6.05, +2.95
    weight, optimizer = stepped([1.0, -2.0, 0.0, 3.0, 4.0], [1.0, 2.0, 50.0, 30.0, -15.0])
    look = Watch(optimizer, [("w", weight)]).look()
    assert look is not None
    steps = [1 - math.exp(-0.25), math.exp(0.35) - 1, 1 - math.exp(-5), math.exp(2.95) - 1]
    assert look.overall.relative_step == pytest.approx(sum(steps) / 4)
    assert (look.overall.large, look.overall.clamped) == (0.5, 0.25)
    assert look.overall.speed == pytest.approx(2 * (1 + 2 + 3 + 4) / 4)
    assert look.overall.flips == 0
    assert look.layers == {"w": look.overall}


def test_the_figures_are_those_of_the_step_just_taken():
    model = make_model()
    optimizer = HAM(SGD(model.parameters(), lr=0.1), alpha=5.0)
    train(model, optimizer, 3)
    watch = Watch(optimizer, model.named_parameters())
    twin = copy.deepcopy(model)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    for each in (model, twin):
        each.zero_grad()
        each(x).square().mean().backward()
    SGD(twin.parameters(), lr=0.1).step()
    optimizer.step()
    look = watch.look()
    assert look is not None
    assert list(look.layers) == ["0.weight", "2.weight"]
    for name, figures in look.layers.items():
        relative = (model.get_parameter(name) / twin.get_parameter(name) - 1).abs().mean().item()
        assert figures.relative_step == pytest.approx(relative, rel=1e-4)


def test_all_weights_together_are_the_layers_by_their_sizes():
    one, other = parameter(1, 3, grad=1.0), parameter(3, 3, grad=4.0)
    look = Watch(HAM(SGD([one, other], lr=0.1), alpha=2.0, beta=0.0)).look()
    assert look is not None
    small, large = 1 - math.exp(-0.2), 1 - math.exp(-0.8)
    assert {name: f.relative_step for name, f in look.layers.items()} == pytest.approx({"0.0": small, "0.1": large})
    assert look.overall.relative_step == pytest.approx((3 * small + 9 * large) / 12)
    assert look.worst == "0.1"
    assert look.metrics()["ham/worst_relative_step"] == pytest.approx(large)
    assert look.metrics(layers=True)["ham/large/0.1"] == 1.0
    assert all(type(value) is float for value in look.metrics(layers=True).values())


def test_flips_count_since_the_last_look_among_weights_active_at_both():
    weight, optimizer = stepped([1.0, -2.0, 0.0, 3.0, 4.0], [0.0] * 5)
    watch = Watch(optimizer)
    watch.look()
    with torch.no_grad():
        weight.copy_(torch.tensor([[-1.0, -2.0, 5.0, 0.0, 4.0]]))
    assert (look := watch.look()) is not None
    assert look.overall.flips == pytest.approx(1 / 3)
    assert (look := watch.look()) is not None
    assert look.overall.flips == 0
    weight.data.neg_()
    watch.forget_signs()
    assert (look := watch.look()) is not None
    assert look.overall.flips == 0


def test_the_scale_free_alpha_in_effect_is_seen():
    weight = parameter(2, 2, grad=3.0)
    optimizer = HAM(SGD([weight], lr=0.1), alpha=0.05, beta=0.0, scale_free=True)
    watch = Watch(optimizer)
    assert watch.look() is None  # no step yet
    optimizer.step()
    assert (look := watch.look()) is not None
    assert look.overall.relative_step == pytest.approx(1 - math.exp(-0.05), rel=1e-5)
    assert look.overall.speed == pytest.approx(0.05 / (0.1 * 3.0) * weight.flatten()[0].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("lr", "alpha", "verdict"),
    [
        (1.0, 1.05 * TOO_LARGE, "fine"),  # a step of 1 - exp(-0.21) = 0.189
        (1.0, 1.15 * TOO_LARGE, "too large"),
        (0.1, 0.9 * IDLE, "idle"),
        (0.1, 1.1 * IDLE, "fine"),
    ],
)
def test_the_verdict_stands_at_its_thresholds(lr, alpha, verdict):
    # a weight of one with a gradient of one: exponent -lr * alpha, speed alpha
    weight = parameter(2, 2)
    watch = Watch(HAM(SGD([weight], lr=lr), alpha=alpha, beta=0.0))
    assert watch.verdict is None
    watch.look()
    assert watch.verdict == verdict


def test_the_verdict_remembers_the_worst_layer_and_the_strongest_look():
    small, large = parameter(2, 2, grad=10.0), parameter(100, 100, grad=0.01)
    optimizer = HAM(SGD([small, large], lr=0.1), alpha=0.01, beta=0.0)
    watch = Watch(optimizer)
    watch.look()
    assert watch.verdict == "idle"
    optimizer.param_groups[0]["alpha"] = 0.5
    look = watch.look()
    assert look is not None
    assert look.overall.relative_step < 0.001  # the few weights of the one layer are lost in all of them
    assert watch.verdict == "too large"
    optimizer.param_groups[0]["alpha"] = 0.01
    watch.look()
    assert watch.verdict == "too large"


def test_looking_changes_nothing_and_waits_once():
    models, optimizers = [make_model(), make_model()], []
    for model in models:
        optimizers.append(make_optimizer(model))
    watch = Watch(OptimizerWrapper(optimizers[0]), models[0].named_parameters())
    for step in range(5):
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, optimizer, 1, start=step)
        with NoHostSync():  # the one transfer is `tolist`, which is no operation
            watch.look()
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


def test_a_watch_goes_on_where_it_was():
    weight, optimizer = stepped([1.0, -2.0, 0.0, 3.0, 4.0], [30.0] * 5)
    first, second = Watch(optimizer), Watch(optimizer)
    first.look()
    second.load_state_dict(first.state_dict())
    assert second.verdict == "too large"
    weight.data.neg_()
    weight.grad = torch.zeros(1, 5)
    assert (look := second.look()) is not None
    assert look.overall.flips == 1.0


def test_gradients_that_are_not_numbers_count_as_no_step():
    _, optimizer = stepped([1.0, 1.0], [float("nan"), 1.0], beta=0.0)
    look = Watch(optimizer).look()
    assert look is not None
    assert look.overall.relative_step == pytest.approx((1 - math.exp(-0.2)) / 2)


def test_without_ham_there_is_nothing_to_watch():
    with pytest.raises(ValueError, match="there is no HAM in SGD"):
        Watch(SGD([parameter(2, 2)], lr=0.1))
    off = HAM(SGD([{"params": [parameter(2, 2)], "ham": False}], lr=0.1))
    assert Watch(off).look() is None
