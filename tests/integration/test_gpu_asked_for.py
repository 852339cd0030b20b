"""What takes a GPU is refused before anything starts where none is, unless it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import Ham, one_message
from small_runs import write_config

from experiments.config.files import known_configs
from experiments.config.identity import identity
from experiments.config.resolve import load, resolve
from experiments.config.rules import takes_gpu

ON_CPU = "resources.cpu_only=true"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def amp(tmp_path: Path) -> Path:
    sweep = {"rows": {"Dense": None}, "seeds": [0]}
    return write_config(tmp_path / "amp.yaml", runtime__amp="bf16", schedule__epochs=1, sweep=sweep)


@pytest.mark.parametrize("command", [("run", "sweep=null"), ("sweep",), ("run-cell", 0)])
def test_mixed_precision_without_a_gpu(
    ham: Ham, amp: Path, tmp_path: Path, no_gpu: None, command: tuple[object, ...]
) -> None:
    name, *words = command
    out = tmp_path / "runs"
    one_message(
        ham(name, amp, *words, "--out", out),
        2,
        "runtime.amp: bf16 is for GPUs, and torch sees none here; to train without a GPU all the same, write "
        "resources.cpu_only=true",
    )
    assert not list(out.rglob("metrics.jsonl"))
    called = ham(name, amp, *words, ON_CPU, "--out", out)
    assert called.code == 0, called.err
    # a run that is finished is shown, wherever one looks
    assert ham(name, amp, *words, "--out", out).code == 0


def test_a_run_told_to_use_the_cpu(ham: Ham, amp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    called = ham("run", amp, "sweep=null", "runtime.device=cpu", "--out", tmp_path / "runs")
    one_message(called, 2, "bf16 is for GPUs, and runtime.device is cpu")


def test_a_dry_run_still_lists(ham: Ham, amp: Path, tmp_path: Path, no_gpu: None) -> None:
    assert "1 of 1 runs to do" in ham("sweep", amp, "--dry-run", "--out", tmp_path / "runs").out


def test_it_is_no_part_of_the_identity(amp: Path) -> None:
    spec = resolve(load(str(amp), ["sweep=null"]))
    assert identity(spec) == identity(resolve(load(str(amp), ["sweep=null", ON_CPU])))


@pytest.mark.parametrize("name", [name for name in known_configs() if "imagenet" in name or "resnet50" in name])
def test_every_table_of_imagenet_takes_a_gpu(name: str) -> None:
    words = ["data.root=/data/imagenet"]
    assert takes_gpu(resolve(load(name, words), calibrate=False)) is not None
    assert takes_gpu(resolve(load(name, [*words, ON_CPU]), calibrate=False)) is None


@pytest.mark.parametrize("size", [32, 64, 127])
def test_small_images_do_not(size: int) -> None:
    words = ["data.name=imagenet", "data.root=mine", f"data.image_size={size}"]
    assert takes_gpu(resolve(load("base", words))) is None
