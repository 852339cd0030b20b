"""A method that did not act, or acted on another network, says so at once."""

from __future__ import annotations

import copy
import io
import re

import pytest
import torch
import torchvision
from torch import nn

import sparsity
from sparsity import registry
from sparsity.dynamic import grow_largest
from sparsity.testing.short_run import SPARSITY, ShortRun

PAIRS = [
    (topology, representation)
    for topology in registry.topologies()
    for representation in registry.representations()
    if registry.refusal(topology, representation) is None
]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def attached(model: nn.Module, topology: str = "random", **options) -> sparsity.SparseTraining:
    found = sparsity.representation.of(model)
    groups = found.param_groups() if found else list(model.parameters())
    settings = {"sparsity": 0.8, "total_steps": 20, **options}
    return sparsity.attach(topology, model, torch.optim.SGD(groups, lr=0.05, momentum=0.9), **settings)


def train(sparse: sparsity.SparseTraining, steps: int, shape: tuple[int, ...] = (32, 20)) -> None:
    model = sparse.representation.model
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(shape, generator=generator), torch.arange(len(range(shape[0]))) % 5
        sparse.optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        sparse.step(metrics=lambda: {"train_accuracy": 0.5})
        if sparse.level_ended:
            sparse.next_level()


# ---- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "representation"), PAIRS)
def test_a_step_beyond_the_last_one_is_refused(topology: str, representation: str):
    run = ShortRun(topology, representation)
    total = run.sparse.total_steps
    for step in range(total):
        run.step(step)
    before = run.thetas()
    with pytest.raises(sparsity.TrainingError, match=rf"step {total + 1} is one more than total_steps = {total}"):
        run.step(total)
    assert all(torch.equal(theta, before[name]) for name, theta in run.thetas().items())
    counts = run.sparse.finalize()
    assert run.sparse.finalize() == counts
    with pytest.raises(sparsity.TrainingError, match=r"finalize\(\) has ended"):
        run.step(total)


@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize(("topology", "representation"), PAIRS)
def test_an_early_end_is_said_and_leaves_a_plain_network(
    topology: str, representation: str, steps: int, caplog: pytest.LogCaptureFixture
):
    run = ShortRun(topology, representation)
    for step in range(steps):
        run.step(step)
    caplog.clear()
    total, failed = run.sparse.total_steps, ""
    try:
        run.sparse.finalize()
    except sparsity.TrainingError as error:
        failed = str(error)
    said = f"finalize() was called after {steps} of {total} steps"
    assert said in caplog.text
    assert not failed or said in failed
    assert not any("parametrizations" in name for name in run.network.state_dict())
    assert all(isinstance(p, nn.Parameter) for p in run.network.parameters())


def test_a_training_that_is_due_is_told_before_anything_is_lost():
    model = mlp()
    sparse = attached(model, "lrr", sparsity=0.5, total_steps=4)
    count = sparse.levels.count
    assert count > 2
    for step in range(sparse.total_steps):
        nn.functional.cross_entropy(model(torch.randn(8, 20)), torch.arange(8) % 5).backward()
        sparse.step()
        if sparse.level_ended:
            with pytest.raises(
                sparsity.TrainingError, match=rf"{step // 4 + 1} of {count} trainings are done: call next"
            ):
                sparse.finalize()
            sparse.next_level()
    assert sum(sparse.finalize().values()) == sparse.expected_active()


def test_trainings_that_are_left_are_counted():
    sparse = attached(mlp(), "lrr", sparsity=0.5, total_steps=4)
    train(sparse, 5)
    with pytest.raises(sparsity.TrainingError, match=r"after 5 of \d+ steps, 2 of \d+ trainings"):
        sparse.finalize()


def test_finalize_works_without_gradients():
    model = mlp()
    sparsity.represent(model, "product")
    sparse = attached(model, total_steps=2)
    train(sparse, 2)
    with torch.no_grad():
        sparse.finalize()
    assert isinstance(model[0].weight, nn.Parameter)
    assert model[0].weight.requires_grad


# ---- layers ---------------------------------------------------------------------------------------------------------


def test_a_layer_that_gets_no_gradient_is_told_soon_and_an_error_after_an_epoch(caplog: pytest.LogCaptureFixture):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.left_out = nn.Linear(20, 5), nn.Linear(20, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    sparse = attached(Unused(), total_steps=50, steps_per_epoch=15)
    train(sparse, 9)
    assert not caplog.records
    train(sparse, 1)
    assert "no gradient has reached left_out.weight in 10 steps" in caplog.text
    train(sparse, 4)
    with pytest.raises(sparsity.TrainingError, match=r"no gradient has reached left_out\.weight in 15 steps"):
        train(sparse, 1)


def test_a_loop_without_backward_is_told(caplog: pytest.LogCaptureFixture):
    sparse = attached(mlp(), "gmp", total_steps=30, update_every=5)
    for _ in range(12):
        sparse.step()
    said = [r.getMessage() for r in caplog.records if "is loss.backward() called" in r.getMessage()]
    assert len(said) == 1


@pytest.mark.parametrize("scaled", [False, True])
def test_an_optimizer_that_steps_by_itself_is_refused(scaled: bool):
    sparse = attached(mlp(), "rigl", update_every=5)
    train(sparse, 2)
    scaler = torch.amp.GradScaler("cpu")
    loss = nn.functional.cross_entropy(sparse.representation.model(torch.randn(8, 20)), torch.arange(8) % 5)
    if scaled:
        scaler.scale(loss).backward()
        scaler.step(sparse.optimizer)
    else:
        loss.backward()
        sparse.optimizer.step()
    with pytest.raises(sparsity.TrainingError, match="stepped by itself 1 times .* replaces optimizer.step"):
        sparse.step()


def test_an_optimizer_is_free_after_the_training():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        sparse = sparsity.attach("random", model, optimizer, sparsity=0.8, total_steps=2)
        train(sparse, 2)
        sparse.finalize()
        optimizer.step()
    assert not optimizer._optimizer_step_pre_hooks


def test_events_that_skipped_steps_took_along_are_told(caplog: pytest.LogCaptureFixture):
    model = mlp()
    sparse = attached(model, "rigl", total_steps=10, update_every=2)
    for step in range(10):
        sparse.optimizer.zero_grad()
        factor = 1.0 if step < 3 else torch.inf
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        loss = nn.functional.cross_entropy(model(torch.randn(8, 20)), torch.arange(8) % 5)
        scaler.scale(factor * loss).backward()
        sparse.step(scaler=scaler)
    sparse.finalize()
    assert re.search(r"4 update events were due, 2 happened; 7 steps were skipped", caplog.text)


def test_a_diverged_network_is_told_at_the_end(caplog: pytest.LogCaptureFixture):
    model = mlp()
    sparse = attached(model, total_steps=2)
    train(sparse, 2)
    with torch.no_grad():
        model[2].weight[sparse.masks["2.weight"]] = torch.nan
    sparse.finalize()
    assert "the weights of 2.weight hold NaN or infinity" in caplog.text


def test_a_state_of_another_training_is_refused():
    def made(topology: str = "rigl", **options) -> sparsity.SparseTraining:
        return attached(mlp(), topology, **{"update_every": 5, **options})

    state = made().state_dict()
    for other, key in (
        (made("set"), "topology"),
        (made(sparsity=0.5), "sparsity"),
        (made(total_steps=40), "total_steps"),
    ):
        before = other.masks
        with pytest.raises(ValueError, match=f"this state is of another training: its {key} is"):
            other.load_state_dict(state)
        assert other.masks == before
    for step in (-5, 21):
        with pytest.raises(ValueError, match=f"after step {step}, which is not one of 20"):
            made().load_state_dict({**state, "step": step})
    for wrong in ({}, [], {**state, "step": "3"}):
        with pytest.raises(ValueError, match="no state of a sparse training"):
            made().load_state_dict(wrong)
    made().load_state_dict(state)


def test_a_representation_of_a_part_is_refused():
    model = nn.Sequential(mlp(), nn.Linear(5, 100))
    sparsity.represent(model[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="only a part of the network is represented, a Sequential"):
        sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"clip_grad_norm": -1.0}, "clip_grad_norm must be a number above 0"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm must be"),
        ({"clip_grad_norm": float("nan")}, "clip_grad_norm must be"),
        ({"total_steps": 10.5}, "total_steps must be a whole number"),
        ({"total_steps": "10"}, "total_steps must be"),
        ({"total_steps": 0}, "total_steps must be"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch must be"),
        ({"batch_size": "a"}, "batch_size must be"),
        ({"seed": "x"}, "seed must be"),
        ({"sparsity": "0.9"}, "sparsity is the share of zeros"),
    ],
)
def test_settings_of_wrong_type_or_range_are_named(given: dict, words: str):
    with pytest.raises(ValueError, match=words):
        attached(mlp(), **given)


def test_a_layer_that_was_replaced_is_named():
    model = mlp()
    sparse = attached(model)
    model[4] = nn.Linear(64, 5)
    with pytest.raises(sparsity.TrainingError, match=r"the layer of 4\.weight is no longer in the network"):
        train(sparse, 1)


def test_a_layer_that_is_replaced_in_mid_training_is_named_at_the_end_of_the_epoch():
    model = mlp()
    sparse = attached(model, steps_per_epoch=5)
    train(sparse, 3)
    model[4] = nn.Linear(64, 5)
    with pytest.raises(sparsity.TrainingError, match=r"4\.weight is no longer"):
        train(sparse, 3)
    model = mlp()
    sparse = attached(model)
    train(sparse, 3)
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    with pytest.raises(sparsity.TrainingError, match=r"does not own the tensor that 0\.weight has now"):
        sparse.finalize()
    assert sparsity.representation.of(model) is None


def test_a_second_attach_is_refused_until_the_first_has_ended():
    model = mlp()
    sparse = attached(model, total_steps=3)
    train(sparse, 3)
    with pytest.raises(ValueError, match=r"attached to this network already: call its finalize\(\) first"):
        attached(model)
    copied = copy.deepcopy(model)
    attached(copied)  # a copy is another network
    sparse.finalize()
    train(attached(model, "gmp", update_every=3), 20)


def test_an_attach_that_fails_leaves_the_network_free():
    model = mlp()
    with pytest.raises(ValueError, match="rounds"):
        attached(model, "synflow", rounds=0)
    attached(model)


@pytest.mark.parametrize("topology", ["gmp", "acdc", "one_shot"])
def test_a_layer_without_weights_is_named_once(topology: str, caplog: pytest.LogCaptureFixture):
    sparse = attached(mlp(), topology, sparsity=0.99, steps_per_epoch=5, total_steps=50)
    train(sparse, 50)
    counts = sparse.finalize()
    assert counts["4.weight"] == 0
    said = [r.getMessage() for r in caplog.records if "4.weight has no weights left" in r.getMessage()]
    assert len(said) == 1
    assert "4.weight" in sparse.emptied


def test_layers_emptied_before_training_are_named(caplog: pytest.LogCaptureFixture):
    model = torchvision.models.resnet18(num_classes=5, zero_init_residual=True)
    data = [(torch.randn(4, 3, 32, 32), torch.arange(4))]
    probe = sparsity.Probe(lambda: iter(data), nn.functional.cross_entropy, (3, 32, 32), num_classes=5)
    sparse = attached(model, "snip", probe=probe, sparsity=0.99)
    empty = [name for name, number in sparse.masks.num_active().items() if number == 0]
    assert empty
    assert all(f"{name} has no weights left" in caplog.text for name in empty)


def test_emptied_layers_survive_a_resume():
    sparse = attached(mlp(), "one_shot", sparsity=0.99, total_steps=4, at=0.5)
    train(sparse, 3)
    assert sparse.emptied == ["2.weight", "4.weight"]
    other = attached(mlp(), "one_shot", sparsity=0.99, total_steps=4, at=0.5)
    other.load_state_dict(sparse.state_dict())
    assert other.emptied == sparse.emptied


# ---- weights and masks that belong together -------------------------------------------------------------------------


def saved(topology: str = "rigl") -> tuple[bytes, dict[str, torch.Tensor]]:
    model = mlp()
    sparse = attached(model, topology, total_steps=100, update_every=5)
    train(sparse, 50)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (model, sparse.optimizer, sparse)], file)
    return file.getvalue(), copy.deepcopy(model.state_dict())


def test_a_training_goes_on_bit_equal_when_it_is_loaded_after_attach(caplog: pytest.LogCaptureFixture):
    content, expected = saved()
    model = mlp()
    sparse = attached(model, "rigl", total_steps=100, update_every=5, seed=8)
    for part, state in zip((model, sparse.optimizer, sparse), torch.load(io.BytesIO(content)), strict=True):
        part.load_state_dict(state)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not caplog.records


def test_weights_under_masks_that_are_not_theirs_are_said(caplog: pytest.LogCaptureFixture):
    content, _ = saved()
    model = mlp()
    model.load_state_dict(torch.load(io.BytesIO(content))[0])
    attached(model, "rigl", total_steps=100, update_every=5, seed=8)
    (said,) = [record.getMessage() for record in caplog.records]
    assert re.match(r"the weights are sparse already \(80\.0 % zeros\): under the masks of rigl [23]\d\.\d % of", said)
    assert "attach first and load the network" in said


def test_zeros_of_a_soft_threshold_are_no_sparse_start(caplog: pytest.LogCaptureFixture):
    model = mlp()
    representation = sparsity.represent(model, "str", initial_threshold=-2.0)
    assert any((theta == 0).any() for _, theta in representation.weights())
    optimizer = torch.optim.SGD(representation.param_groups(), lr=0.1)
    sparsity.attach("dense", model, optimizer, sparsity=0.9, total_steps=10)
    assert not caplog.records


def test_the_same_mask_on_sparse_weights_says_nothing(caplog: pytest.LogCaptureFixture):
    model = mlp()
    first = attached(model, total_steps=2)
    train(first, 2)
    first.finalize()
    attached(model)
    assert not caplog.records


def test_a_dense_topology_on_sparse_weights_says_that_zeros_are_trained(caplog: pytest.LogCaptureFixture):
    model = mlp()
    first = attached(model, total_steps=2)
    train(first, 2)
    first.finalize()
    attached(model, "dense", sparsity=0.0)
    assert "100.0 % of the others remain, and 100.0 % of the zeros are active" in caplog.text


# ---- values by which nothing can be chosen --------------------------------------------------------------------------

CHOOSING = [name for name in registry.topologies() if name not in ("dense", "random", "snip", "grasp", "synflow")]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("topology", CHOOSING)
def test_values_that_are_not_finite_choose_no_mask(topology: str, value: float):
    run = ShortRun(topology, "plain", lambda groups: torch.optim.SGD(groups, lr=0.05))
    counts = [run.sparse.masks.num_active()]

    def whole_run() -> None:
        for step in range(run.sparse.total_steps):
            if step == 2:
                with torch.no_grad():
                    run.network[0].weight[run.sparse.masks["0.weight"]] = value
            counts.append(run.sparse.masks.num_active())
            run.step(step)

    with pytest.raises(sparsity.TrainingError) as refused:
        whole_run()
    assert re.search(r"step \d+: masks are due, but .*NaN or infinity.* hold NaN or infinity", str(refused.value))
    assert run.sparse.masks.num_active() == counts[-1]


def test_gradients_that_are_not_finite_choose_no_mask():
    model = mlp()
    sparse = attached(model, "rigl", update_every=5)
    train(sparse, 10)
    before = sparse.masks
    sparse.optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(8, 20)), torch.arange(8) % 5).backward()
    model[2].weight.grad[0] = torch.nan
    with pytest.raises(sparsity.TrainingError, match=r"step 10: .*the gradients of 2\.weight hold NaN"):
        sparse.step()
    assert sparse.masks == before


# ---- ties -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["rigl", "granet", "snfs"])
def test_zero_gradients_do_not_decide_where_weights_grow(topology: str):
    """Behind a branch that starts at zero no gradient is left: the new weights are spread by the seed of the masks."""

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer, self.head = nn.Linear(20, 128), nn.Linear(128, 20), nn.Linear(20, 5)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.gate * self.outer(self.inner(x).relu()))

    grown, events = {}, {}
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        every = {"update_every": 2 if topology == "rigl" else 1, **({"unit": "step"} if topology == "snfs" else {})}
        every |= {"initial_sparsity": 0.8} if topology == "granet" else {}
        every |= {"allocation": "uniform"}
        sparse = attached(Branch(), topology, seed=seed, sparsity=0.9, **every)
        before = sparse.masks["inner.weight"]
        train(sparse, 1)
        new = sparse.masks["inner.weight"] & ~before
        rows = new.any(1).nonzero().flatten()
        assert rows.numel() > 0.6 * int(new.sum().clamp(max=128)) * 0.8
        assert rows.max() > 100
        if seed in grown:
            assert torch.equal(new, grown[seed])
        grown[seed] = new
        events[seed] = sparse.events[-1]
    assert not torch.equal(grown[1], grown[2])
    assert events[1]["drawn"] >= int(grown[1].sum())


def test_a_draw_decides_among_zeros_alone():
    scores = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0, 0.0])
    kept = torch.tensor([True, False, False, False, False, False])
    numbers = []

    def draw(number: int) -> torch.Tensor:
        numbers.append(number)
        return torch.tensor([0.9, 0.0, 0.1, 0.0, 0.2, 0.8])

    assert grow_largest(scores, kept, 2, draw).int().tolist() == [1, 1, 0, 1, 0, 0]
    assert numbers == []
    assert grow_largest(scores, kept, 4, draw).int().tolist() == [1, 1, 0, 1, 1, 1]
    assert numbers == [2]


# ---- short schedules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("topology", CHOOSING)
def test_a_method_acts_or_is_refused_however_short_the_run(topology: str, steps: int):
    options = {"prune_fraction": 0.5} if topology in ("imp", "wr", "lrr") else {}
    options |= {"at": 1.0} if topology == "one_shot" else {}
    try:
        sparse = attached(mlp(), topology, total_steps=steps, steps_per_epoch=1, sparsity=SPARSITY, **options)
    except sparsity.OptionError:
        return
    assert sum(number for kind, number in sparse.expected_events().items() if kind != "initial") > 0


# ---- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["plain", "product", "powerprop"])
def test_a_copy_in_mid_training_is_plain_and_another_network(representation: str):
    model = mlp()
    sparsity.represent(model, representation)
    sparse = attached(model)
    train(sparse, 5)
    copied = sparsity.plain_copy(model)
    assert sorted(copied.state_dict()) == sorted(mlp().state_dict())
    x = torch.randn(4, 20)
    torch.testing.assert_close(copied(x), model(x))
    nn.functional.cross_entropy(copied(x), torch.arange(4)).backward()
    train(sparse, 15)
    assert not torch.equal(copied[0].weight, sparse.representation.slots["0.weight"].weight)
    sparse.finalize()


def test_an_average_over_changing_masks_is_sparse_only_under_the_masks():
    model = mlp()
    sparsity.represent(model, "product")
    sparse = attached(model, "rigl", update_every=3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(4):
        train(sparse, 5)
        averaged.update_parameters(model)
    dense, masked = sparsity.plain_copy(averaged), sparsity.plain_copy(averaged, sparse.masks)
    assert int((dense[0].weight != 0).sum()) > sparse.masks.num_active()["0.weight"]
    assert torch.equal(masked[0].weight != 0, sparse.masks["0.weight"])
    sparse.finalize()
    assert isinstance(averaged.module[0], nn.Linear)
