"""Runs whose topology is decided before the first step: by scores on data, and from trained weights."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from commands import command
from ranks import train_on
from small_runs import (
    assert_same_run,
    events,
    result,
    resumptions,
    tiny_spec,
    train,
    train_until,
    weights,
    write_config,
)

from experiments.errors import UserError
from experiments.ranks.distributed import World
from experiments.run.build import build
from results.runs.store import read as read_sweep
from results.table.tables import table

METHODS = {
    "snip": ["topology={name: snip, sparsity: 0.8}"],
    "grasp": ["topology={name: grasp, sparsity: 0.8, per_class: 3}"],
    "synflow": ["topology={name: synflow, sparsity: 0.8, rounds: 10}"],
}
RANDOM = ["topology={name: random, sparsity: 0.8}"]


@pytest.mark.parametrize("method", METHODS)
def test_scoring_disturbs_neither_initial_weights_nor_batches(tmp_path: Path, method: str) -> None:
    scored, random = (build(tiny_spec(tmp_path, *topology)) for topology in (METHODS[method], RANDOM))
    first, second = (run.data.batches(0) for run in (scored, random))
    for (images, labels), (others, their_labels) in zip(islice(first, 3), islice(second, 3), strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, their_labels)
    names = list(scored.sparse.shapes)
    for name in names:
        both = scored.sparse.masks[name] & random.sparse.masks[name]
        assert torch.equal(scored.sparse.weight(name)[both], random.sparse.weight(name)[both])
    for name, value in scored.model.state_dict().items():
        if name not in names:
            assert torch.equal(value, random.model.state_dict()[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_a_scored_run_in_pieces_equals_a_run_in_one(tmp_path: Path, method: str) -> None:
    spec = tiny_spec(tmp_path, *METHODS[method])
    train(spec, tmp_path / "one")
    train_until(spec, tmp_path / "run", 7)
    train(spec, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "one")
    assert resumptions(tmp_path / "run") == [7]
    assert len(events(tmp_path / "run", "initial")) == 1
    assert result(tmp_path / "run")["sparsity"] == pytest.approx(0.8, abs=1e-3)


@pytest.mark.usefixtures("in_float64")
def test_two_ranks_score_alike(tmp_path: Path) -> None:
    # without batch statistics, which are those of micro-batches
    spec = tiny_spec(tmp_path, *METHODS["snip"], "model.name=resnet8_gn", "schedule.epochs=1")
    train(spec, tmp_path / "one")
    train_on(spec, tmp_path / "two", 2)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in result(tmp_path / "one")["layers"]:
        assert torch.equal(one[name] != 0, two[name] != 0), name


def test_snip_computes_parts_as_a_training_step_does(tmp_path: Path) -> None:
    from experiments.run.probe import make_probe

    spec = tiny_spec(tmp_path, *METHODS["snip"], "runtime.accumulate=5")
    run = build(spec)
    alone, two = (make_probe(spec, run.data, run.device, World(0, size)) for size in (1, 2))
    assert alone is not None
    assert two is not None
    assert [len(labels) for _, labels in alone.micro_batches(2)] == [10] * 10
    assert [len(labels) for _, labels in two.micro_batches(1)] == [5] * 10
    twice = [torch.cat([labels for _, labels in alone.micro_batches(1)]) for _ in range(2)]
    assert torch.equal(*twice)
    assert make_probe(tiny_spec(tmp_path, *RANDOM), run.data, run.device, World()) is None


def test_what_cannot_be_had_is_one_message(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "topology={name: grasp, sparsity: 0.8, per_class: 500}")
    with pytest.raises(UserError, match="500 images of each class are asked for") as caught:
        build(spec)
    assert caught.value.where == "topology"
    spec = tiny_spec(tmp_path, "topology={name: random, sparsity: 0.999, dense: first}")
    with pytest.raises(UserError, match="more than the density 0.10% allows"):
        build(spec)


# ---- from trained weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(tiny_spec(folder), folder / "dense")
    return folder / "dense" / "weights.pt"


def test_one_shot_and_fine_tuning_from_a_dense_run(tmp_path: Path, trained: Path) -> None:
    spec = tiny_spec(tmp_path, f"model.weights={trained}", "topology={name: one_shot, sparsity: 0.6}")
    dense, run = weights(trained.parent), build(spec)
    flat = torch.cat([dense[name].abs().flatten() for name in run.sparse.shapes])
    threshold = flat.sort(descending=True).values[sum(run.sparse.masks.num_active().values()) - 1]
    for name in run.sparse.shapes:
        assert torch.equal(run.sparse.masks[name], dense[name].abs() >= threshold)
        assert torch.equal(run.sparse.weight(name), dense[name] * run.sparse.masks[name])
    statistics = [name for name in dense if "running" in name]
    assert statistics
    assert all(torch.equal(run.model.state_dict()[name], dense[name]) for name in statistics)
    train(spec, tmp_path / "run")
    tuned = result(tmp_path / "run")
    assert tuned["events"] == {"initial": 1}
    assert tuned["initial_weights"]
    # one epoch is enough where training starts from what has been learnt
    short = [f"model.weights={trained}", "topology={name: one_shot, sparsity: 0.6}", "schedule.epochs=1"]
    train(tiny_spec(tmp_path, *short), tmp_path / "short")
    train(tiny_spec(tmp_path, *short[1:]), tmp_path / "fresh")
    assert result(tmp_path / "short")["loss"] < result(tmp_path / "fresh")["loss"]


@pytest.mark.parametrize("representation", ["product", "sign_in", "str"])
def test_weights_are_loaded_before_they_are_represented(tmp_path: Path, trained: Path, representation: str) -> None:
    run = build(tiny_spec(tmp_path, f"model.weights={trained}", f"representation={{name: {representation}}}"))
    dense = weights(trained.parent)
    for name, theta in run.sparse.representation.weights():
        torch.testing.assert_close(theta, dense[name], rtol=1e-5, atol=1e-7)


def test_weights_of_another_network_are_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UserError, match="does not fit the network") as caught:
        build(tiny_spec(tmp_path, f"model.weights={trained}", "model.name=resnet8"))
    assert caught.value.where == "model.weights"


def test_tables_say_what_stays_dense_and_what_starts_from_weights(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "sweep.yaml")
    text = config.read_text() + (
        "sweep:\n"
        "  rows:\n"
        "    Dense: {topology.name: dense}\n"
        "    Random: {topology: {name: random, sparsity: 0.6, dense: first_last, rebudget: false}}\n"
        f"    Tuned: {{topology: {{name: one_shot, sparsity: 0.6, dense: last}}, model.weights: {trained}}}\n"
        "  seeds: [0]\n"
    )
    config.write_text(text)
    assert command("sweep", config, "--jobs", 1) == 0
    (manifest,) = tmp_path.glob("runs/*/sweep.json")
    words = " ".join(table(read_sweep(manifest.parent)).caption)
    assert (
        "are not counted. Left dense: Random: first and last layer (the sparsity asked for is over the others alone);"
        " Tuned: the last layer (the sparsity asked for is over all weights, the other layers paying)." in words
    )
    assert "Started from the weights of another run: Tuned; FLOPs of that run are not counted." in words
