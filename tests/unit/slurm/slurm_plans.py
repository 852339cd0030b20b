"""Runs to lay out as jobs, and a scheduler made of shell scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from experiments.config.identity import identity_with_data
from experiments.config.resolve import load, resolve
from experiments.config.sweep import Cell
from experiments.config.yaml_text import dump
from experiments.rundir.files import write_json
from slurm.plan import Place
from slurm.profile import Profile
from slurm.profile import load as load_profile
from slurm.scheduler.parse import QUEUE_FIELDS

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
    home=Path("/home/me/project"),
)


ACCEPTS = 'n=$(wc -l < "$(dirname "$0")/sbatch.calls"); echo "Submitted batch job $((100 + n))"'
CONFIG = "echo 'MaxArraySize            = 1001'"


def cells(
    folder: Path, count: int, *overrides: str, name: str = "run", row: str = "Row", known: bool = True
) -> list[Cell]:
    """Runs of one row with ascending seeds; `known`: whether their data can be read."""
    path = folder / "plan.yaml"
    path.write_text(dump(TINY))
    spec = resolve(load(str(path), overrides))
    hashed = identity_with_data(spec) if known else "0a1b2c3d"
    seeded = [spec.model_copy(update={"seed": seed}) for seed in range(count)]
    return [Cell(row, {}, one.seed, one, hashed, f"{name}-{hashed[:8]}-s{one.seed}") for one in seeded]


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


def scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> Path:
    """A scheduler that accepts all jobs and has none in its queue, where no script says otherwise."""
    known = {"sbatch": ACCEPTS, "srun": "", "squeue": "", "scancel": "", "scontrol": CONFIG, "sacct": ""}
    return install(folder / "bin", monkeypatch, **{**known, **commands})


def queued(job: str, name: str, state: str = "PENDING") -> str:
    """A line of squeue's about a job."""
    fields = (job, job.partition("_")[0], name, state, "Priority", "0", "", "INVALID", "1", "N/A", "N/A", "0")
    return "".join(text.ljust(width) for text, width in zip(fields, QUEUE_FIELDS.values(), strict=True))


def record(runs: Path) -> dict[str, Any]:
    """The record of the only submission of the sweep ``table``."""
    (path,) = (runs / "table" / "submissions").glob("*.json")
    return json.loads(path.read_text())


def finish(runs: Path, cell: Cell) -> None:
    """Write the result of a run of the sweep ``table``."""
    (runs / "table" / cell.path).mkdir(parents=True, exist_ok=True)
    done = {"status": "done", "identity": cell.identity, "seed": cell.seed, "accuracy": 0.5, "accuracy_on": "test"}
    done |= {"sparsity": 0.5, "prunable_weights": 2, "nonzero": 1}
    write_json(runs / "table" / cell.path / "result.json", done)
