"""The loops that the pages show: each trains, saves with its framework's own means, and goes on bit-equal.

A run leaves checkpoints on its way. A new process that is given an early one alone, as after a death, has to end with
the weights, the optimizer state and the masks of the undisturbed run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packages import package

import sparsity

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
    state: str  # the file with the optimizer's last state
    accuracy: float  # in %, far above the 10 of guessing and below what each reaches


EPOCHS = range(4)
OWN = tuple(f"epoch-{n + 1:03}.pt" for n in EPOCHS)
TIMM = tuple(f"checkpoint-{n}.pth.tar" for n in EPOCHS)
LIGHTNING = tuple(f"epoch={n:03}.ckpt" for n in EPOCHS)
TRAINER = ("checkpoint-30", "checkpoint-60", "checkpoint-80")
ACCELERATE = tuple(f"epoch-{n + 1:03}" for n in EPOCHS)
PACKAGES = {"trainer": ("transformers", "accelerate"), "lightning": ("lightning",), "accelerate": ("accelerate",)}
HAM_LOOPS = {
    "plain": Loop((), OWN[1], OWN[1], OWN, OWN[-1], 65),
    "timm": Loop((), TIMM[1], "last.pth.tar", TIMM, "last.pth.tar", 40),
    "trainer": Loop(PACKAGES["trainer"], TRAINER[0], TRAINER[0], TRAINER, "checkpoint-80/optimizer.pt", 50),
    "lightning": Loop(PACKAGES["lightning"], LIGHTNING[1], LIGHTNING[1], LIGHTNING, LIGHTNING[-1], 65),
}
SPARSE_LOOPS = {
    "sparse_plain": replace(HAM_LOOPS["plain"], accuracy=50),
    "sparse_trainer": replace(HAM_LOOPS["trainer"], accuracy=50),
    "sparse_lightning": replace(HAM_LOOPS["lightning"], accuracy=50),
    "sparse_accelerate": Loop(
        PACKAGES["accelerate"], ACCELERATE[1], ACCELERATE[1], ACCELERATE, "epoch-004/optimizer.bin", 50
    ),
}
LOOPS = HAM_LOOPS | SPARSE_LOOPS
# alpha, and `ham` of each parameter group
GROUPS = {
    "plain": (10, (True,)),
    "timm": (50, (False, True)),
    "trainer": (20, (True, False)),
    "lightning": (10, (True,)),
}


def by_worker(names: Iterable[str]) -> list[Any]:
    """Two workers, each of which trains a network once; those that are compared are one worker's."""
    sgd = {"plain", "lightning", "sparse_trainer", "sparse_accelerate"}
    return [pytest.param(name, marks=pytest.mark.xdist_group("sgd" if name in sgd else "adamw")) for name in names]


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


@pytest.mark.parametrize("name", by_worker(LOOPS))
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


def saved_state(name: str, folder: Path) -> dict[str, Any]:
    """The optimizer's state in the last checkpoint."""
    content = torch.load(folder / LOOPS[name].state, weights_only=True)
    return content.get("optimizer") or content.get("optimizer_states", [content])[0]


@pytest.mark.parametrize("name", by_worker(HAM_LOOPS))
def test_checkpoints_load_without_trust_and_hold_hams_options(name: str, whole: Any) -> None:
    folder, _, end = whole(name)
    state = saved_state(name, folder)
    assert_equal(state["state"], end["optimizer"]["state"], name)
    assert len(state["state"]) > 5  # the base's moments
    groups = state["param_groups"]
    alpha, switched = GROUPS[name]
    assert [(group["alpha"], group["beta"]) for group in groups] == [(alpha, 1e-3)] * len(groups)
    assert tuple(group["ham"] for group in groups) == switched


@pytest.mark.parametrize("name", by_worker(SPARSE_LOOPS))
def test_a_sparse_run_ends_at_its_sparsity_and_its_checkpoints_hold_masks(name: str, whole: Any) -> None:
    folder, _, end = whole(name)
    masks = sparsity.MaskSet.from_state_dict(end["sparse"]["masks"])
    total = sum(masks.sizes.values())
    assert sum(masks.num_active().values()) == pytest.approx(0.2 * total, abs=len(masks))  # whole numbers in each layer
    for model in {"model", "average"} & end.keys():
        assert all(not end[model][weight][~mask].any() for weight, mask in masks.items())
    assert end["sparse"]["step"] == 80
    assert end["sparse"]["event_counts"]["update"] > 5
    state = saved_state(name, folder)
    assert_equal(state["state"], end["optimizer"]["state"], name)
    if name == "sparse_plain":
        state = torch.load(folder / LOOPS[name].state, weights_only=True)
    assert_equal(state["sparse"]["masks"], end["sparse"]["masks"], name)


@pytest.mark.xdist_group("sgd")
def test_lightning_and_the_plain_loop_train_one_network(whole: Any) -> None:
    """Same data, order, schedule and clipping: Lightning's closures change no bit."""
    assert_equal(whole("lightning")[2]["model"], whole("plain")[2]["model"], "model")


@pytest.mark.xdist_group("adamw")
def test_lightning_and_the_plain_loop_train_one_sparse_network(whole: Any) -> None:
    """Closures, a loss scaler, and a network that is loaded before its masks change no bit."""
    one, other = whole("sparse_lightning")[2], whole("sparse_plain")[2]
    assert_equal(one["model"], other["model"], "model")
    assert_equal(one["sparse"], other["sparse"], "sparse")
