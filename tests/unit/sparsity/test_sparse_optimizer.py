"""A sparse training as an optimizer: the same bits, one state with its masks, and whatever frameworks do with one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import sparsity
from ham import HAM, SAM

STEPS = 24
OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2),
    "ham": lambda groups: HAM(torch.optim.SGD(groups, lr=0.1, momentum=0.9), alpha=5.0),
}


class Run:
    """A small network, its training, and the same training as an optimizer."""

    def __init__(self, topology: str = "rigl", representation: str = "plain", optimizer: str = "sgd", **settings):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
        groups = sparsity.represent(self.model, representation).param_groups()
        self.base = OPTIMIZERS[optimizer](groups)
        options = {"update_every": 3} if topology == "rigl" else {}
        asked = {"sparsity": 0.8, "total_steps": STEPS, "steps_per_epoch": 6, **options, **settings}
        self.sparse = sparsity.attach(topology, self.model, self.base, **asked)
        self.optimizer = sparsity.SparseOptimizer(self.sparse)

    def backward(self, step: int, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 20, generator=generator), torch.randint(5, (16,), generator=generator)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), y)
        (loss * scale).backward()
        return loss

    def end(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.base.state_dict(),
            "sparse": self.sparse.state_dict(),
        }


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert one == other


def plain(**settings) -> dict[str, object]:
    """The end of a training whose own `step` is called."""
    run = Run(**settings)
    for step in range(STEPS):
        run.backward(step)
        run.sparse.step()
    return run.end()


SETTINGS = [
    {},
    {"optimizer": "adamw", "topology": "gmp"},
    {"optimizer": "ham", "topology": "acdc"},
    {"representation": "sign_in", "clip_grad_norm": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("how", ["backward", "closure"])
def test_its_step_is_that_of_the_training_bit_for_bit(settings: dict, how: str):
    run = Run(**settings)
    for step in range(STEPS):
        if how == "closure":
            loss = run.optimizer.step(lambda step=step: run.backward(step))
            assert loss is not None
        else:
            run.backward(step)
            assert run.optimizer.step() is None
    assert_equal(run.end(), plain(**settings))
    assert sum(run.sparse.finalize().values()) == run.sparse.expected_active()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("order", ["model first", "optimizer first"])
def test_its_state_holds_the_masks_and_loads_without_trust(settings: dict, order: str):
    run = Run(**settings)
    file = io.BytesIO()
    for step in range(STEPS):
        if step == 10:
            torch.save((run.model.state_dict(), run.optimizer.state_dict()), file)
        run.backward(step)
        run.optimizer.step()
    again = Run(**settings, seed=5)
    parts = [(again.model, 0), (again.optimizer, 1)]
    content = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    for part, index in parts if order == "model first" else parts[::-1]:
        part.load_state_dict(content[index])
    assert again.sparse.steps_done == 10
    settled = Run(**settings)  # the draws of a topology follow the seed of masks
    settled.model.load_state_dict(content[0])
    settled.optimizer.load_state_dict(content[1])
    assert settled.sparse.masks == again.sparse.masks
    for step in range(10, STEPS):
        settled.backward(step)
        settled.optimizer.step()
    assert_equal(settled.end(), run.end())


def test_groups_and_state_are_those_of_the_optimizer():
    run = Run()
    assert run.optimizer.param_groups is run.base.param_groups
    run.backward(0)
    run.optimizer.step()
    assert run.optimizer.state is run.base.state
    run.optimizer.load_state_dict(run.optimizer.state_dict())  # binds new ones
    assert run.optimizer.param_groups is run.base.param_groups
    assert run.optimizer.state is run.base.state
    run.optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in run.model.parameters())
    extra = nn.Parameter(torch.zeros(3))
    run.optimizer.add_param_group({"params": [extra]})
    assert run.base.param_groups[-1]["params"] == [extra]


def test_schedulers_take_it(recwarn: pytest.WarningsRecorder):
    rates = []
    ends = []
    for wrapped in (False, True):  # RigL's first update replaces the optimizer's first step
        run = Run()
        scheduler = CosineAnnealingLR(run.optimizer if wrapped else run.base, STEPS)
        for step in range(STEPS):
            run.backward(step)
            run.optimizer.step() if wrapped else run.sparse.step()
            scheduler.step()
            rates.append(run.base.param_groups[0]["lr"])
        ends.append(run.end())
    assert rates[:STEPS] == rates[STEPS:]
    assert rates[0] > rates[STEPS // 2] > rates[STEPS - 1]
    assert_equal(*ends)
    assert [str(each.message) for each in recwarn] == []


def test_hooks_of_a_step_are_called():
    run, called = Run(), []
    run.optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    run.optimizer.register_step_post_hook(lambda *_: called.append("after"))
    run.backward(0)
    run.optimizer.step()
    assert called == ["before", "after"]


@pytest.mark.parametrize("unscaled_before", [False, True])
def test_a_loss_scaler_steps_it_as_the_training_steps_with_a_scaler(unscaled_before: bool):
    def scaled(how: str) -> tuple[dict, float]:
        run = Run(clip_grad_norm=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=1000.0, growth_interval=7)  # no power of two
        for step in range(STEPS):
            run.backward(step, scaler.scale(torch.ones(())))
            if step == 9:  # masks are due
                run.model[0].weight.grad[0, 0] = torch.inf
            if how == "training":
                run.sparse.step(scaler=scaler)
                continue
            if unscaled_before:
                scaler.unscale_(run.optimizer)
            scaler.step(run.optimizer)
            scaler.update()
        return run.end(), scaler.get_scale()

    end, scale = scaled("optimizer")
    expected, expected_scale = scaled("training")
    assert end["sparse"]["skipped"] == 1
    assert end["sparse"]["step"] == STEPS
    assert scale == expected_scale
    assert_equal(end, expected)


def test_sam_gets_the_closure_and_is_refused_without():
    run = Run()
    run.sparse.optimizer = SAM(run.base, model=run.model)
    assert run.optimizer.needs_closure
    with pytest.raises(ValueError, match=r"SAM evaluates each batch more than once: call step\(closure\)"):
        run.optimizer.step()
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        return run.backward(0)

    run.optimizer.step(closure)  # an update of masks replaces the step of the weights
    run.optimizer.step(closure)
    assert len(calls) == 3
    assert not Run().optimizer.needs_closure


def test_metrics_are_passed_on():
    run = Run("dense", "pilot")
    asked = []
    optimizer = sparsity.SparseOptimizer(run.sparse, metrics=lambda: asked.append(1) or {"train_accuracy": 0.5})
    for step in range(STEPS):
        run.backward(step)
        optimizer.step()
    assert len(asked) == STEPS // 6


def test_modes_of_an_optimizer_are_passed_on():
    run, modes = Run(), []
    run.optimizer.train()  # SGD has none
    run.base.train, run.base.eval = lambda: modes.append("train"), lambda: modes.append("eval")
    run.optimizer.train()
    run.optimizer.eval()
    assert modes == ["train", "eval"]


def test_a_plain_optimizer_takes_its_state_and_it_takes_none_of_theirs():
    run = Run()
    run.backward(0)
    run.optimizer.step()
    state = run.optimizer.state_dict()
    groups = [{**group, "params": [p.detach().clone() for p in group["params"]]} for group in run.base.param_groups]
    other = torch.optim.SGD(groups, lr=0.5)
    other.load_state_dict(state)
    assert_equal(other.state_dict(), run.base.state_dict())
    before = copy.deepcopy(run.end())
    with pytest.raises(ValueError, match="holds no masks, so it was not saved by a SparseOptimizer"):
        run.optimizer.load_state_dict(run.base.state_dict())
    assert_equal(run.end(), before)
    with pytest.raises(TypeError, match=r"takes what attach\(\) returned, not a SGD"):
        sparsity.SparseOptimizer(run.base)


def test_a_copy_trains_its_own_network():
    run = Run()
    copied = copy.deepcopy(run.optimizer)
    before = copy.deepcopy(run.end())
    assert copied.sparse is not run.sparse
    copied.sparse.zero_pruned()
    for group in copied.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    copied.step()
    assert_equal(run.end(), before)


# ---- a framework's order: the network, then attach, then the optimizer with the masks -------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_network_that_was_loaded_before_attach_comes_back_with_its_masks(settings: dict):
    run = Run(**settings)
    for step in range(STEPS):
        if step == 10:
            weights, state = copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()))
        run.backward(step)
        run.optimizer.step()
    again = between(weights, **settings)
    again.optimizer.load_state_dict(copy.deepcopy(again.optimizer.state_dict()))  # as accelerate does when it wraps one
    again.optimizer.load_state_dict(state)
    assert_equal(again.model.state_dict(), weights)
    for step in range(10, STEPS):
        again.backward(step)
        again.optimizer.step()
    assert_equal(again.end(), run.end())


def between(weights: dict, **settings) -> Run:
    """A run whose network is loaded after `represent` and before `attach`."""
    attach = sparsity.attach

    def loads_first(topology: str, model: nn.Module, *arguments, **more) -> sparsity.SparseTraining:
        model.load_state_dict(weights)
        return attach(topology, model, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsity, "attach", loads_first)
        return Run(**settings)


def trained(steps: int = 10) -> Run:
    run = Run()
    for step in range(steps):
        run.backward(step)
        run.optimizer.step()
    return run


def test_weights_that_were_written_after_attach_are_left_alone():
    """Whoever loads in the right order on top of other sparse weights gets what was loaded, grown zeros included."""
    run, other = trained(), trained(4)
    again = between(other.model.state_dict())
    again.model.load_state_dict(run.model.state_dict())
    again.optimizer.load_state_dict(run.optimizer.state_dict())
    assert_equal(again.model.state_dict(), run.model.state_dict())


@pytest.mark.parametrize("representation", ["plain", "sign_in"])
def test_parts_of_one_tensor_come_back_each(representation: str):
    """The three projections of attention are rows of one tensor, which is written once for each."""

    def represented() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.MultiheadAttention(16, 2), nn.Linear(16, 5))
        groups = sparsity.represent(model, representation).param_groups()
        return model, torch.optim.SGD(groups, lr=0.1)

    def attached(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> sparsity.SparseOptimizer:
        settings = {"sparsity": 0.8, "total_steps": 9, "steps_per_epoch": 3, "seed": seed}
        return sparsity.SparseOptimizer(sparsity.attach("random", model, optimizer, **settings))

    model, optimizer = represented()
    state = attached(model, optimizer, 0).state_dict()
    again, optimizer = represented()
    again.load_state_dict(model.state_dict())
    other = attached(again, optimizer, 1)
    assert not torch.equal(again[0].in_proj_weight, model[0].in_proj_weight)
    other.load_state_dict(state)
    assert_equal(again.state_dict(), model.state_dict())


def test_after_a_step_nothing_is_put_back():
    run = trained()
    again = between(run.model.state_dict(), seed=4)
    again.backward(0)
    again.optimizer.step()
    weights = copy.deepcopy(again.model.state_dict())
    again.optimizer.load_state_dict(run.optimizer.state_dict())
    assert_equal(again.model.state_dict(), weights)


def test_an_optimizer_that_was_loaded_before_attach_is_refused(caplog: pytest.LogCaptureFixture):
    run = trained()
    model = copy.deepcopy(run.model)
    optimizer = OPTIMIZERS["sgd"](list(model.parameters()))
    optimizer.load_state_dict({**run.base.state_dict(), "param_groups": optimizer.state_dict()["param_groups"]})
    sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.8, total_steps=STEPS, seed=4, update_every=3)
    assert "comes back with its masks" in caplog.text
    with pytest.raises(sparsity.TrainingError, match=r"the optimizer was loaded before attach\(\)"):
        sparse.load_state_dict(run.sparse.state_dict())
