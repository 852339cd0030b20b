"""Initial weights from a file: what is read, what is refused and how, and what of it counts for the identity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.identity import identity
from experiments.config.resolve import load, resolve
from experiments.config.schema import Spec
from experiments.errors import UserError
from experiments.models import weights
from experiments.rundir import checkpoint
from experiments.rundir.files import write_json
from experiments.rundir.result import seal


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def assert_loaded(path: str) -> None:
    model, wanted = network(1), network(0).state_dict()
    weights.load(model, path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_plain_state_dict_is_loaded(tmp_path: Path):
    assert_loaded(saved(tmp_path / "plain.pt", network().state_dict()))


def test_the_weights_of_a_run_are_loaded(tmp_path: Path):
    checkpoint.write(tmp_path / "weights.pt", "0" * 8, 3, {"model": network().state_dict()})
    assert_loaded(str(tmp_path / "weights.pt"))


def test_names_of_wrapped_networks_are_understood(tmp_path: Path):
    state = network().state_dict()
    assert_loaded(saved(tmp_path / "ddp.pt", {f"module._orig_mod.{name}": t for name, t in state.items()}))


def changed(**changes: Any) -> dict[str, Any]:
    state = {**network().state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(**{"3__weight": None, "3__bias": None}), "does not fit the network: it lacks 3.weight"),
        (changed(**{"3__weight": torch.ones(7, 64)}), "3.weight is 7 x 64 there and 5 x 64 here"),
        (changed(**{"3__weigth": torch.ones(5)}), "has no 3.weigth; did you mean '3.weight'"),
        ({"weights": 3}, "holds no state_dict, a mapping of names to tensors"),
        ([1, 2], "holds no state_dict"),
        ({}, "holds no state_dict"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: Any, message: str):
    with pytest.raises(UserError) as caught:
        weights.load(network(), saved(tmp_path / "other.pt", content))
    assert message in str(caught.value)
    assert "other.pt" in str(caught.value)
    assert str(caught.value).startswith("model.weights: ") or caught.value.where == "model.weights"


def test_a_network_as_a_whole_is_not_executed(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read as weights"):
        weights.load(network(), saved(tmp_path / "pickled.pt", network()))
    (tmp_path / "text.pt").write_text("no zip file")
    with pytest.raises(UserError, match="cannot be read as weights"):
        weights.load(network(), str(tmp_path / "text.pt"))


# ---- the identity ---------------------------------------------------------------------------------------------------


def starting_from(path: Path | str) -> Spec:
    return resolve(load("base", [f"model.weights={path}"]))


def test_the_content_counts_and_not_the_place(tmp_path: Path):
    for name in ("one.pt", "two.pt"):
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "three.pt").write_bytes(b"others")
    one, two, three = (identity(starting_from(tmp_path / f"{name}.pt")) for name in ("one", "two", "three"))
    assert one == two != three
    assert identity(resolve(load("base"))) not in (one, three)
    (tmp_path / "one.pt").write_bytes(b"others too")
    assert identity(starting_from(tmp_path / "one.pt")) not in (one, three)


def test_no_file_no_identity(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.pt: No such file or directory; a run's weights\.pt"):
        identity(starting_from(tmp_path / "absent.pt"))


@pytest.mark.parametrize("key", weights.CONTAINERS)
def test_the_state_dict_of_a_training_script_is_found(tmp_path: Path, key: str):
    """Beside what else the script kept, and with the names of DDP."""
    state = {f"module.{name}": tensor for name, tensor in network().state_dict().items()}
    assert_loaded(saved(tmp_path / "script.pt", {key: state, "epoch": 3, "optimizer": {"state": {}}, "arch": "x"}))


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path):
    path = saved(tmp_path / "note.pt", {"epoch": 3, "note": "none"})
    with pytest.raises(UserError, match=r"nor under model, state_dict, .*; its keys: epoch, note"):
        weights.load(network(), path)


def test_weights_that_were_changed_after_the_run_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pt"
    checkpoint.write(path, "0" * 8, 3, {"model": network().state_dict()})
    write_json(tmp_path / "result.json", seal({"status": "done"}, tmp_path))
    assert_loaded(str(path))
    content = bytearray(path.read_bytes())
    place = content.find(network().state_dict()["3.weight"].numpy().tobytes()[:64])
    content[place + 3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"weights\.pt is damaged or was changed: the result beside it"):
        weights.load(network(), str(path))


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match=r"pipe\.pt is a pipe, not a file"):
        weights.content_hash(str(tmp_path / "pipe.pt"))
