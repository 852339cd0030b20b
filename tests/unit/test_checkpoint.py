"""Checkpoints come back exactly, or are refused with a reason, and nothing in them is executed."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import checkpoint
from experiments.errors import RunFailure

STATE: dict[str, Any] = {
    "step": 3,
    "model": {
        "weight": torch.arange(12.0).reshape(3, 4),
        "wide": torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last),
    },
    "masks": {"weight": torch.tensor([True, False])},
    "rng": torch.arange(20, dtype=torch.uint8),
    "rest": [1, 2.5, "text", None, True, {"nested": []}],
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, "ab12cd34", 7, STATE)
    return path


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def test_it_comes_back(saved: Path) -> None:
    assert equal(checkpoint.load(saved, "ab12cd34", 7), STATE)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(("identity", "seed"), [("ab12cd35", 7), ("ab12cd34", 8)])
def test_that_of_another_run_is_refused(saved: Path, identity: str, seed: int) -> None:
    with pytest.raises(RunFailure, match=r"belongs to another run \(ab12cd34, seed 7\); remove it") as caught:
        checkpoint.load(saved, identity, seed)
    assert caught.value.where == str(saved)


def test_a_truncated_one_is_refused_at_every_length(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [*range(0, len(whole), 199), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(RunFailure, match="damaged or foreign"):
            checkpoint.load(saved, "ab12cd34", 7)


def test_a_damaged_one_is_refused_or_whole_all_the_same(saved: Path) -> None:
    """Bits of padding and of file names may change without a change of content; the content may not."""
    whole, refused = saved.read_bytes(), 0
    draw = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        saved.write_bytes(damaged)
        try:
            assert equal(checkpoint.load(saved, "ab12cd34", 7), STATE)
        except RunFailure:
            refused += 1
    assert refused > 75


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for content in ({"state_dict": STATE["model"]}, STATE["model"]["weight"], [1, 2], "text"):
        torch.save(content, path)
        with pytest.raises(RunFailure, match="not a checkpoint of this suite; remove it"):
            checkpoint.load(path, "ab12cd34", 7)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(RunFailure, match="damaged or foreign"):
        checkpoint.load(path, "ab12cd34", 7)
    for junk in (b"", b"PK\x03\x04", b"not a checkpoint", bytes(range(256)) * 9):
        path.write_bytes(junk)
        with pytest.raises(RunFailure, match="damaged or foreign"):
            checkpoint.load(path, "ab12cd34", 7)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "checkpoint.pt", tmp_path / "exploded"
    content = {"format": checkpoint.FORMAT, "identity": "ab12cd34", "seed": 7, "state": Bomb(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(RunFailure, match="damaged or foreign"):
        checkpoint.load(path, "ab12cd34", 7)
    assert not mark.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb is none"


def test_an_unreadable_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path / "checkpoint.pt", "ab12cd34", 7)


def test_a_failed_save_keeps_the_old_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("experiments.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(saved, "ab12cd34", 7, STATE | {"step": 4})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
