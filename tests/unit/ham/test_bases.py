"""Every optimizer of torch and timm as a base: the step, checkpoints both ways, timm's schedulers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm.optim
import torch
from ham_helpers import make_model, saved_and_loaded, weights
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from ham import HAM, hyperbolic_step_

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True"),  # AdaHessian needs it
    pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'"),
]

ALPHA, BETA = 3.0, 0.01
# apex and bitsandbytes need a GPU; the rest of what timm can make, among it names for one class with other options
TIMM = [name for name in timm.optim.list_optimizers() if not name.startswith(("fused", "bnb"))]
TIMM += ["lookahead_sgd", "lookahead_adamw"]
# SparseAdam takes sparse gradients alone, which HAM refuses
TORCH = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and name not in {"Optimizer", "SparseAdam"}
}
NAMES = [*TORCH, *(f"timm:{name}" for name in TIMM)]
# draws its Hutchinson vectors from a generator of its own that no checkpoint holds
NOT_RESUMABLE = {"timm:adahessian"}


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Kron compiles its matrix functions, which takes longer than all of this."""
    with torch.compiler.set_stance("force_eager"):
        yield


def build(name: str, model: nn.Module) -> Optimizer:
    if name in TORCH:
        return TORCH[name]([p for p in model.parameters() if name != "Muon" or p.ndim == 2], lr=0.02)
    # with a decay timm makes two groups: matrices, and vectors without decay
    return timm.optim.create_optimizer_v2(model, name.removeprefix("timm:"), lr=0.02, weight_decay=1e-3)


def train(
    model: nn.Module, optimizer: Optimizer, steps: range, name: str, after: Callable = lambda grads: None
) -> None:
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        grads: list[Tensor] = []

        def closure(x: Tensor = x, grads: list[Tensor] = grads) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward(create_graph=name == "timm:adahessian")
            grads[:] = [p.grad.detach().clone() for p in model.parameters() if p.grad is not None]
            return loss

        torch.manual_seed(step)
        if name == "LBFGS":
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        else:
            closure()
            optimizer.step()
        after(grads)


def wrapped(name: str, model: nn.Module, alpha: float = ALPHA, beta: float = BETA) -> HAM:
    return HAM(build(name, model), alpha=alpha, beta=beta, max_weight_norm=None)


def multiply(model: nn.Module, optimizer: Optimizer) -> Callable[[list[Tensor]], None]:
    """HAM's half of the step by hand, from the raw gradients."""

    def after(grads: list[Tensor]) -> None:
        given = {id(p): grad for p, grad in zip(model.parameters(), grads, strict=True)}
        for group in optimizer.param_groups:
            rows = [(p, given[id(p)]) for p in group["params"] if p.ndim >= 2]
            hyperbolic_step_([p for p, _ in rows], [g for _, g in rows], lr=group["lr"], alpha=ALPHA, beta=BETA)

    return after


@pytest.mark.parametrize("name", NAMES)
def test_a_step_and_checkpoints_both_ways(name: str):
    """HAM is the base's step and then the rule; saved, it goes on in HAM, in the plain base and from there in HAM."""
    model, twin = make_model(), make_model()
    optimizer, plain = wrapped(name, model), build(name, twin)
    begun = weights(model)
    train(model, optimizer, range(4), name)
    train(twin, plain, range(4), name, multiply(twin, plain))
    assert not torch.equal(weights(model), begun)
    assert torch.equal(weights(model), weights(twin))
    saved, values = saved_and_loaded(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    if name in NOT_RESUMABLE:
        return

    def resumed(make: Callable[..., Optimizer], state: dict[str, Any], **options: float) -> tuple[nn.Module, Optimizer]:
        other = make_model(seed=1)
        other.load_state_dict(values)
        again = make(name, other, **options)
        again.load_state_dict(copy.deepcopy(state))
        return other, again

    def plainly(name: str, model: nn.Module) -> Optimizer:
        return build(name, model)

    whole, (other, again) = model, resumed(wrapped, saved, alpha=1.0, beta=0.5)
    train(whole, optimizer, range(4, 7), name)
    train(other, again, range(4, 7), name)
    assert torch.equal(weights(other), weights(whole))

    bare, bare_optimizer = resumed(plainly, saved)
    there_and_back = saved_and_loaded(bare_optimizer.state_dict())
    idle, idle_optimizer = resumed(wrapped, there_and_back, alpha=0.0, beta=0.0)
    for group in idle_optimizer.param_groups:  # they went along as keys of no meaning to the base
        keys = [key for key in ("ham_alpha", "alpha", "beta") if group.get(key) in (ALPHA, BETA)]
        assert len(keys) == 2
        group.update(dict.fromkeys(keys, 0.0))
    train(bare, bare_optimizer, range(4, 7), name)
    train(idle, idle_optimizer, range(4, 7), name)
    assert torch.equal(weights(idle), weights(bare))
    assert not torch.equal(weights(bare), weights(whole))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_RESUMABLE])
def test_a_checkpoint_of_the_plain_base_starts_ham(name: str):
    model, twin = make_model(), make_model()
    plain, optimizer = build(name, model), wrapped(name, twin)
    train(model, plain, range(3), name)
    twin.load_state_dict(model.state_dict())
    optimizer.load_state_dict(saved_and_loaded(plain.state_dict()))
    train(model, plain, range(3, 6), name, multiply(model, plain))
    train(twin, optimizer, range(3, 6), name)
    assert torch.equal(weights(twin), weights(model))


def test_lookahead_around_ham_and_ham_around_lookahead():
    """Around HAM, the slow weights average what HAM made; inside it, HAM moves what Lookahead has just set."""
    from timm.optim import Lookahead

    model, twin, slow = make_model(), make_model(), make_model()
    optimizer = Lookahead(HAM(torch.optim.SGD(model.parameters(), lr=0.02), alpha=ALPHA, beta=BETA), alpha=0.5, k=2)
    reference = HAM(torch.optim.SGD(twin.parameters(), lr=0.02), alpha=ALPHA, beta=BETA)
    train(model, optimizer, range(2), "")
    train(twin, reference, range(2), "")
    # timm takes the slow weights at the first synchronisation, so the first average is of equal tensors
    assert torch.equal(weights(model), weights(twin))
    slow.load_state_dict(twin.state_dict())
    train(model, optimizer, range(2, 4), "")
    train(twin, reference, range(2, 4), "")
    torch.testing.assert_close(weights(model), (weights(slow) + weights(twin)) / 2)
    state = saved_and_loaded(optimizer.state_dict())
    assert state["param_groups"][0]["lookahead_step"] == 4
    assert state["param_groups"][0]["alpha"] == ALPHA


def test_a_base_without_a_rate_is_refused():
    with pytest.raises(ValueError, match="lr: the base optimizer's parameter groups have no learning rate"):
        HAM(timm.optim.create_optimizer_v2(make_model(), "adafactor", lr=None))


# ---- timm's schedulers ----------------------------------------------------------------------------------------------

SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"warmup_epochs": 2, "cycle_limit": 2, "cycle_decay": 0.5},
    "tanh": {"warmup_epochs": 2},
    "step": {"decay_epochs": 2, "noise": (0.3, 0.9)},
    "constant": {"warmup_epochs": 3},
    "multistep": {"decay_milestones": [2, 5]},
    "plateau": {"patience_epochs": 0},
    "poly": {"decay_rate": 0.9},
    "wsd": {"warmup_epochs": 2, "decay_epochs": 0.5},
    "rsqrt": {"warmup_epochs": 2},
}


# timm steps its plateau by epochs alone
@pytest.mark.parametrize(
    ("name", "per_update"),
    [(name, each) for name in SCHEDULES for each in (False, True) if not each or name != "plateau"],
)
@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")
def test_timms_schedulers_drive_the_base(name: str, per_update: bool):
    """They write `initial_lr` into the groups and scale by `lr_scale`, as timm's layer-wise decay sets it."""
    times = {"step_on_epochs": False, "updates_per_epoch": 1} if per_update else {}

    def built(wrap: bool) -> tuple[nn.Module, Optimizer, Any]:
        model = make_model()
        groups = [{"params": list(model[0].parameters()), "lr_scale": 0.5}, {"params": list(model[2].parameters())}]
        optimizer: Optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        optimizer = HAM(optimizer, alpha=ALPHA, beta=BETA, max_weight_norm=None) if wrap else optimizer
        scheduler, _ = create_scheduler_v2(optimizer, sched=name, num_epochs=9, min_lr=1e-3, **times, **SCHEDULES[name])
        return model, optimizer, scheduler

    (model, optimizer, scheduler), (twin, plain, reference) = built(True), built(False)
    rates = set()
    for epoch in range(8):
        train(model, optimizer, range(epoch, epoch + 1), "")
        train(twin, plain, range(epoch, epoch + 1), "", multiply(twin, plain))
        first, second = optimizer.param_groups
        assert [first["lr"], second["lr"]] == [group["lr"] for group in plain.param_groups]
        if name != "plateau":  # which forgets the scale after its first epoch
            assert first["lr"] == pytest.approx(0.5 * second["lr"])
        assert torch.equal(weights(model), weights(twin))
        rates.add(second["lr"])
        for each in (scheduler, reference):
            each.step_update(epoch + 1, 1.0) if per_update else each.step(epoch + 1, 1.0)
    assert len(rates) > 1


def test_the_table_has_all_of_timms_schedules():
    import inspect
    import re

    source = inspect.getsource(create_scheduler_v2)
    named = set(re.findall(r"sched == '(\w+)'", source)) | {"wsd", "rsqrt"}
    assert set(SCHEDULES) == named
