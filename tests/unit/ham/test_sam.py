"""SAM: its step by hand and against a literal form, and the state that a step must restore."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from ham_helpers import NoHostSync, make_model, weights
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adadelta, AdamW, Optimizer, lr_scheduler

from ham import HAM, SAM, OptimizerWrapper


def batch(step: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).to(dtype)


def run(model: nn.Module, optimizer: Optimizer, steps: int, start: int = 0) -> list[float]:
    """Train with a closure; the loss of each step."""
    losses = []
    for step in range(start, start + steps):
        x = batch(step, next(model.parameters()).dtype)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())  # pyright: ignore
    return losses


def quadratic(*values: float, **options) -> tuple[list[nn.Parameter], SAM, Callable[[], Tensor], list[list[float]]]:
    """Parameters of one entry, whose loss is half the sum of their squares, and the values each pass sees."""
    parameters = [nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in values]
    optimizer = SAM(SGD(parameters, lr=0.1), **options)
    seen: list[list[float]] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append([float(p.detach()) for p in parameters])
        loss = sum((0.5 * p.square().sum() for p in parameters), torch.zeros(()))
        loss.backward()
        return loss

    return parameters, optimizer, closure, seen


# ---- a step by hand -------------------------------------------------------------------------------------------------


def test_a_step_by_hand():
    #   the gradient is the weight: (3, 4) of norm 5 over both tensors, so e = .5 * (.6, .8)
    parameters, optimizer, closure, seen = quadratic(3.0, 4.0, rho=0.5)
    loss = optimizer.step(closure)
    assert loss.item() == 12.5, "the loss at the weights themselves"
    assert seen[0] == [3.0, 4.0]
    assert seen[1] == pytest.approx([3.3, 4.4])
    # the step begins at the weights and follows the gradient at the perturbed ones
    assert [p.item() for p in parameters] == pytest.approx([3 - 0.33, 4 - 0.44])


def test_an_adaptive_step_by_hand():
    #   T = (3.5, 4.5), T g = (10.5, 18), e = .5 * T (T g) / |T g|
    parameters, optimizer, closure, seen = quadratic(3.0, 4.0, rho=0.5, adaptive=True, eta=0.5)
    optimizer.step(closure)
    norm = math.hypot(10.5, 18)
    expected = [3 + 0.5 * 3.5 * 10.5 / norm, 4 + 0.5 * 4.5 * 18 / norm]
    assert seen[1] == pytest.approx(expected)
    assert [p.item() for p in parameters] == pytest.approx([3 - 0.1 * expected[0], 4 - 0.1 * expected[1]])


def test_a_magnitude_has_no_sign():
    _, optimizer, closure, seen = quadratic(-3.0, 4.0, rho=0.5, adaptive=True, eta=0.5)
    optimizer.step(closure)
    norm = math.hypot(10.5, 18)
    assert seen[1] == pytest.approx([-3 - 0.5 * 3.5 * 10.5 / norm, 4 + 0.5 * 4.5 * 18 / norm])


def test_groups_have_their_own_radius_and_form():
    #   the third is not perturbed and no part of the norm; the second is adaptive: T g = 4 * 4
    first, second, third = (nn.Parameter(torch.tensor([v], dtype=torch.float64)) for v in (3.0, 4.0, 7.0))
    groups = [
        {"params": [first], "rho": 0.5},
        {"params": [second], "rho": 1.0, "adaptive": True},
        {"params": [third], "rho": 0.0},
    ]
    optimizer, seen = SAM(SGD(groups, lr=0.0), eta=0.0), []

    def closure() -> Tensor:
        seen.append([p.item() for p in (first, second, third)])
        loss = 0.5 * (first.square() + second.square() + third.square()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    norm = math.hypot(3, 16)
    assert seen[1] == pytest.approx([3 + 0.5 * 3 / norm, 4 + 1.0 * 4 * 16 / norm, 7])


def test_a_base_that_maximizes_is_perturbed_downwards():
    parameter, seen = nn.Parameter(torch.tensor([3.0])), []
    optimizer = SAM(SGD([parameter], lr=0.1, maximize=True), rho=0.5)

    def closure() -> Tensor:
        seen.append(parameter.item())
        loss = parameter.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen == [3.0, 2.5]
    assert parameter.item() == pytest.approx(3.1)


def test_a_gradient_of_zero_perturbs_nothing():
    parameters, optimizer, closure, seen = quadratic(0.0, 0.0, rho=0.5)
    optimizer.step(closure)
    assert seen[1] == [0.0, 0.0] == [p.item() for p in parameters]


class LiteralSAM:
    """The step of the papers, a parameter at a time: no lists, no groups, its own copies."""

    def __init__(self, model: nn.Module, base: Optimizer, rho: float, eta: float | None = None):
        self.model, self.base, self.rho, self.eta = model, base, rho, eta

    def step(self, x: Tensor) -> float:
        parameters = list(self.model.parameters())
        loss = self.model(x).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        reach = [1.0 if self.eta is None else p.detach().abs() + self.eta for p in parameters]
        squares = sum(float((t * g).square().sum()) for t, g in zip(reach, gradients, strict=True))
        moved = copy.deepcopy(self.model)
        with torch.no_grad():
            for p, t, g in zip(moved.parameters(), reach, gradients, strict=True):
                p += self.rho * t * t * g / math.sqrt(squares)
        moved(x).square().mean().backward()
        for p, q in zip(parameters, moved.parameters(), strict=True):
            p.grad = q.grad
        self.base.step()
        return loss.item()


BASES: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2),
    "AdamW": lambda m: AdamW(m.parameters(), lr=0.02),
    "HAM(SGD)": lambda m: HAM(SGD(m.parameters(), lr=0.1, momentum=0.9), alpha=3.0, beta=0.01),
}


@pytest.mark.parametrize("eta", [None, 0.0, 0.01])
@pytest.mark.parametrize("base", BASES)
def test_a_trajectory_is_that_of_the_literal_form(base: str, eta: float | None):
    model, twin = (make_model(dtype=torch.float64) for _ in range(2))
    adaptive = {} if eta is None else {"adaptive": True, "eta": eta}
    optimizer = SAM(BASES[base](model), rho=0.3, **adaptive)
    literal = LiteralSAM(twin, BASES[base](twin), 0.3, eta)
    plain = make_model(dtype=torch.float64)
    losses = run(model, optimizer, 6)
    assert losses == pytest.approx([literal.step(batch(step, torch.float64)) for step in range(6)], rel=1e-12)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-11, atol=1e-12)
    run(plain, BASES[base](plain), 6)
    assert (weights(plain) - weights(model)).norm() > 1e-3 * weights(model).norm()


# ---- which gradient HAM sees ----------------------------------------------------------------------------------------


def test_ham_sees_the_first_gradient_if_told_so():
    #   lr .1, alpha 2, beta 0, w = 3: gradients 3 and, at 3 + .5, 3.5
    for gradient, seen in (("perturbed", 3.5), ("first", 3.0)):
        weight = nn.Parameter(torch.tensor([[3.0]], dtype=torch.float64))
        optimizer = SAM(HAM(SGD([weight], lr=0.1), alpha=2.0, beta=0.0, scalars=True), rho=0.5, gradient=gradient)

        bucket = torch.zeros(1, 1, dtype=torch.float64)

        def closure(weight: Tensor = weight, bucket: Tensor = bucket) -> Tensor:
            loss = 0.5 * weight.square().sum()
            (gradient,) = torch.autograd.grad(loss, weight)
            # one place for the gradients of all passes, as DDP's buckets are
            weight.grad = bucket.copy_(gradient)
            return loss

        optimizer.step(closure)
        half = 3 - 0.1 * 3.5
        assert weight.item() == pytest.approx(half * math.exp(-0.1 * 2 * seen), rel=1e-12)


def test_given_gradients_say_which_weights_ham_moves():
    first, second = (nn.Parameter(torch.full((2, 2), 0.5)) for _ in range(2))
    for parameter in (first, second):
        parameter.grad = torch.zeros(2, 2)
    optimizer = HAM(SGD([first, second], lr=0.1), alpha=2.0, beta=0.0)
    optimizer.step(grads={first: torch.ones(2, 2)})
    torch.testing.assert_close(first.detach(), torch.full((2, 2), 0.5 * math.exp(-0.2)))
    assert torch.equal(second, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("sign", ["after", "before"])
def test_the_order_of_the_wrappers_does_not_matter_for_the_perturbed_gradient(sign):
    runs = []
    for outer in ("sam", "ham"):
        model = make_model()
        base = SGD(model.parameters(), lr=0.1, momentum=0.9)
        inner = HAM(base, 3.0, 0.01, sign=sign) if outer == "sam" else SAM(base, 0.2)
        optimizer = SAM(inner, 0.2) if outer == "sam" else HAM(inner, 3.0, 0.01, sign=sign)
        assert optimizer.needs_closure
        run(model, optimizer, 5)
        runs.append(weights(model))
    assert torch.equal(*runs)


# ---- what a step leaves as it was -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["perturbed", "first"])
def test_a_radius_of_zero_is_no_sam(gradient):
    """Bit for bit, with batch statistics and dropout: there is no second pass."""
    states = []
    for sam in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
        optimizer = HAM(SGD(model.parameters(), lr=0.1, momentum=0.9), 3.0)
        if sam:
            optimizer = SAM(optimizer, 0.0, gradient=gradient, model=model)
        run(model, optimizer, 4)
        states.append({**model.state_dict(), "draws": torch.rand(3)})
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_weights_come_back_as_they_were():
    """A copy: adding and taking away would leave other bits."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    before = weights(model).clone()
    optimizer, steps = SAM(SGD(model.parameters(), lr=0.0), rho=10.0), []

    def closure() -> Tensor:
        steps.append(weights(model).clone())
        loss = model(torch.ones(2, 64)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(weights(model), before)
    move = steps[1] - steps[0]
    assert move.norm().item() == pytest.approx(10, rel=1e-5)
    assert not torch.equal(steps[1] - move, before), "so this test can tell"


def test_weights_come_back_from_an_error():
    model = make_model()
    before, optimizer, calls = weights(model).clone(), None, []
    optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=1.0, model=model)

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            assert not torch.equal(weights(model), before)
            raise KeyboardInterrupt
        loss = model(batch(0)).square().mean()
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert torch.equal(weights(model), before)


def test_batch_statistics_are_those_of_the_first_pass():
    """Those of a network that has seen each batch once, at the same weights."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(1, 6, 2), nn.BatchNorm1d(6), nn.InstanceNorm1d(6, track_running_stats=True))
    optimizer = SAM(SGD(model.parameters(), lr=0.0), rho=5.0, model=model)
    once = copy.deepcopy(model)
    outputs = []

    def closure(x: Tensor) -> Tensor:
        outputs.append(model(x[:, None]))
        loss = (outputs[-1] * torch.arange(3)).square().mean()
        loss.backward()
        return loss

    for step in range(3):
        optimizer.zero_grad()
        optimizer.step(lambda step=step: closure(batch(step)))
        once(batch(step)[:, None])
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3), "the second pass sees other weights"
    assert once[1].num_batches_tracked == 3
    for name, buffer in once.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name


def test_without_the_model_each_batch_counts_twice():
    """What ``model`` is for."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    run(model, SAM(SGD(model.parameters(), lr=0.1)), 3)
    assert model[1].num_batches_tracked == 6


def test_compiled_statistics_are_those_of_the_first_pass():
    states = []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=0.5, model=model)
        if compiled:
            model.compile(backend="aot_eager")
        run(model, optimizer, 3)
        states.append(model.state_dict())
    assert states[1]["1.num_batches_tracked"] == 3
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, msg=key)


def test_both_passes_draw_the_same_numbers():
    """Dropout drops the same units; afterwards the stream goes on as if there had been one pass."""
    model, seen = make_model(), []
    torch.manual_seed(5)
    drawn = [torch.rand(4) for _ in range(2)]
    torch.manual_seed(5)
    optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=0.1)

    def closure() -> Tensor:
        seen.append(torch.rand(4))
        loss = (model(seen[-1]) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert [torch.equal(seen[i], drawn[i // 2]) for i in range(4)] == [True] * 4


def test_a_closure_that_clears_nothing_is_no_trap():
    runs = []
    for clears in (True, False):
        model = make_model()
        optimizer = SAM(SGD(model.parameters(), lr=0.1), rho=0.3)
        for step in range(3):
            optimizer.zero_grad()

            def closure(step: int = step, clears: bool = clears, model=model, optimizer=optimizer) -> Tensor:
                if clears:
                    optimizer.zero_grad()
                loss = model(batch(step)).square().mean()
                loss.backward()
                return loss

            with torch.no_grad():  # as in a loop that is careful about it
                optimizer.step(closure)
        runs.append(weights(model))
    assert torch.equal(*runs)


def test_autocast_around_the_step_sees_perturbed_weights():
    """Autocast keeps the cast of a weight while it is on; without care the second pass would see the first one's."""
    model, losses = nn.Linear(4, 4), []
    optimizer = SAM(SGD(model.parameters(), lr=0.0), rho=10.0)

    def closure() -> Tensor:
        loss = model(batch(0)).float().square().mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(closure)
    assert losses[1] > 10 * losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_move_by_the_rounded_perturbation(dtype):
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=dtype))
    optimizer, seen = SAM(SGD([weight], lr=0.0), rho=0.5), []

    def closure() -> Tensor:
        seen.append(weight.detach().clone())
        loss = weight.float().square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    gradient = 2 * seen[0].float()
    expected = seen[0].float() + 0.5 * gradient / gradient.norm()
    assert torch.equal(seen[1], expected.to(dtype))
    assert torch.equal(weight, seen[0])


def test_parameters_of_several_types_and_without_gradient():
    single = nn.Parameter(torch.tensor([[3.0]]))
    double = nn.Parameter(torch.tensor([[4.0]], dtype=torch.float64))
    idle = nn.Parameter(torch.tensor([[9.0]]))
    optimizer, seen = SAM(SGD([single, double, idle], lr=0.0), rho=0.5), []

    def closure() -> Tensor:
        seen.append([p.item() for p in (single, double, idle)])
        loss = 0.5 * (single.square().double() + double.square()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen[1] == pytest.approx([3.3, 4.4, 9.0])


def test_a_step_waits_for_nothing():
    model = make_model()
    optimizer = SAM(HAM(SGD(model.parameters(), lr=0.1), 3.0), rho=0.1, adaptive=True, gradient="first", model=model)

    def closure() -> Tensor:
        loss = model(batch(0)).square().mean()
        loss.backward()
        return loss

    with NoHostSync():
        optimizer.step(closure)


# ---- an optimizer like any other ------------------------------------------------------------------------------------


def saved_and_loaded(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_resumed_run_is_bit_equal_and_options_are_in_the_checkpoint():
    def build(seed: int, rho: float = 0.2) -> tuple[nn.Module, SAM]:
        model = make_model(seed)
        return model, SAM(HAM(SGD(model.parameters(), lr=0.1, momentum=0.9), 3.0), rho, adaptive=True)

    whole, optimizer = build(0)
    run(whole, optimizer, 3)
    optimizer.param_groups[0]["rho"] = 0.4
    state, optimizer_state = copy.deepcopy(whole.state_dict()), saved_and_loaded(optimizer.state_dict())
    run(whole, optimizer, 4, start=3)
    resumed, other = build(1, rho=9.0)
    resumed.load_state_dict(state)
    other.load_state_dict(optimizer_state)
    group = other.param_groups[0]
    assert (group["rho"], group["adaptive"], group["alpha"]) == (0.4, True, 3.0)
    assert group is other.base.base.param_groups[0]
    run(resumed, other, 4, start=3)
    assert torch.equal(weights(resumed), weights(whole))


def test_checkpoints_of_the_plain_base_go_both_ways():
    model = make_model()
    plain = SGD(model.parameters(), lr=0.3, momentum=0.8)
    optimizer = SAM(SGD(make_model().parameters(), lr=0.1, momentum=0.9), 0.2)
    optimizer.load_state_dict(plain.state_dict())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.3, 0.2)
    plain.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    assert plain.param_groups[0]["momentum"] == 0.8


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_bit_equal(duplicate):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    base = HAM(SGD(model.parameters(), lr=0.1, momentum=0.9), 3.0)
    optimizer = SAM(base, 0.2, adaptive=True, eta=0.1, gradient="first", model=model)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=9)
    for step in range(3):
        run(model, optimizer, 1, start=step)
        scheduler.step()
    other, other_optimizer, other_scheduler = duplicate((model, optimizer, scheduler))
    assert other_optimizer.model is other
    for step in range(3, 6):
        for one, its, rates in ((model, optimizer, scheduler), (other, other_optimizer, other_scheduler)):
            run(one, its, 1, start=step)
            rates.step()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert other[1].num_batches_tracked == 6


def test_a_base_with_a_rho_of_its_own_keeps_it():
    model = make_model()
    optimizer = SAM(Adadelta(model.parameters(), rho=0.8), rho=0.2, adaptive=True)
    group = optimizer.param_groups[0]
    assert (group["rho"], group["sam_rho"], group["sam_adaptive"]) == (0.8, 0.2, True)
    seen = []
    optimizer = pickle.loads(pickle.dumps(optimizer))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def closure() -> Tensor:
        seen.append(torch.cat([p.detach().flatten() for p in parameters]))
        loss = sum((p.square().sum() for p in parameters), torch.zeros(()))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert 0 < (seen[1] - seen[0]).norm() < 0.8


def test_needs_closure_is_seen_through_wrappers():
    base = SGD(make_model().parameters(), lr=0.1)
    assert not HAM(base).needs_closure
    assert OptimizerWrapper(SAM(base)).needs_closure


def test_a_missing_closure_is_named():
    optimizer = SAM(SGD(make_model().parameters(), lr=0.1))
    with pytest.raises(ValueError, match="closure: SAM evaluates each batch twice"):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"rho": -0.1}, ValueError, "rho: -0.1 is out of range"),
        ({"rho": math.inf}, ValueError, "rho: inf is out of range"),
        ({"rho": "0.1"}, TypeError, "rho: '0.1' is not a number"),
        ({"adaptive": 1}, TypeError, "adaptive: 1 is not True or False"),
        ({"eta": -1.0}, ValueError, "eta: -1.0 is out of range"),
        ({"gradient": "second"}, ValueError, "gradient: 'second' is not allowed; use 'perturbed' or 'first'"),
        ({"gradient": "first"}, ValueError, "gradient: 'first' says what HAM sees"),
    ],
)
def test_options_are_checked(options: dict, kind: type[Exception], said: str):
    with pytest.raises(kind, match=said):
        SAM(SGD(make_model().parameters(), lr=0.1), **options)


def test_bases_that_cannot_be_are_refused():
    parameters = list(make_model().parameters())
    with pytest.raises(ValueError, match="base: contains SAM already"):
        SAM(HAM(SAM(SGD(parameters, lr=0.1))))
    with pytest.raises(ValueError, match="base: L-BFGS evaluates the closure"):
        SAM(LBFGS(parameters))
    with pytest.raises(TypeError, match="base: SAM wraps a torch.optim.Optimizer instance, not the class SGD"):
        SAM(SGD)  # pyright: ignore


def test_sparse_gradients_are_refused_before_anything_moves():
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = SAM(SGD(model.parameters(), lr=0.1))
    before = weights(model).clone()

    def closure() -> Tensor:
        loss = model(torch.tensor([1, 2])).square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="group 0 has a sparse gradient; SAM needs dense ones"):
        optimizer.step(closure)
    assert torch.equal(weights(model), before)


# ---- gradients from elsewhere ---------------------------------------------------------------------------------------


def small() -> tuple[nn.Linear, SAM]:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    return model, SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)


def backward(model: nn.Linear, seed: int) -> Tensor:
    loss = model(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))).square().sum()
    loss.backward()
    return loss


def test_gradients_of_another_micro_batch_are_told_once(caplog: pytest.LogCaptureFixture):
    model, optimizer = small()
    for step in range(3):
        optimizer.zero_grad()
        backward(model, 2 * step)  # the first micro-batch, outside the closure
        optimizer.step(partial(backward, model, 2 * step + 1))
    assert [r.getMessage()[:47] for r in caplog.records] == ["gradients were computed outside the closure sin"]


@pytest.mark.parametrize("to_none", [True, False])
def test_an_ordinary_loop_is_told_nothing(to_none: bool, caplog: pytest.LogCaptureFixture):
    model, optimizer = small()

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=to_none)
        return backward(model, 1)

    for _ in range(3):
        optimizer.step(closure)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=to_none)
        optimizer.step(lambda: backward(model, 2))
    assert not caplog.records
