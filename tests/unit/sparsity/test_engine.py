"""The engine: the order of a step, masks and moments, scaling, refusals, checkpoints, and an oracle."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import timm.optim
import torch
from torch import Tensor, nn

import sparsity
from ham import HAM
from sparsity import MaskSet

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-2),
    "AdamW amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, weight_decay=1e-1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "HAM(SGD)": lambda p: HAM(torch.optim.SGD(p, lr=0.1, momentum=0.9), alpha=5.0, beta=1e-2),
    "HAM(Nesterov)": lambda p: HAM(torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), alpha=5.0, beta=1e-2),
    "HAM(AdamW)": lambda p: HAM(torch.optim.AdamW(p, lr=0.01), alpha=5.0, beta=1e-2),
}


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ).double()


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(8, 1, 8, 8, generator=generator).double(), torch.randint(5, (8,), generator=generator))
        for _ in range(steps)
    ]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def single(*weights: float) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
    return layer


# ---- the oracle -----------------------------------------------------------------------------------------------------


class ActiveOnly(nn.Module):
    """The same network, in which pruned entries do not exist: its weights are scattered from the active ones."""

    def __init__(self, model: nn.Module, masks: MaskSet):
        super().__init__()
        self.frame = (copy.deepcopy(model),)
        self.masks = dict(masks)
        parameters = dict(model.named_parameters())
        # in one row, not a vector: HAM acts on matrices
        self.active = nn.ParameterList(
            nn.Parameter(parameters[name].detach()[mask][None]) for name, mask in masks.items()
        )
        self.others = [name for name in parameters if name not in masks]
        self.rest = nn.ParameterList(nn.Parameter(parameters[name].detach().clone()) for name in self.others)

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for (name, mask), active in zip(self.masks.items(), self.active, strict=True):
            found[name] = torch.zeros(mask.shape, dtype=active.dtype).masked_scatter(mask, active)
        return found | dict(zip(self.others, self.rest, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.frame[0], self.weights(), (x,))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_active_weights_follow_the_network_that_has_only_them(name: str):
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.7, total_steps=20)
    oracle = ActiveOnly(model, sparse.masks)
    oracle_optimizer = OPTIMIZERS[name]([*oracle.active, *oracle.rest])
    start = model[5].weight.detach().clone()
    for batch in batches(20):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        sparse.step()
        oracle_optimizer.zero_grad()
        loss_of(oracle, batch).backward()
        oracle_optimizer.step()
        for key, expected in oracle.weights().items():
            assert torch.equal(model.get_parameter(key), expected), key
    assert not torch.equal(model[5].weight, start)


# ---- the order of a step --------------------------------------------------------------------------------------------


class Recorder(sparsity.Topology):
    """Keeps half of every layer and writes down what it is shown."""

    seen: list[Any]
    apply = True

    def initial_masks(self, ctx: sparsity.Context) -> MaskSet:
        self.seen = []
        return MaskSet({name: (torch.arange(w[0] * w[1]) % 2 == 0).view(w) for name, w in ctx.shapes.items()})

    def after_backward(self, ctx: sparsity.Context) -> bool:
        gradients = {name: ctx.grad(name).clone() for name in ctx.shapes}
        self.seen.append(("after_backward", ctx.steps_done, ctx.epoch, gradients))
        return self.apply

    def after_step(self, ctx: sparsity.Context) -> None:
        self.seen.append(("after_step", ctx.steps_done, ctx.epoch))


@pytest.fixture
def recorder(open_registry) -> type[Recorder]:
    return sparsity.register_topology("recorder")(type("Fresh", (Recorder,), {}))


def test_the_order_of_hooks(recorder):
    layer = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    sparse = sparsity.attach("recorder", layer, optimizer, sparsity=0.5, total_steps=4, steps_per_epoch=2)
    seen = sparse.topology.seen
    optimizer.register_step_pre_hook(lambda *_: seen.append(("optimizer", layer.weight.grad.clone())))
    sparse.representation.after_epoch = lambda ctx, _: seen.append(("after_epoch", ctx.steps_done, ctx.epoch))
    for _ in range(4):
        layer.weight.grad = torch.ones(2, 4)
        sparse.step()
    one_step = ["after_backward", "optimizer", "after_step"]
    assert [entry[0] for entry in seen] == 2 * [*one_step, *one_step, "after_epoch"]
    # the step under way is counted only afterwards; so is its epoch
    assert [entry[1:3] for entry in seen if entry[0] == "after_backward"] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [entry[1:3] for entry in seen if entry[0] == "after_step"] == [(1, 0), (2, 1), (3, 1), (4, 2)]
    assert [entry[1:3] for entry in seen if entry[0] == "after_epoch"] == [(2, 1), (4, 2)]
    # the topology sees the dense gradient, the optimizer the masked one
    assert seen[0][3]["weight"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert seen[1][1].tolist() == [[1, 0, 1, 0], [1, 0, 1, 0]]


def test_a_topology_may_leave_out_the_weight_step(recorder):
    recorder.apply = False
    layer = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    sparse = sparsity.attach("recorder", layer, optimizer, sparsity=0.5, total_steps=4)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.ones(2, 4)
    sparse.step()
    assert torch.equal(layer.weight, before)
    assert sparse.steps_done == 1


def test_clipping_acts_on_masked_gradients(recorder):
    #   mask 1 0 1 0, gradient 3 100 4 100: the norm of what is left is 5, so with a bound of 1 it is .6 and .8
    layer = single(1, 1, 1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    sparse = sparsity.attach("recorder", layer, optimizer, sparsity=0.5, total_steps=4, clip_grad_norm=1.0)
    layer.weight.grad = torch.tensor([[3.0, 100, 4, 100]])
    sparse.step()
    assert layer.weight[0].tolist() == pytest.approx([0.4, 0, 0.2, 0], abs=1e-6)


def test_growth_sees_gradients_before_clipping(recorder):
    layer = single(1, 1, 1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    sparse = sparsity.attach("recorder", layer, optimizer, sparsity=0.5, total_steps=4, clip_grad_norm=1.0)
    layer.weight.grad = torch.tensor([[3.0, 100, 4, 100]])
    sparse.step()
    assert sparse.topology.seen[0][3]["weight"].tolist() == [[3, 100, 4, 100]]


def test_a_layer_without_gradient_shows_zeros(recorder):
    model = nn.ModuleDict({"used": nn.Linear(2, 2, bias=False), "idle": nn.Linear(2, 2, bias=False)})
    sparse = sparsity.attach(
        "recorder", model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.5, total_steps=2
    )
    model["used"].weight.grad = torch.ones(2, 2)
    sparse.step()
    gradients = sparse.topology.seen[0][3]
    assert gradients["idle.weight"].tolist() == [[0, 0], [0, 0]]
    assert not model["idle"].weight[~sparse.masks["idle.weight"]].any()


def test_the_closure_is_called_once_with_gradients_on():
    runs = []
    for with_closure in (False, True):
        torch.manual_seed(0)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.5, total_steps=6, update_every=2)
        calls = []
        for batch in batches(6):

            def closure(
                batch: tuple[Tensor, Tensor] = batch, model: nn.Module = model, calls: list[float] = calls
            ) -> Tensor:
                model.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                calls.append(loss.item())
                return loss

            if with_closure:
                with torch.no_grad():
                    loss = sparse.step(closure)
                assert loss is not None
                assert loss.item() == calls[-1]
            else:
                closure()
                assert sparse.step() is None
        assert len(calls) == 6
        runs.append(model.state_dict())
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())


# ---- masks and moments ----------------------------------------------------------------------------------------------

# what a fresh optimizer holds: everything zero but for these
INITIAL = {("Adagrad", "sum"): 0.1, ("Rprop", "step_size"): 0.01}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_restart_where_the_mask_changes_and_nowhere_else(name: str):
    layer = nn.Linear(6, 2).double()
    optimizer = OPTIMIZERS[name](layer.parameters())
    sparse = sparsity.attach("dense", layer, optimizer, sparsity=0.5, total_steps=9)
    first = torch.tensor([[1, 1, 1, 0, 0, 0]] * 2, dtype=torch.bool)
    second = torch.tensor([[1, 0, 1, 1, 0, 0]] * 2, dtype=torch.bool)
    sparse.set_masks(MaskSet({"weight": first}), "initial")
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(4, 6).double()).square().sum().backward()
        sparse.step()
    base = getattr(optimizer, "base", optimizer)
    state = {k: v for k, v in base.state[layer.weight].items() if v.shape == layer.weight.shape}
    bias = {k: v.clone() for k, v in base.state[layer.bias].items()}
    before = {key: value.clone() for key, value in state.items()}
    assert state
    sparse.set_masks(MaskSet({"weight": second}), "update")
    # 0 and 2 stay, 1 drops, 3 is grown: both restart; 4 and 5 were and are pruned
    for key, value in state.items():
        initial = INITIAL.get((name, key), 0.0)
        assert set(value[:, [1, 3]].flatten().tolist()) == {initial}
        assert torch.equal(value[:, [0, 2, 4, 5]], before[key][:, [0, 2, 4, 5]])
        assert (value[:, [0, 2]] != initial).any()
    assert all(torch.equal(value, bias[key]) for key, value in base.state[layer.bias].items())
    assert layer.weight[:, 3].tolist() == [0, 0]
    assert sparse.events[-1] == {
        "event": "update",
        "step": 3,
        "epoch": 0.3333,
        "changed": 4,
        "dropped": 2,
        "grown": 2,
        "density": 0.5,
    }
    sparse.set_masks(MaskSet({"weight": second}), "again", reset_all_moments=True)
    for key, value in state.items():
        assert set(value.flatten().tolist()) == {INITIAL.get((name, key), 0.0)}


@pytest.mark.parametrize(("name", "key"), [("madgrad", "x0"), ("lookahead_sgd", "lookahead_slow_buff")])
def test_state_that_is_a_copy_of_the_weights_becomes_one_again(name: str, key: str):
    layer = nn.Linear(6, 2, bias=False).double()
    optimizer = HAM(timm.optim.create_optimizer_v2(layer, name, lr=0.05), alpha=2.0)
    sparse = sparsity.attach("dense", layer, optimizer, sparsity=0.5, total_steps=20)
    first = torch.tensor([[1, 1, 1, 0, 0, 0]] * 2, dtype=torch.bool)
    second = torch.tensor([[1, 0, 1, 1, 0, 0]] * 2, dtype=torch.bool)
    sparse.set_masks(MaskSet({"weight": first}), "initial")
    for _ in range(8):  # Lookahead takes its copy at the sixth
        optimizer.zero_grad()
        layer(torch.randn(4, 6).double()).square().sum().backward()
        sparse.step()
    base = getattr(optimizer.base, "_base_optimizer", optimizer.base)
    state = {k: v for k, v in base.state[layer.weight].items() if isinstance(v, Tensor) and v.shape == (2, 6)}
    before = state[key].clone()
    assert len(state) > 1
    assert not torch.equal(before, layer.weight)
    assert before[:, 1].all()
    sparse.set_masks(MaskSet({"weight": second}), "update")
    for value in state.values():
        assert not value[:, [1, 3]].any()
    assert torch.equal(state[key][:, [0, 2]], before[:, [0, 2]])
    sparse.set_masks(MaskSet({"weight": second}), "again", reset_all_moments=True)
    assert torch.equal(state.pop(key), layer.weight)
    assert not any(value.any() for value in state.values())


@pytest.mark.parametrize("name", ["SGD", "AdamW amsgrad"])
def test_moments_of_both_factors_restart(name: str):
    layer = nn.Linear(6, 2, bias=False).double()
    rep = sparsity.represent(layer, "product", beta=0.25)
    optimizer = OPTIMIZERS[name](rep.param_groups())
    sparse = sparsity.attach("dense", layer, optimizer, sparsity=0.5, total_steps=9)
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.randn(4, 6).double()).square().sum().backward()
        sparse.step()
    m, w = rep.slots["weight"].factors
    columns = torch.tensor([[1, 1, 0, 0, 1, 1]] * 2, dtype=torch.bool)
    before = [(value, value.clone()) for factor in (m, w) for value in optimizer.state[factor].values() if value.ndim]
    sparse.set_masks(MaskSet({"weight": columns}), "update")
    assert len(before) == (2 if name == "SGD" else 6)
    for value, old in before:
        assert not value[~columns].any()
        assert old[~columns].all()
        assert torch.equal(value[columns], old[columns])
    assert (set(m[~columns].tolist()), set(w[~columns].tolist())) == ({0.5}, {0.0})


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("topology", ["random", "rigl"])
def test_pruned_weights_stay_zero_under_an_optimizer_that_is_not_entrywise(topology: str):
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False))
    optimizer = torch.optim.Muon(model.parameters(), lr=0.05)
    options = {"update_every": 3} if topology == "rigl" else {}
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.6, total_steps=10, **options)

    def nonzero() -> int:
        return sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in sparse.masks.items())

    written: list[int] = []
    optimizer.register_step_post_hook(lambda *_: written.append(nonzero()))
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 8)), torch.randint(4, (8,))).backward()
        sparse.step()
        assert nonzero() == 0
    assert max(written) > 0  # the optimizer does write there, and the engine puts it back


def test_random_streams_are_pure_functions():
    def draw(seed: int, purpose: str, steps: int = 0) -> list[float]:
        layer = single(1, 2)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        sparse = sparsity.attach("dense", layer, optimizer, sparsity=0.0, total_steps=9, seed=seed)
        for _ in range(steps):
            sparse.step()
        return torch.rand(3, generator=sparse.generator(purpose)).tolist()

    assert draw(0, "growth") == draw(0, "growth")
    streams = [draw(0, "growth"), draw(1, "growth"), draw(0, "noise"), draw(0, "growth", steps=1)]
    assert len({tuple(stream) for stream in streams}) == 4


# ---- loss scaling ---------------------------------------------------------------------------------------------------


def scaled_run(
    topology: str, infinite_at: int | None, scaled: bool = True, total: int = 20, **options: Any
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.5, total_steps=total, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if scaled else None
    trace: list[dict[str, Any]] = []
    for step, batch in enumerate(batches(12)):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if step == infinite_at:
            model[5].weight.grad[0, 0] = torch.inf
        sparse.step(scaler=scaler)
        momentum = {
            n: optimizer.state[p]["momentum_buffer"].clone() for n, p in model.named_parameters() if optimizer.state
        }
        parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
        trace.append({"parameters": parameters, "momentum": momentum, "masks": sparse.masks.digest()})
    scale = None if scaler is None else scaler.get_scale()
    return {"trace": trace, "events": sparse.events, "scale": scale}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_scaling_by_a_power_of_two_changes_nothing():
    with_scaler = scaled_run("rigl", None, update_every=4)
    without = scaled_run("rigl", None, scaled=False, update_every=4)
    for one, other in zip(with_scaler["trace"], without["trace"], strict=True):
        assert same(one["parameters"], other["parameters"])
        assert one["masks"] == other["masks"]
    assert with_scaler["events"] == without["events"]


def test_an_infinite_gradient_postpones_step_and_mask_update():
    run = scaled_run("rigl", infinite_at=4, update_every=4)
    before, at, after = run["trace"][3:6]
    assert same(before["parameters"], at["parameters"])
    assert same(before["momentum"], at["momentum"])
    assert before["masks"] == at["masks"]
    # the next step is the update instead, again without a weight step
    assert at["masks"] != after["masks"]
    assert [event["step"] for event in run["events"]] == [0, 0, 5, 8]
    assert run["scale"] == 2.0**9


def test_an_infinite_gradient_postpones_a_compression():
    # 10 % of 60 steps: due once step 6 is done
    on_time = scaled_run("acdc", infinite_at=None, total=60)
    assert [(event["event"], event["step"]) for event in on_time["events"]][:2] == [("compress", 6), ("decompress", 9)]
    run = scaled_run("acdc", infinite_at=5, total=60)
    assert [(event["event"], event["step"]) for event in run["events"]][:2] == [("compress", 7), ("decompress", 9)]
    assert same(run["trace"][4]["parameters"], run["trace"][5]["parameters"])
    assert run["trace"][4]["masks"] == run["trace"][5]["masks"]


def test_the_topology_sees_unscaled_gradients(recorder):
    layer = single(1, 1, 1, 1)
    sparse = sparsity.attach(
        "recorder", layer, torch.optim.SGD(layer.parameters(), lr=1.0), sparsity=0.5, total_steps=4, clip_grad_norm=1.0
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    scaler.scale((layer.weight * torch.tensor([[3.0, 100, 4, 100]])).sum()).backward()
    sparse.step(scaler=scaler)
    assert sparse.topology.seen[0][3]["weight"].tolist() == [[3, 100, 4, 100]]
    # and clipping, too, acts on what is unscaled and masked
    assert layer.weight[0].tolist() == pytest.approx([0.4, 0, 0.2, 0], abs=1e-6)


# ---- refusals -------------------------------------------------------------------------------------------------------


def attach(topology: str = "random", representation: str = "plain", **given: Any) -> sparsity.SparseTraining:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    rep = sparsity.represent(model, representation)
    settings = {"sparsity": 0.5, "total_steps": 10, "steps_per_epoch": 5, **given}
    return sparsity.attach(topology, model, torch.optim.SGD(rep.param_groups(), lr=0.1), **settings)


@pytest.mark.parametrize("representation", ["str", "powerprop"])
@pytest.mark.parametrize("topology", ["rigl", "acdc"])
def test_refuses_regrowth_where_zeros_have_no_gradient(topology: str, representation: str):
    message = f"topology '{topology}' regrows weights at zero, where .*'{representation}' has no gradient"
    with pytest.raises(ValueError, match=message):
        attach(topology, representation)
    assert attach("random", representation).masks.density < 1


def test_refuses_lbfgs_bare_and_wrapped():
    for wrap in (lambda base: base, lambda base: HAM(base)):
        model = nn.Linear(2, 2)
        optimizer = wrap(torch.optim.LBFGS(model.parameters()))
        with pytest.raises(ValueError, match="L-BFGS"):
            sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=1)


def test_refuses_an_optimizer_that_lacks_parameters():
    model = net()
    with pytest.raises(ValueError, match=r"does not own 0\.weight, 0\.bias, 1\.weight …"):
        sparsity.attach("random", model, torch.optim.SGD(model[5].parameters(), lr=0.1), sparsity=0.5, total_steps=1)
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsity.represent(model, "product")
    with pytest.raises(ValueError, match=r"does not own .*original.*: build it after represent"):
        sparsity.attach("random", model, early, sparsity=0.5, total_steps=1)


def test_frozen_parameters_need_no_optimizer():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    sparse = sparsity.attach(
        "random", model, torch.optim.SGD(model[1].parameters(), lr=0.1), sparsity=0.5, total_steps=1
    )
    model(torch.randn(2, 3)).sum().backward()
    sparse.step()
    assert list(sparse.masks) == ["1.weight"]
    assert model[0].weight.all()  # left alone, and outside the count
    assert sparse.finalize() == {"1.weight": 3}


def test_refuses_tied_weights_also_without_represent():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="tied"):
        sparsity.attach("random", model, torch.optim.SGD(model.parameters(), lr=0.1), sparsity=0.5, total_steps=1)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_refuses_a_sparsity_out_of_range(share: float):
    with pytest.raises(ValueError, match=r"in \[0, 1\): got"):
        attach(sparsity=share)


@pytest.mark.parametrize("given", [{"total_steps": 0}, {"steps_per_epoch": 0}])
def test_refuses_a_run_without_steps(given: dict[str, int]):
    with pytest.raises(ValueError, match="must be a whole number, at least 1"):
        attach(**given)


def test_refuses_unknown_topologies_and_options():
    with pytest.raises(ValueError, match="'rig' is not a topology; allowed: .*; did you mean 'rigl'"):
        attach("rig")
    with pytest.raises(
        sparsity.OptionError, match="update_evry: unknown key; allowed: .*; did you mean 'update_every'"
    ):
        attach("rigl", update_evry=3)


def test_refuses_the_state_of_another_network():
    state = attach().state_dict()
    other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    sparse = sparsity.attach("random", other, torch.optim.SGD(other.parameters(), lr=0.1), sparsity=0.5, total_steps=10)
    with pytest.raises(ValueError, match="belong to another network"):
        sparse.load_state_dict(state)


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["plain", "product", "sign_in"])
@pytest.mark.parametrize("topology", ["random", "rigl", "acdc"])
def test_finalize_leaves_plain_weights_with_zeros_and_the_same_network(topology: str, representation: str):
    model = net()
    rep = sparsity.represent(model, representation)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.1)
    options = {"update_every": 3} if topology == "rigl" else {}
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.75, total_steps=8, steps_per_epoch=4, **options)
    for batch in batches(8):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        sparse.step()
    model.eval()
    x = batches(1)[0][0]
    before, masks = model(x), sparse.masks
    counts = sparse.finalize()
    assert torch.equal(model(x), before)
    assert sorted(model.state_dict()) == sorted(net().state_dict())
    for name, mask in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
        assert counts[name] == int(mask.sum())
    # ERK: raw (4+1+3+3)/36 and 41/180, scale 54 / (11 + 41): densities .317 and .2365, so 36 - 24 = 12 and
    # 180 - 137 = 43; AC/DC: ceil(216 * .25) - 1
    assert sum(counts.values()) == (53 if topology == "acdc" else 55)


def test_finalize_refuses_a_wrong_count(open_registry):
    @sparsity.register_topology("forgetful")
    class Forgetful(sparsity.Topology):
        """Says what it does not do."""

        def expected_active(self, shapes: Any, sparsity: float) -> int:
            return 3

    sparse = attach("forgetful")
    with pytest.raises(RuntimeError, match="forgetful kept 24 weights where its rule says 3"):
        sparse.finalize()


def test_finalize_refuses_acdc_stopped_in_a_dense_phase():
    sparse = attach("acdc")
    with pytest.raises(RuntimeError, match="acdc kept 24 weights where its rule says 11"):
        sparse.finalize()


# ---- checkpoints ----------------------------------------------------------------------------------------------------

STEPS = 40
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "acdc": ("acdc", "plain", {}),
    "rigl": ("rigl", "plain", {"update_every": 6}),
    "sign_in": ("rigl", "sign_in", {"update_every": 7}),
    "str": ("random", "str", {}),
}


def start(method: str) -> tuple[nn.Module, torch.optim.Optimizer, sparsity.SparseTraining]:
    topology, representation, options = METHODS[method]
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    rep = sparsity.represent(model, representation, **({"initial_threshold": -4.0} if representation == "str" else {}))
    optimizer = torch.optim.SGD(rep.param_groups(1e-2), lr=0.1, momentum=0.9)
    sparse = sparsity.attach(
        topology, model, optimizer, sparsity=0.7, total_steps=STEPS, steps_per_epoch=5, seed=2, **options
    )
    return model, optimizer, sparse


def advance(run: tuple[nn.Module, torch.optim.Optimizer, sparsity.SparseTraining], step: int) -> None:
    model, optimizer, sparse = run
    generator = torch.Generator().manual_seed(step)
    optimizer.zero_grad()
    x, y = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
    nn.functional.cross_entropy(model(x), y).backward()
    sparse.step()


def save(run: tuple[Any, ...]) -> bytes:
    buffer = io.BytesIO()
    torch.save([part.state_dict() for part in run], buffer)
    return buffer.getvalue()


def everything(run: tuple[nn.Module, torch.optim.Optimizer, sparsity.SparseTraining]) -> list[Any]:
    """All that could differ, with tensors as nested lists so that == is bitwise."""
    model, optimizer, sparse = run
    parameters = {name: value.tolist() for name, value in model.state_dict().items()}
    moments = [{k: v.tolist() for k, v in state.items() if isinstance(v, Tensor)} for state in optimizer.state.values()]
    macs = dict.fromkeys(sparse.shapes, 1)
    return [
        parameters,
        moments,
        sparse.masks.digest(),
        sparse.event_counts,
        sparse.cost.fraction(macs),
        sparse.steps_done,
    ]


@pytest.mark.parametrize("method", METHODS)
def test_cut_at_any_step_a_run_ends_the_same(method: str):
    whole = start(method)
    cuts = []
    for step in range(STEPS):
        cuts.append(save(whole))
        advance(whole, step)
    expected = everything(whole)
    kinds = {
        "acdc": {"compress", "decompress"},
        "rigl": {"initial", "update"},
        "sign_in": {"initial", "update", "reset"},
    }
    assert set(whole[2].event_counts) >= kinds.get(method, {"initial", "threshold"})
    for cut, saved in enumerate(cuts):
        torch.manual_seed(100 + cut)  # another initialisation, which loading must undo
        resumed = start(method)
        for part, state in zip(resumed, torch.load(io.BytesIO(saved), weights_only=True), strict=True):
            part.load_state_dict(state)
        for step in range(cut, STEPS):
            advance(resumed, step)
        assert everything(resumed) == expected, f"cut at {cut}"


def test_events_are_not_repeated_after_a_resume():
    run = start("rigl")
    for step in range(10):
        advance(run, step)
    resumed = start("rigl")
    for part, other in zip(resumed, run, strict=True):
        part.load_state_dict(other.state_dict())
    assert resumed[2].events == []
    assert resumed[2].event_counts == {"initial": 1, "update": 2}
    for step in range(10, STEPS):
        advance(resumed, step)
    assert resumed[2].event_counts == resumed[2].expected_events()


# ---- layers left dense ----------------------------------------------------------------------------------------------


def two_layers(topology: str, **options) -> sparsity.SparseTraining:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return sparsity.attach(topology, model, optimizer, sparsity=0.5, total_steps=4, **options)


def test_a_mask_that_prunes_a_layer_left_dense_is_refused():
    sparse = two_layers("random", dense="last", rebudget=False)
    assert list(sparse.shapes) == ["0.weight", "1.weight"]
    assert dict(sparse.prunable) == {"0.weight": (3, 4)}
    before = sparse.masks
    cut = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    with pytest.raises(ValueError, match=r"leave 1\.weight dense, but its mask prunes 1 weights"):
        sparse.set_masks(sparsity.MaskSet({"1.weight": cut}), "cut")
    assert sparse.masks is before
    all_of_it = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in sparse.prunable.items()}
    sparse.set_masks(sparsity.MaskSet(all_of_it), "cut")
    assert sparse.masks.num_active() == {"0.weight": 0, "1.weight": 6}


def test_a_layer_without_a_new_mask_keeps_the_old_one():
    sparse = two_layers("random")
    old = sparse.masks
    sparse.set_masks(sparsity.MaskSet({"0.weight": ~old["0.weight"]}), "turn")
    assert torch.equal(sparse.masks["0.weight"], ~old["0.weight"])
    assert torch.equal(sparse.masks["1.weight"], old["1.weight"])
    with pytest.raises(ValueError, match=r"masks of 2\.weight: there is no such weight; weights: 0\.weight, 1\.weight"):
        sparse.set_masks(sparsity.MaskSet({"2.weight": old["1.weight"]}), "turn")


def test_without_such_options_every_layer_can_be_pruned():
    sparse = two_layers("dense")
    assert sparse.prunable == sparse.shapes
