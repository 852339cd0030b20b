"""What others do to a network under way: they load or write weights, freeze layers, and set masks of all kinds."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from sparsity import MaskSet, Topology

SAID = "weights outside the masks are not zero"


def mlp() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))


def attached(model: nn.Module, topology: str = "rigl", representation: str = "plain", **options: Any) -> Any:
    rep = sparsity.represent(model, representation)
    settings = {"sparsity": 0.8, "total_steps": 40, "steps_per_epoch": 10, **options}
    return sparsity.attach(topology, model, torch.optim.SGD(rep.param_groups(), lr=0.05, momentum=0.9), **settings)


def train(sparse: sparsity.SparseTraining, steps: int) -> None:
    model = sparse.representation.model
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        sparse.optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(32, 20, generator=generator)), torch.arange(32) % 5).backward()
        sparse.step()


# ---- weights that are loaded or written -----------------------------------------------------------------------------


@pytest.mark.parametrize("representation", ["plain", "product"])
@pytest.mark.parametrize("end", ["step", "finalize", "state_dict"])
def test_a_dense_network_loaded_after_attach_is_told_once(end: str, representation: str, caplog):
    model, other = mlp(), mlp()
    sparsity.represent(other, representation)
    sparse = attached(model, "random", representation)
    train(sparse, 3)
    assert SAID not in caplog.text
    model.load_state_dict(other.state_dict())
    train(sparse, 2) if end == "step" else getattr(sparse, end)()
    train(sparse, 20) if end == "step" else None
    assert caplog.text.count(SAID) == 1
    assert "step 3: " in caplog.text
    assert "0.weight (" in caplog.text


def test_the_best_weights_under_later_masks_are_told(caplog):
    model = mlp()
    sparse = attached(model, update_every=4)
    train(sparse, 6)
    best, state = copy.deepcopy(model.state_dict()), sparse.state_dict()
    train(sparse, 10)
    model.load_state_dict(best)
    sparse.load_state_dict(state)  # with their masks
    train(sparse, 10)
    assert SAID not in caplog.text
    model.load_state_dict(best)
    sparse.finalize()
    assert SAID in caplog.text


def test_a_part_that_is_loaded_is_seen_and_a_copy_is_not(caplog):
    model = mlp()
    sparse = attached(model, "random")
    train(sparse, 2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.module.load_state_dict(mlp().state_dict())
    copy.deepcopy(model).load_state_dict(mlp().state_dict())
    train(sparse, 2)
    assert SAID not in caplog.text
    model[2].load_state_dict(mlp()[2].state_dict())
    train(sparse, 1)
    assert "not zero, in 2.weight (" in caplog.text


def test_a_network_under_way_can_be_saved_whole():
    model = mlp()
    sparse = attached(model, "random")
    train(sparse, 2)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again[0].weight, model[0].weight)


def test_tensors_that_loading_replaced_are_named():
    model = mlp()
    sparse = attached(model, "random")
    train(sparse, 2)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    with pytest.raises(sparsity.TrainingError, match=r"does not own the tensor that 0\.weight has now"):
        train(sparse, 1)


def test_weights_that_a_hook_writes_are_told_at_the_first_step(caplog):
    model = mlp()

    def dense_again(module: nn.Module, inputs: Any) -> None:
        with torch.no_grad():
            module.weight.add_(0.01)  # pyright: ignore

    sparse = attached(model, "random")
    model[0].register_forward_pre_hook(dense_again)
    train(sparse, 25)
    assert caplog.text.count(SAID) == 1
    assert f"step 0: {SAID}, in 0.weight" in caplog.text


def test_weights_that_are_written_without_loading_are_told_at_the_end_of_the_epoch(caplog):
    model = mlp()
    sparse = attached(model, "random")
    train(sparse, 9)
    with torch.no_grad():
        model[2].weight.copy_(mlp()[2].weight)
    train(sparse, 1)
    assert f"step 9: {SAID}, in 2.weight" in caplog.text


def test_a_finished_training_lets_go_of_the_network(caplog):
    model = mlp()
    sparse = attached(model, "random", total_steps=2)
    train(sparse, 2)
    sparse.finalize()
    assert not any(module._load_state_dict_post_hooks for module in model.modules())


# ---- layers that are frozen on the way ------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_a_layer_frozen_on_the_way_keeps_mask_and_weights(topology: str, caplog):
    model = mlp()
    sparse = attached(model, topology, update_every=4)
    train(sparse, 6)
    model[2].weight.requires_grad_(False)
    mask, weight = sparse.masks["2.weight"].clone(), model[2].weight.clone()
    other = sparse.masks["0.weight"].clone()
    train(sparse, 20)
    assert torch.equal(sparse.masks["2.weight"], mask)
    assert torch.equal(model[2].weight, weight)
    assert not torch.equal(sparse.masks["0.weight"], other)
    assert caplog.text.count("2.weight has been frozen since attach(): its mask stays as it is") == 1


@pytest.mark.parametrize("topology", ["gmp", "acdc", "one_shot"])
def test_a_frozen_layer_that_is_to_be_cut_is_an_error(topology: str):
    model = mlp()
    options = {"gmp": {"update_every": 5}, "one_shot": {"at": 0.5}}.get(topology, {})
    sparse = attached(model, topology, **options)
    model[2].weight.requires_grad_(False)
    weight = model[2].weight.clone()
    with pytest.raises(sparsity.TrainingError, match=r"2\.weight has been frozen .* freeze it before attach\(\)"):
        train(sparse, 40)
    assert torch.equal(model[2].weight, weight)


def test_a_static_mask_may_be_frozen(caplog):
    model = mlp()
    sparse = attached(model, "random", total_steps=10)
    model[2].weight.requires_grad_(False)
    train(sparse, 10)
    assert "frozen" not in caplog.text
    sparse.finalize()


# ---- events that change nothing -------------------------------------------------------------------------------------


def test_updates_that_change_nothing_are_told_and_counted(open_registry, caplog):
    @sparsity.register_topology("idle")
    class Idle(Topology):
        def after_step(self, ctx):
            ctx.set_masks(MaskSet(dict(ctx.masks)), "update")

    model = mlp()
    sparse = attached(model, "idle", total_steps=6)
    train(sparse, 4)
    other = attached(mlp(), "idle", total_steps=6)
    other.load_state_dict(sparse.state_dict())
    train(sparse, 2)
    assert caplog.text.count("step 1: the first event 'update' of the masks changed none of them") == 1
    assert (sparse.idle, other.idle) == ({"update": 6}, {"update": 4})
    sparse.finalize()
    assert "6 of 6 events 'update' changed no mask" in caplog.text


def test_an_update_that_changes_something_is_told_of_nothing(caplog):
    sparse = attached(mlp(), update_every=4)
    train(sparse, 40)
    sparse.finalize()
    assert "changed no" not in caplog.text


# ---- masks of somebody else's method --------------------------------------------------------------------------------

WRONG: dict[str, tuple[Any, str]] = {
    "a list": (lambda ctx: [1], r"masks are a list: a sparsity\.MaskSet is allowed"),
    "a dict": (lambda ctx: dict(ctx.masks), r"masks are a dict: a sparsity\.MaskSet is allowed"),
    "a number": (lambda ctx: MaskSet({"0.weight": 3}), r"the mask of 0\.weight is a int, not torch\.bool"),  # pyright: ignore
    "a sequence": (lambda ctx: MaskSet([torch.ones(2)]), r"masks are a list, not boolean tensors by weight name"),  # pyright: ignore
    "floats": (
        lambda ctx: MaskSet({"0.weight": torch.ones(32, 20)}),
        r"of 0\.weight is torch\.float32, not torch\.bool",
    ),
    "a shape": (
        lambda ctx: MaskSet({"0.weight": torch.ones(20, 32, dtype=torch.bool)}),
        r"the mask of 0\.weight has shape \(20, 32\), its weight \(32, 20\)",
    ),
    "a scalar": (
        lambda ctx: MaskSet({"0.weight": torch.ones((), dtype=torch.bool)}),
        r"the mask of 0\.weight has shape \(\), its weight \(32, 20\)",
    ),
    "a name": (
        lambda ctx: MaskSet({"1.weight": torch.ones(2, dtype=torch.bool)}),
        r"masks of 1\.weight: there is no such",
    ),
}


@pytest.mark.parametrize("hook", ["initial_masks", "after_backward", "after_step", "finalize"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_masks_are_one_error_that_names_the_method(case: str, hook: str, open_registry):
    make, words = WRONG[case]

    def act(self: Topology, ctx: Any) -> Any:
        masks = make(ctx)
        if hook == "initial_masks":
            return masks
        ctx.set_masks(masks, "update")
        return True

    sparsity.register_topology("mine")(type("Mine", (Topology,), {hook: act}))

    def whole_run() -> None:
        sparse = attached(mlp(), "mine", total_steps=1)
        train(sparse, 1)
        sparse.finalize()

    with pytest.raises(sparsity.MaskError, match=rf"^topology 'mine': .*{words}"):
        whole_run()


def test_wrong_masks_of_a_representation_name_it(open_registry):
    class Mine(sparsity.Representation):
        def after_epoch(self, ctx: Any, metrics: Any) -> None:
            ctx.set_masks({}, "cut")

    sparsity.register_representation("mine")(Mine)
    with pytest.raises(sparsity.MaskError, match="^representation 'mine': masks are a dict"):
        train(attached(mlp(), "dense", "mine", total_steps=1, steps_per_epoch=1), 1)


@pytest.mark.parametrize("answer", [None, 1, torch.tensor(True)])
def test_a_hook_that_does_not_say_whether_to_step_is_an_error(answer: Any, open_registry):
    sparsity.register_topology("mine")(type("Mine", (Topology,), {"after_backward": lambda self, ctx: answer}))
    with pytest.raises(sparsity.TrainingError, match="'mine': after_backward returned .* True lets the optimizer step"):
        train(attached(mlp(), "mine"), 1)
