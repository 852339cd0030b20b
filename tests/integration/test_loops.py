"""The loops that docs/optimizer.md shows: each trains, saves with its framework's own means, and goes on bit-equal.

A run leaves checkpoints on its way. A new process that is given an early one alone, as after a death, has to end with
the weights and the optimizer state of the undisturbed run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import package

# imports take most of it, and many times as long on a busy machine
pytestmark = [pytest.mark.integrations, pytest.mark.timeout(900)]

SCRIPTS = Path(__file__).with_name("scripts")
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Loop:
    """What a framework's script needs and leaves: ``early`` is put into a new folder as ``found``."""

    needs: tuple[str, ...]
    early: str
    found: str
    left: tuple[str, ...]
    alpha: float
    switched: tuple[bool, ...]  # `ham` of each parameter group
    accuracy: float  # in %, far above the 10 of guessing and below what each reaches


EPOCHS = range(4)
LOOPS = {
    "plain": Loop((), "epoch-002.pt", "epoch-002.pt", tuple(f"epoch-{n + 1:03}.pt" for n in EPOCHS), 10, (True,), 65),
    "timm": Loop(
        (),
        "checkpoint-1.pth.tar",
        "last.pth.tar",
        tuple(f"checkpoint-{n}.pth.tar" for n in EPOCHS),
        50,
        (False, True),
        40,
    ),
    "trainer": Loop(
        ("transformers", "accelerate"),
        "checkpoint-30",
        "checkpoint-30",
        ("checkpoint-30", "checkpoint-60", "checkpoint-80"),
        20,
        (True, False),
        50,
    ),
    "lightning": Loop(
        ("lightning",), "epoch=001.ckpt", "epoch=001.ckpt", tuple(f"epoch={n:03}.ckpt" for n in EPOCHS), 10, (True,), 65
    ),
}
FILES = {
    "plain": "epoch-004.pt",
    "timm": "last.pth.tar",
    "trainer": "checkpoint-80/optimizer.pt",
    "lightning": "epoch=003.ckpt",
}
# two workers, each of which trains a network once
NAMES = [
    pytest.param(name, marks=pytest.mark.xdist_group("sgd" if name in {"plain", "lightning"} else "adamw"))
    for name in LOOPS
]


def run(name: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """The script in a process of its own: test accuracy, and what it ended with."""
    command = [sys.executable, SCRIPTS / f"{name}_loop.py", folder]
    called = subprocess.run(
        command, env={**os.environ, **OFFLINE}, cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert called.returncode == 0, called.stderr
    accuracy = float(called.stdout.rsplit("accuracy ", 1)[1])
    return accuracy, torch.load(folder / "end.pt", weights_only=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"end.pt"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``whole(name)``: the folder, accuracy and end of an undisturbed run, made when first asked for."""
    made: dict[str, tuple[Path, float, dict[str, Any]]] = {}

    def of(name: str) -> tuple[Path, float, dict[str, Any]]:
        for needed in LOOPS[name].needs:
            package(needed)
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = folder, *run(name, folder)
        return made[name]

    return of


@pytest.mark.parametrize("name", NAMES)
def test_a_run_learns_and_a_run_from_its_checkpoint_ends_alike(name: str, whole: Any, tmp_path: Path) -> None:
    loop = LOOPS[name]
    folder, accuracy, end = whole(name)
    assert accuracy > loop.accuracy
    assert names(folder) >= set(loop.left)
    saved, copied = folder / loop.early, tmp_path / loop.found
    shutil.copytree(saved, copied) if saved.is_dir() else shutil.copy(saved, copied)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "last.pth.tar"}
    again, resumed = run(name, tmp_path)
    # it did go on: nothing was written again that an earlier step would write
    assert names(tmp_path) & set(loop.left) == set(
        loop.left[loop.left.index(loop.early) + (loop.early != loop.found) :]
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again == accuracy
    assert_equal(resumed, end, name)


def assert_equal(one: Any, other: Any, where: str) -> None:
    """Equal structures of equal tensors, bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}.{index}")
    else:
        assert one == other, where


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_load_without_trust_and_hold_hams_options(name: str, whole: Any) -> None:
    folder, _, end = whole(name)
    content = torch.load(folder / FILES[name], weights_only=True)
    state = content.get("optimizer") or content.get("optimizer_states", [content])[0]
    assert_equal(state["state"], end["optimizer"]["state"], name)
    assert len(state["state"]) > 5  # the base's moments
    groups = state["param_groups"]
    assert [(group["alpha"], group["beta"]) for group in groups] == [(LOOPS[name].alpha, 1e-3)] * len(groups)
    assert tuple(group["ham"] for group in groups) == LOOPS[name].switched


@pytest.mark.xdist_group("sgd")
def test_lightning_and_the_plain_loop_train_one_network(whole: Any) -> None:
    """Same data, order, schedule and clipping: Lightning's closures change no bit."""
    assert_equal(whole("lightning")[2]["model"], whole("plain")[2]["model"], "model")
