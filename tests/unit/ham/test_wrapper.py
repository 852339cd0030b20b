"""Wrapping an optimizer: checkpoints, copies, hooks, schedulers and gradient scalers see one optimizer."""

import copy
import pickle

import pytest
import torch
from ham_helpers import make_model, make_optimizer, saved_and_loaded, train, weights
from torch.optim import SGD, Optimizer, lr_scheduler

from ham import HAM, OptimizerWrapper


def test_groups_and_state_are_the_bases_own_in_both_directions():
    base = SGD(make_model().parameters(), lr=0.1, momentum=0.9)
    groups, state = base.param_groups, base.state
    optimizer = HAM(base)
    assert base.param_groups is groups
    assert optimizer.param_groups is groups
    assert optimizer.state is base.state is state
    optimizer.param_groups[0]["lr"] = 0.7
    assert base.param_groups[0]["lr"] == 0.7
    optimizer.param_groups, optimizer.state = [groups[0]], {"x": 1}
    assert base.param_groups == [groups[0]]
    assert base.state == {"x": 1}


def test_a_warm_base_keeps_its_momentum():
    model = make_model()
    base = SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, base, 3)
    buffers = [base.state[p]["momentum_buffer"] for p in model.parameters()]
    optimizer = HAM(base)
    for p, buffer in zip(model.parameters(), buffers, strict=True):
        assert optimizer.state[p]["momentum_buffer"] is buffer


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("through_torch", [False, True])
def test_a_resumed_run_is_bit_equal(base, through_torch):
    whole = make_model()
    whole_optimizer = make_optimizer(whole, base)
    train(whole, whole_optimizer, 3)
    whole_optimizer.param_groups[0].update(lr=0.05, alpha=1.5, beta=0.2)
    state, optimizer_state = copy.deepcopy(whole.state_dict()), saved_and_loaded(whole_optimizer.state_dict())
    train(whole, whole_optimizer, 4, start=3)

    resumed = make_model(seed=1)
    resumed.load_state_dict(state)
    optimizer = make_optimizer(resumed, base)
    if through_torch:  # what a library does that calls the base class explicitly
        Optimizer.load_state_dict(optimizer, optimizer_state)
    else:
        optimizer.load_state_dict(optimizer_state)
    group = optimizer.base.param_groups[0]
    assert (group["lr"], group["alpha"], group["beta"]) == (0.05, 1.5, 0.2)
    assert optimizer.param_groups is optimizer.base.param_groups
    assert len(optimizer.base.state) == 4
    train(resumed, optimizer, 4, start=3)
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("through_torch", [False, True])
def test_a_plain_checkpoint_keeps_the_wrappers_own_options(through_torch):
    model = make_model()
    groups = [{"params": model[0].parameters(), "ham": False}, {"params": model[2].parameters(), "alpha": 9.0}]
    plain = SGD([{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.3, momentum=0.8)
    train(model, plain, 2)
    optimizer = HAM(SGD(groups, lr=0.1), alpha=3.0, beta=0.01)
    if through_torch:
        Optimizer.load_state_dict(optimizer, plain.state_dict())
    else:
        optimizer.load_state_dict(plain.state_dict())
    first, second = optimizer.param_groups
    assert (first["lr"], first["momentum"], first["alpha"], first["ham"]) == (0.3, 0.8, 3.0, False)
    assert (second["lr"], second["momentum"], second["alpha"], second["ham"]) == (0.3, 0.8, 9.0, True)
    for p in model.parameters():
        assert torch.equal(optimizer.base.state[p]["momentum_buffer"], plain.state[p]["momentum_buffer"])


def test_a_checkpoint_loads_into_the_plain_base():
    model = make_model()
    optimizer = make_optimizer(model)
    train(model, optimizer, 3)
    twin = copy.deepcopy(model)
    plain = SGD(twin.parameters(), lr=5.0)
    plain.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    assert plain.param_groups[0]["momentum"] == 0.9
    train(twin, plain, 3, start=3)
    train(model, optimizer.base, 3, start=3)
    assert torch.equal(weights(twin), weights(model))


class OwnCheckpoint(SGD):
    """A base that keeps something beside groups and state, as some packages do."""

    extra = 0

    def state_dict(self):
        return {**super().state_dict(), "extra": self.extra}

    def load_state_dict(self, state_dict):
        self.extra = state_dict["extra"]
        super().load_state_dict(state_dict)


def test_a_base_with_checkpoints_of_its_own_saves_and_loads_them():
    base, other = (OwnCheckpoint(make_model().parameters(), lr=lr) for lr in (0.1, 0.2))
    base.extra = 5
    HAM(other).load_state_dict(HAM(base).state_dict())
    assert other.extra == 5
    assert other.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_copies_continue_bit_equal(duplicate, base):
    model = make_model()
    optimizer = make_optimizer(model, base, sign="before", max_weight_norm=1.5, scalars=True, form="foreach")
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 10)
    train(model, optimizer, 3, scheduler=scheduler)
    other, other_optimizer, other_scheduler = duplicate((model, optimizer, scheduler))
    assert other_scheduler.optimizer is other_optimizer
    assert (other_optimizer.sign, other_optimizer.max_weight_norm) == ("before", 1.5)
    assert (other_optimizer.scalars, other_optimizer.form) == (True, "foreach")
    assert other_optimizer.base is not optimizer.base
    assert other_optimizer.param_groups[0]["params"][0] is next(other.parameters())
    train(other, other_optimizer, 3, start=3, scheduler=other_scheduler)
    assert not torch.equal(weights(other), weights(model))
    train(model, optimizer, 3, start=3, scheduler=scheduler)
    assert torch.equal(weights(other), weights(model))


def test_hooks_of_wrapper_and_base_are_called_once():
    model = make_model()
    optimizer = make_optimizer(model)
    calls = []
    for name, target in (("own", optimizer), ("base", optimizer.base)):
        target.register_step_pre_hook(lambda *_, n=name: calls.append(f"{n} pre"))
        target.register_step_post_hook(lambda *_, n=name: calls.append(f"{n} post"))
        target.register_state_dict_pre_hook(lambda *_, n=name: calls.append(f"{n} saving"))
        target.register_state_dict_post_hook(lambda *_, n=name: calls.append(f"{n} saved"))
        target.register_load_state_dict_pre_hook(lambda *_, n=name: calls.append(f"{n} loading"))
        target.register_load_state_dict_post_hook(lambda *_, n=name: calls.append(f"{n} loaded"))
    train(model, optimizer, 1)
    assert calls == ["own pre", "base pre", "base post", "own post"]
    calls.clear()
    state = optimizer.state_dict()
    assert calls == ["own saving", "base saving", "base saved", "own saved"]
    calls.clear()
    optimizer.load_state_dict(state)
    assert calls == ["own loading", "base loading", "base loaded", "own loaded"]


def test_checkpoint_hooks_can_replace_the_checkpoint():
    optimizer = make_optimizer(make_model())
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 1})
    state = optimizer.state_dict()
    assert state["note"] == 1

    def faster(_, state):
        state["param_groups"] = [{**group, "lr": 4.0} for group in state["param_groups"]]

    optimizer.register_load_state_dict_pre_hook(faster)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 4.0
    assert state["param_groups"][0]["lr"] == 0.1


class WithModes(SGD):
    """A base that has to be told which mode it is in, as schedule-free ones have."""

    mode = ""

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


def test_modes_are_passed_on_to_a_base_that_has_them():
    """Accelerate and the Trainer of transformers call them where an optimizer has them."""
    base = WithModes(make_model().parameters(), lr=0.1)
    optimizer = HAM(OptimizerWrapper(base))
    for mode in ("train", "eval"):
        getattr(optimizer, mode)()
        assert base.mode == mode
    plain = make_optimizer(make_model())
    plain.train()
    plain.eval()


def test_a_bare_wrapper_is_its_base():
    model, twin = make_model(), make_model()
    wrapper, plain = (OptimizerWrapper(SGD(model.parameters(), lr=0.1)), SGD(twin.parameters(), lr=0.1))
    train(model, wrapper, 2)
    train(twin, plain, 2)
    assert torch.equal(weights(model), weights(twin))
    assert wrapper.step(lambda: 3.5) == 3.5
    assert not hasattr(wrapper, "no_such_thing")


@pytest.mark.parametrize(
    ("base", "said"),
    [(SGD, "the class SGD"), ([torch.ones(3)], "a list"), (torch.ones(3), "a Tensor"), (1, "1"), ("sgd", "'sgd'")],
)
def test_what_is_no_optimizer_is_refused(base, said):
    """In one line, without the numbers of tensors, and with the way out."""
    way_out = r"build the base first, as torch.optim.SGD\(model.parameters\(\), lr=0.1\)$"
    with pytest.raises(TypeError, match=f"^base: HAM wraps a torch.optim.Optimizer instance, not {said}; {way_out}"):
        HAM(base)


def test_repr_names_wrapper_base_and_options():
    text = repr(make_optimizer(make_model(), sign="before"))
    assert text.startswith("HAM(sign='before', max_weight_norm=1000.0, scalars=False, form='auto') around\n    SGD (")
    assert "alpha: 3.0" in text
