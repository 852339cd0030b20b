"""Runs to lay out as jobs, and a scheduler made of shell scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.config.resolve import load, resolve
from experiments.config.sweep import Cell
from experiments.config.yaml_text import dump
from slurm.plan import Place
from slurm.profile import Profile
from slurm.profile import load as load_profile

TINY = {
    "data": {"name": "synthetic", "validation": 100, "batch_size": 50, "evaluate_on": "validation"},
    "model": {"name": "mlp_bn"},
    "schedule": {"epochs": 1},
    "tracking": {"wandb": "disabled"},
}
PLACE = Place(
    folder=Path("/shared/runs/table/submissions/ab12cd34"),
    sweep=Path("/shared/runs/table"),
    snapshot=Path("/shared/runs/.snapshots/0123456789abcdef"),
    python="python",
)


def cells(folder: Path, count: int, *overrides: str, name: str = "run") -> list[Cell]:
    """Runs of one configuration with ascending seeds."""
    path = folder / "plan.yaml"
    path.write_text(dump(TINY))
    spec = resolve(load(str(path), overrides))
    return [
        Cell("Row", {}, seed, spec.model_copy(update={"seed": seed}), "0a1b2c3d", f"{name}-0a1b2c3d-s{seed}")
        for seed in range(count)
    ]


def profile_of(folder: Path, **keys: object) -> Profile:
    """The default profile with some keys changed."""
    path = folder / "mine.yaml"
    path.write_text(dump(keys) if keys else "")
    return load_profile(str(path))


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> Path:
    """Put shell scripts first on the PATH, each of which notes its arguments; the folder of the notes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in commands.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\n{body}\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def calls(folder: Path, name: str) -> list[str]:
    """How a script was called."""
    path = folder / f"{name}.calls"
    return path.read_text().splitlines() if path.exists() else []
