"""What a run holds besides weights: random numbers, emptied layers, the stream that each use of randomness has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import train_on
from small_runs import assert_same_run, records, result, tiny_spec, train, train_in_pieces, weights
from torch import nn

from experiments import data as datasets
from experiments.models import networks
from experiments.run.build import build_model
from experiments.seeding import derived_seed


def dropping(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    size = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, num_classes))


def test_random_layers_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.MODELS, "dropping", dropping)
    spec = tiny_spec(tmp_path, "model.name=dropping", "schedule.epochs=2")
    train(spec, tmp_path / "whole")
    train_in_pieces(spec, tmp_path / "pieces", [4, 9])
    assert_same_run(tmp_path / "pieces", tmp_path / "whole")


def test_a_layer_that_was_emptied_before_a_stop_is_remembered(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "topology={name: one_shot, sparsity: 0.9999, at: 0.25}")
    train(spec, tmp_path / "whole")
    assert result(tmp_path / "whole")["empty_layers"] != []
    train_in_pieces(spec, tmp_path / "pieces", [10, 15])
    assert result(tmp_path / "pieces")["empty_layers"] == result(tmp_path / "whole")["empty_layers"]


def test_initial_weights_have_a_stream_of_their_own(tmp_path: Path) -> None:
    """By its name, so that neither the order of the data nor a mask shares it."""
    spec = tiny_spec(tmp_path, "seed=5")
    data = datasets.build(spec.data, spec.seed, "cpu", False)
    torch.manual_seed(derived_seed(5, "init"))
    expected = networks.MODELS["mlp_bn"](num_classes=10, in_channels=1, image_size=28)
    before = torch.get_rng_state()
    built, _ = build_model(spec, data)
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name


def test_ranks_validate_one_network(tmp_path: Path) -> None:
    """Nothing happens between the last epoch's validation and the evaluation, for which statistics are shared."""
    overrides = ["model.name=mlp_bn", "schedule.epochs=2", "data.batch_size=20", "optimizer.ema_decay=0.5"]
    assert [one.error for one in train_on(tiny_spec(tmp_path, *overrides), tmp_path / "run", 2)] == [None, None]
    last = [line for line in records(tmp_path / "run") if line["kind"] == "epoch"][-1]
    assert last["validation_loss"] == result(tmp_path / "run")["loss"]


def test_averaged_weights_are_kept_with_their_accuracy(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "optimizer.ema_decay=0.9", "topology={name: random, sparsity: 0.9}")
    train(spec, tmp_path / "run")
    saved = torch.load(tmp_path / "run/weights.pt", weights_only=True)["state"]
    assert saved["average"].keys() == saved["model"].keys() == weights(tmp_path / "run").keys()
    data = datasets.build(spec.data, spec.seed, "cpu", False)
    network = networks.MODELS["mlp_bn"](num_classes=10, in_channels=1, image_size=28).eval()
    network.load_state_dict(saved["average"])
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in data.evaluate_batches("validation"))
    assert right / 100 == result(tmp_path / "run")["average_accuracy"]
