"""Runs with SAM: what a pass counts for, micro-batches, precision, ranks, and going on where they stopped."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import stop_at, train_on
from small_runs import (
    STEPS,
    assert_close,
    assert_same_run,
    differing,
    records,
    result,
    tiny_spec,
    train,
    train_in_pieces,
    weights,
)
from torch.nn.functional import cross_entropy

from experiments.config.resolve import load, resolve
from experiments.errors import UserError
from experiments.run.build import build
from ham import HAM, SAM

pytestmark = pytest.mark.timeout(300)

RIGL = ["topology={name: rigl, sparsity: 0.9, update_every: 4}", "optimizer.ham={alpha: 5.0}"]
# group normalisation, so that a batch in parts has the gradient of the whole; few steps, since SAM magnifies rounding
PARTS = [
    "model.name=resnet8_gn",
    "data.batch_size=16",
    "data.train_limit=100",
    "schedule.epochs=1",
    "optimizer.lr=0.05",
]


def test_a_radius_of_zero_is_no_sam(tmp_path: Path) -> None:
    train(tiny_spec(tmp_path, *RIGL), tmp_path / "plain")
    train(tiny_spec(tmp_path, *RIGL, "optimizer.sam={rho: 0.0}"), tmp_path / "zero")
    assert differing(weights(tmp_path / "zero"), weights(tmp_path / "plain")) == []
    assert records(tmp_path / "zero") == records(tmp_path / "plain")
    zero, plain = result(tmp_path / "zero"), result(tmp_path / "plain")
    assert zero.pop("identity") != plain.pop("identity")
    assert zero == plain


def test_a_pass_counts_once_and_costs_twice(tmp_path: Path) -> None:
    """At a rate next to nothing every pass at the weights sees the same network with SAM and without."""
    for name, overrides in (("plain", []), ("sam", ["optimizer.sam={rho: 5.0}"])):
        spec = tiny_spec(tmp_path, "optimizer.lr=1.0e-12", "optimizer.weight_decay=0.0", *overrides)
        train(spec, tmp_path / name)
    plain, sam = ([r for r in records(tmp_path / name) if r["kind"] == "epoch"] for name in ("plain", "sam"))
    for one, other in zip(plain, sam, strict=True):
        for key in ("loss", "train_accuracy", "validation_loss"):
            assert other[key] == pytest.approx(one[key], rel=1e-6), key
        assert (one["train_flops_fraction"], other["train_flops_fraction"]) == (1.0, 2.0)
    assert result(tmp_path / "sam")["training_flops_fraction"] == 2.0
    plain, sam = weights(tmp_path / "plain"), weights(tmp_path / "sam")
    counts = [name for name in sam if name.endswith("num_batches_tracked")]
    assert {int(sam[name]) for name in counts} == {STEPS}
    for name in plain:
        torch.testing.assert_close(sam[name], plain[name], rtol=1e-5, atol=1e-6, msg=name)


def test_in_pieces_is_in_one(tmp_path: Path) -> None:
    sam = "optimizer.sam={rho: 0.2, adaptive: true, gradient: first}"
    spec = tiny_spec(tmp_path, *RIGL, sam, "optimizer.ema_decay=0.9", "optimizer.clip_grad_norm=1.0")
    train(spec, tmp_path / "whole")
    train_in_pieces(spec, tmp_path / "run", [3, 4, 17])
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    without = tiny_spec(tmp_path, *RIGL, "optimizer.ema_decay=0.9", "optimizer.clip_grad_norm=1.0")
    train(without, tmp_path / "without")
    assert result(tmp_path / "without")["loss"] != result(tmp_path / "whole")["loss"]


@pytest.mark.usefixtures("in_float64")
def test_micro_batches_are_one_batch(tmp_path: Path) -> None:
    common = [*PARTS, *RIGL, "optimizer.sam={rho: 0.2}"]
    train(tiny_spec(tmp_path, *common), tmp_path / "one")
    train(tiny_spec(tmp_path, *common, "runtime.accumulate=4"), tmp_path / "four")
    assert_close(tmp_path / "four", tmp_path / "one")
    assert result(tmp_path / "four")["train_loss"] == pytest.approx(result(tmp_path / "one")["train_loss"], rel=1e-10)


def test_bf16_is_near_float32(tmp_path: Path) -> None:
    """Under a mask that stays: with one that follows gradients two networks would be compared."""
    fixed = ["topology={name: random, sparsity: 0.9}", "optimizer.ham={alpha: 5.0}", "optimizer.sam={rho: 0.2}"]
    for amp in ("none", "bf16"):
        train(tiny_spec(tmp_path, *fixed, f"runtime.amp={amp}"), tmp_path / amp)
    one, other = result(tmp_path / "none"), result(tmp_path / "bf16")
    assert one["loss"] != other["loss"]
    assert other["loss"] == pytest.approx(one["loss"], rel=0.2)


# ---- ranks ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_float64")
def test_a_reduced_perturbation_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *PARTS, *RIGL, "optimizer.sam={rho: 0.2, gradient: first}")
    train(spec, tmp_path / "one")
    ended = train_on(spec, tmp_path / "two", 2)
    assert [one.error for one in ended] == [None, None]
    assert_close(tmp_path / "two", tmp_path / "one")
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    assert two["events"] == one["events"]
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-10)


@pytest.mark.usefixtures("in_float64")
def test_a_local_perturbation_is_that_of_the_ranks_own_images(tmp_path: Path) -> None:
    """Against a loop over the halves of each batch, each with its own perturbed copy."""
    spec = tiny_spec(tmp_path, *PARTS, "optimizer.sam={rho: 0.2, perturbation: local}", "optimizer.momentum=0.0")
    assert [one.error for one in train_on(spec, tmp_path / "two", 2)] == [None, None]
    train(tiny_spec(tmp_path, *PARTS, "optimizer.sam={rho: 0.2}", "optimizer.momentum=0.0"), tmp_path / "reduced")
    run = build(spec)
    parameters = list(run.model.parameters())
    steps = 0
    for images, labels in run.data.batches(0):
        gradients = []
        for x, y in zip(images.chunk(2), labels.chunk(2), strict=True):
            own = torch.autograd.grad(cross_entropy(run.model(x), y), parameters)
            norm = torch.stack([g.norm() for g in own]).norm()
            moved = copy.deepcopy(run.model)
            with torch.no_grad():
                for p, g in zip(moved.parameters(), own, strict=True):
                    p += 0.2 * g / norm
            gradients.append(torch.autograd.grad(cross_entropy(moved(x), y), list(moved.parameters())))
        rate = spec.optimizer.lr * (1 + torch.cos(torch.tensor(torch.pi * steps / run.total_steps))) / 2
        with torch.no_grad():
            for p, one, other in zip(parameters, *gradients, strict=True):
                decay = spec.optimizer.weight_decay if p.ndim >= 2 else 0.0
                p -= rate * ((one + other) / 2 + decay * p)
        steps += 1
    assert steps == run.total_steps > 2
    found, reduced = weights(tmp_path / "two"), weights(tmp_path / "reduced")
    twin = run.model.state_dict()
    apart = sum(float((found[n] - twin[n]).square().sum()) for n in twin) ** 0.5
    assert apart < 1e-9 * sum(float((found[n] - reduced[n]).square().sum()) for n in twin) ** 0.5
    run.data.close()


@pytest.mark.robust
def test_ranks_with_perturbations_of_their_own_stay_together(tmp_path: Path) -> None:
    """Masks that follow gradients are compared at every update; a run in pieces is bit-equal."""
    sam = "optimizer.sam={rho: 0.2, adaptive: true, perturbation: local}"
    options = ["data.batch_size=48", "model.name=resnet8", "schedule.epochs=2"]
    spec = tiny_spec(tmp_path, *options, *RIGL, sam, "runtime.accumulate=2", "runtime.channels_last=true")
    ended = train_on(spec, tmp_path / "whole", 2)
    assert [one.error for one in ended] == [None, None]
    assert result(tmp_path / "whole")["events"]["update"] >= 2
    train_on(spec, tmp_path / "run", 2, partial(stop_at, 1, 5))
    assert [one.error for one in train_on(spec, tmp_path / "run", 2)] == [None, None]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


# ---- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.sam={}", "runtime.amp=fp16"], "runtime.amp: fp16 needs a loss scaler, which optimizer.sam cannot"),
        (
            ["optimizer.sam={gradient: first}"],
            "optimizer.sam.gradient: 'first' says what HAM sees, but optimizer.ham is",
        ),
        (
            ["optimizer.sam={gradient: first, perturbation: local}", "optimizer.ham={}"],
            "optimizer.sam.perturbation: 'local' gives each rank a first gradient of its own",
        ),
        (
            ["optimizer.sam={perturbation: local}", "representation.name=bar"],
            "optimizer.sam.perturbation: 'local' gives each rank gradients of its own, which bar goes by",
        ),
        (["optimizer.sam={rho: -1.0}"], "optimizer.sam.rho: -1.0 is out of range"),
        (["optimizer.sam={rh: 0.1}"], "optimizer.sam.rh: "),
    ],
)
def test_what_does_not_go_together_is_said(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(load("base", overrides))
    assert said in str(caught.value)


def test_a_configuration_becomes_sam_around_ham(tmp_path: Path) -> None:
    """Under the adaptive form biases stand apart, by name as in its authors' code; other groups stay as they are."""
    ham, sam = "optimizer.ham={alpha: 7.0}", "optimizer.sam={rho: 0.3, adaptive: true, eta: 0.5}"
    run = build(tiny_spec(tmp_path, ham, sam, "topology.name=dense"))
    optimizer = run.optimizer
    assert isinstance(optimizer, SAM)
    assert isinstance(optimizer.base, HAM)
    assert (optimizer.eta, optimizer.gradient, optimizer.model) == (0.5, "perturbed", run.model)
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    adaptive = {names[p]: g["adaptive"] for g in optimizer.param_groups for p in g["params"]}
    assert adaptive == {name: not name.endswith("bias") for name in names.values()}
    assert set(adaptive.values()) == {True, False}
    assert {g["rho"] for g in optimizer.param_groups} == {0.3}
    assert {g["weight_decay"] for g in optimizer.param_groups if any(p.ndim > 1 for p in g["params"])} == {5e-4}
    run.data.close()
