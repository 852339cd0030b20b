"""Checkpoints come back exactly, or are refused with a reason, and nothing in them is executed."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.errors import RunFailure
from experiments.rundir import checkpoint
from experiments.rundir.checkpoint import Checkpoints, found

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


RUN = ("ab12cd34", 7)


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    """Keeps two checkpoints."""
    return Checkpoints(tmp_path, *RUN, keep=2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def at(step: int) -> dict[str, Any]:
    return STATE | {"step": step}


def renamed(path: Path) -> Path:
    """Give a file the checksum of its content, as somebody who writes one by hand would."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return path.rename(path.with_name(f"step-00000003-{digest}.pt"))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def test_it_comes_back(kept: Checkpoints, tmp_path: Path) -> None:
    assert kept.load() is None
    saved = kept.save(3, STATE)
    assert saved.path.parent == tmp_path / "checkpoints"
    assert saved.digest == hashlib.sha256(saved.path.read_bytes()).hexdigest()[:16]
    loaded = kept.load()
    assert loaded is not None
    assert loaded[0] == saved
    assert equal(loaded[1], STATE)
    assert names(tmp_path) == [f"step-00000003-{saved.digest}.pt"]


def test_the_newest_are_kept(kept: Checkpoints, tmp_path: Path) -> None:
    saved = [kept.save(step, at(step)) for step in (1, 5, 12, 123456789)]
    assert found(tmp_path) == [saved[3], saved[2]]
    assert [name[:13] for name in names(tmp_path)] == ["step-00000012", "step-12345678"]
    kept.clear()
    assert found(tmp_path) == []
    assert not (tmp_path / "checkpoints").exists()


def test_one_written_again_at_the_same_step(kept: Checkpoints, tmp_path: Path) -> None:
    kept.save(1, at(1))
    kept.save(2, at(2))
    kept.save(2, at(2))
    assert [saved.step for saved in found(tmp_path)] == [2, 1]


@pytest.mark.parametrize(("identity", "seed"), [("ab12cd35", 7), ("ab12cd34", 8)])
def test_that_of_another_run_is_refused(kept: Checkpoints, tmp_path: Path, identity: str, seed: int) -> None:
    saved = kept.save(3, STATE)
    match = r"belongs to another run \(ab12cd34, seed 7\); remove the folder checkpoints"
    with pytest.raises(RunFailure, match=match) as caught:
        Checkpoints(tmp_path, identity, seed).load()
    assert caught.value.where == str(saved.path)


def test_a_damaged_newest_falls_back_loudly(
    kept: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut at any length or with any bit flipped, also where only padding is hit."""
    older, newer = kept.save(2, at(2)), kept.save(3, at(3))
    whole, draw = newer.path.read_bytes(), random.Random(0)
    damages = [whole[:length] for length in [*range(0, len(whole), 199), len(whole) - 1]]
    for _ in range(50):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        damages.append(bytes(flipped))
    for damage in damages:
        newer.path.write_bytes(damage)
        caplog.clear()
        loaded = kept.load()
        assert loaded is not None
        assert loaded[0] == older
        assert equal(loaded[1], at(2))
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert f"{newer.path}: this checkpoint is damaged" in record.getMessage()
        assert "falling back to the checkpoint before it" in record.getMessage()
    # the next one takes the damaged one's place
    kept.save(4, at(4))
    assert [saved.step for saved in found(tmp_path)] == [4, 3]
    newer.path.write_bytes(damages[3])
    kept.save(1, at(1))
    assert [saved.step for saved in found(tmp_path)] == [1], "what is ahead of the newest belongs to a lost state"


def test_all_damaged_is_a_new_start(kept: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    saved = [kept.save(step, at(step)) for step in (2, 3)]
    for one in saved:
        one.path.write_bytes(one.path.read_bytes()[:-1])
    assert kept.load() is None
    assert all(f"{one.path}: this checkpoint is damaged" in caplog.text for one in saved)


def test_foreign_files_are_refused(kept: Checkpoints, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints/new.pt"
    path.parent.mkdir()
    for content in ({"state_dict": STATE["model"]}, STATE["model"]["weight"], [1, 2], torch.nn.Linear(2, 2)):
        torch.save(content, path)
        named = renamed(path)
        with pytest.raises(RunFailure, match="not a checkpoint of this suite"):
            kept.load()
        named.unlink()
    for junk in (b"", b"PK\x03\x04", b"not a checkpoint", bytes(range(256)) * 9):
        path.write_bytes(junk)
        named = renamed(path)
        with pytest.raises(RunFailure, match="not a checkpoint of this suite"):
            kept.load()
        named.unlink()
    path.write_bytes(b"other files are none of ours")
    assert kept.load() is None


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_pickle_does_not_run(kept: Checkpoints, tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "checkpoints/new.pt", tmp_path / "exploded"
    path.parent.mkdir()
    content = {"format": checkpoint.FORMAT, "identity": RUN[0], "seed": RUN[1], "state": Bomb(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    path = renamed(path)
    with pytest.raises(RunFailure, match="not a checkpoint of this suite"):
        kept.load()
    assert not mark.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb is none"


def unreadable(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something in a checkpoint's place that cannot be read, or make its disk fail."""
    if kind == "EIO":
        real = os.open

        def failing(name: Path, *rest: Any, **more: Any) -> int:
            if name == path:
                raise OSError(5, "Input/output error")
            return real(name, *rest, **more)

        monkeypatch.setattr("experiments.rundir.reading.os.open", failing)
        return
    path.unlink()
    path.mkdir() if kind == "a folder" else os.mkfifo(path)


@pytest.mark.parametrize("kind", ["EIO", "a folder", "a pipe"])
def test_one_that_cannot_be_read_is_passed_over(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    older, newest = kept.save(2, at(2)), kept.save(3, at(3))
    unreadable(newest.path, kind, monkeypatch)
    loaded = kept.load()
    assert loaded is not None
    assert loaded[0] == older
    assert f"{newest.path}: this checkpoint" in caplog.text
    assert "falling back to the checkpoint before it" in caplog.text
    kept.save(4, at(4))  # what stands in its place hinders no further one
    kept.clear()
    # alone it may pass, so the run is not begun anew
    (tmp_path / "alone").mkdir()
    fresh = Checkpoints(tmp_path / "alone", *RUN)
    path = fresh.save(3, STATE).path
    unreadable(path, kind, monkeypatch)
    with pytest.raises(RunFailure, match="there is no older one that is whole") as caught:
        fresh.load()
    assert caught.value.where == str(path)


def test_a_failed_save_keeps_the_old_ones(kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (2, 3):
        kept.save(step, at(step))
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("experiments.rundir.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            kept.save(4, at(4))
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
