"""Learning-rate schedulers and gradient scalers drive the base through the wrapper."""

import copy

import pytest
import torch
from ham_helpers import make_model, make_optimizer, saved_and_loaded, train, weights
from torch.optim import SGD, lr_scheduler

from ham import HAM, hyperbolic_step_

SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.3, 4),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 5),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 10, 2.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=20),
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, 0.05, anneal_epochs=5),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.CosineAnnealingLR(o, 8)], [3]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
}


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("error")
def test_schedulers_on_the_wrapper_drive_the_base(name, base):
    model, twin = make_model(), make_model()
    optimizer, reference = make_optimizer(model, base, max_weight_norm=None), make_optimizer(twin, base).base
    schedulers = [SCHEDULERS[name](optimizer), SCHEDULERS[name](reference)]
    rates = set()
    for step in range(9):
        train(model, optimizer, 1, start=step)
        train(twin, reference, 1, start=step)
        group, other = optimizer.param_groups[0], reference.param_groups[0]
        rows = [(p, p.grad) for p in twin.parameters() if p.ndim >= 2 and p.grad is not None]
        matrices, grads = zip(*rows, strict=True)
        hyperbolic_step_(matrices, grads, lr=other["lr"], alpha=3.0, beta=0.01)
        assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}
        assert torch.equal(weights(model), weights(twin))
        rates.add(other["lr"])
        for scheduler in schedulers:
            scheduler.step(*([1.0] if name == "plateau" else []))
    assert len(rates) > 1


def test_the_table_has_all_of_torchs_schedulers():
    abstract = {lr_scheduler.LRScheduler, lr_scheduler._LRScheduler}
    known = {each for each in vars(lr_scheduler).values() if isinstance(each, type)} - abstract
    known = {each for each in known if issubclass(each, lr_scheduler.LRScheduler)} | {torch.optim.swa_utils.SWALR}
    assert {type(make(make_optimizer(make_model()))) for make in SCHEDULERS.values()} == known


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_goes_on_from_a_checkpoint(name):
    """The order that torch's documentation asks for: build both, then load both."""
    model, other = make_model(), make_model(seed=1)
    optimizer = make_optimizer(model)
    scheduler = SCHEDULERS[name](optimizer)

    def run(model, optimizer, scheduler, steps):
        rates = []
        for step in steps:
            train(model, optimizer, 1, start=step)
            scheduler.step(*([1.0] if name == "plateau" else []))
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    run(model, optimizer, scheduler, range(4))
    saved = saved_and_loaded(optimizer.state_dict()), copy.deepcopy(scheduler.state_dict())
    other.load_state_dict(model.state_dict())
    again = make_optimizer(other)
    scheduler_again = SCHEDULERS[name](again)
    again.load_state_dict(saved[0])
    scheduler_again.load_state_dict(saved[1])
    rates = run(model, optimizer, scheduler, range(4, 9))
    assert run(other, again, scheduler_again, range(4, 9)) == rates
    assert again.base.param_groups[0]["lr"] == rates[-1]
    assert torch.equal(weights(other), weights(model))


class WarmsUpItself(SGD):
    """A base that scales its rate and says so in the groups alone, as schedule-free ones do."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["scheduled_lr"] = group["lr"] / 4
            group["lr"], kept = group["scheduled_lr"], group["lr"]
            super().step(closure)
            group["lr"] = kept


def test_a_base_that_warms_up_by_itself_takes_ham_along():
    model, twin = make_model(), make_model()
    optimizer = HAM(WarmsUpItself(model.parameters(), lr=0.1), alpha=3.0, beta=0.01)
    reference = HAM(SGD(twin.parameters(), lr=0.025), alpha=3.0, beta=0.01)
    train(model, optimizer, 3)
    train(twin, reference, 3)
    assert torch.equal(weights(model), weights(twin))


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_scaler_skips_a_step_with_an_infinite_gradient(fused):
    model, twin = make_model(), make_model()

    def build(m):
        return HAM(SGD(m.parameters(), lr=0.1, momentum=0.9, fused=fused), alpha=3.0, beta=0.01)

    optimizer, unscaled = build(model), build(twin)
    assert not hasattr(optimizer, "_step_supports_amp_scaling")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(6):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        scaler.scale(model(x).square().mean()).backward()
        before = weights(model).clone()
        if step in (0, 3):
            next(model.parameters()).grad[0, 0] = float("inf")  # pyright: ignore[reportOptionalSubscript]
        scaler.step(optimizer)
        scaler.update()
        if step in (0, 3):
            assert torch.equal(weights(model), before)
            assert step or not optimizer.state
        else:
            train(twin, unscaled, 1, start=step)
            assert torch.equal(weights(model), weights(twin))  # powers of two scale exactly
    assert scaler.get_scale() == 256.0
