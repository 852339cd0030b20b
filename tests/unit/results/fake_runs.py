"""Write run folders as the trainer leaves them, with numbers of one's choice."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.rundir.result import seal

LAYERS = {"conv1.weight": 144, "block1.conv1.weight": 2304, "block2.conv1.weight": 18432, "fc.weight": 640}
SPEC: dict[str, Any] = {
    "label": None,
    "data": {"name": "fashion_mnist", "root": None, "batch_size": 128, "validation": 1000, "evaluate_on": "test"},
    "model": {"name": "resnet8"},
    "topology": {"name": "dense", "sparsity": 0.0},
    "representation": {"name": "plain"},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5.0e-4, "ham": None},
    "schedule": {"name": "cosine", "epochs": 4, "warmup_epochs": 0},
    "runtime": {"device": "auto", "channels_last": False, "amp": "none"},
    "seed": 0,
}
ENVIRONMENT = {
    "python": "3.11.7",
    "torch": "2.14.1",
    "numpy": "2.3.0",
    "platform": "Linux-6.1-x86_64",
    "cpu": "Example CPU",
    "git_commit": "0123abc",
    "ham_suite": "0.1.0",
    "threads": 1,
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n")


def result(accuracy: float, seed: int = 0, target: float | None = None, **changes: Any) -> dict[str, Any]:
    """Content of a result.json; ``changes`` replace or add keys."""
    sparsity = changes.pop("sparsity", target or 0.0)
    kept = {name: size - round(size * sparsity) for name, size in LAYERS.items()}
    total, left = sum(LAYERS.values()), sum(kept.values())
    return {
        "status": "done",
        "identity": "0" * 8,
        "seed": seed,
        "accuracy": accuracy,
        "accuracy_on": "test",
        "loss": 0.5,
        "evaluated": 10000,
        "best_validation_accuracy": accuracy + 0.01,
        "best_validation_epoch": 3,
        "train_loss": 0.4,
        "sparsity": 1 - left / total,
        "target_sparsity": target,
        "prunable_weights": total,
        "nonzero": left,
        "inference_flops_fraction": 1 - 0.95 * sparsity,
        "training_flops_fraction": 1 - 0.9 * sparsity,
        "layers": {name: {"size": size, "nonzero": kept[name]} for name, size in LAYERS.items()},
        "events": {"update": 23} if target else {},
        "epochs": 4,
        "steps": 124,
        "seconds": 7.9,
    } | changes


def write_metrics(
    path: Path, accuracy: float, epochs: int = 4, steps_per_epoch: int = 31, density: float = 1.0
) -> None:
    """Write a curve that ends in ``accuracy``, with a mask event in between."""
    lines = []
    for epoch in range(1, epochs + 1):
        value = accuracy - 0.25 * math.exp(-3 * epoch / epochs) + 0.25 * math.exp(-3)
        lines.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": epoch * steps_per_epoch,
                "loss": 1 - value,
                "train_accuracy": value,
                "validation_accuracy": value,
                "lr": 0.1,
                "density": density,
            }
        )
        lines.append({"kind": "event", "event": "update", "step": epoch * steps_per_epoch, "epoch": float(epoch)})
    path.mkdir(parents=True, exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(path: Path, spec: Mapping[str, Any] | None = None, outcome: Mapping[str, Any] | None = None) -> Path:
    """Write one run's folder: its configuration, environment, and result where ``outcome`` is given."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "spec.yaml").write_text(yaml.safe_dump({**SPEC, **(spec or {})}, sort_keys=False))
    write_json(path / "environment.json", ENVIRONMENT)
    if outcome is not None:
        write_metrics(path, outcome["accuracy"], density=1 - outcome["sparsity"])
        write_json(path / "result.json", seal(outcome, path))
    return path


def overridden(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`SPEC` with dotted keys replaced."""
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    for key, value in overrides.items():
        *parents, leaf = key.split(".")
        level = spec
        for parent in parents:
            level = level[parent]
        level[leaf] = value
    return spec


def write_sweep(
    directory: Path,
    accuracies: Mapping[str, Sequence[float | None]] | Callable[[str, Mapping[str, Any], int], float | None],
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Sequence[Mapping[str, Any]] = ({},),
    seeds: Sequence[int] = (0, 1, 2),
    baselines: Mapping[str, str] | None = None,
    **manifest: Any,
) -> Path:
    """Write a sweep with its manifest.

    Args:
        directory: Where to.
        accuracies: Row to accuracies by seed, or a function of (row, column, seed); None leaves the run out.
        rows: Row to configuration overrides; the rows of ``accuracies`` by default. A row without
            ``topology.name`` is dense: it has no target and runs once a seed for all sparsities.
        columns: Columns in table order.
        seeds: Seeds.
        baselines: Addition to plain row.
        manifest: Further keys of the manifest.
    """
    rows = rows if rows is not None else {row: {} for row in accuracies}  # type: ignore[union-attr]
    cells = []
    for row, overrides in rows.items():
        for column in columns:
            for place, seed in enumerate(seeds):
                dense = "topology.name" not in overrides
                spec = overridden(
                    {
                        **overrides,
                        **{key: value for key, value in column.items() if not dense or key != "topology.sparsity"},
                        "label": row,
                        "seed": seed,
                    }
                )
                target = None if dense else spec["topology"]["sparsity"]
                slug = row.lower().replace(" + ", "-").replace(" ", "-")
                identity = f"{random.Random(slug + repr(target) + spec['model']['name']).getrandbits(32):08x}"
                path = f"{slug}-{identity}-s{seed}"
                cells.append({"row": row, "column": dict(column), "seed": seed, "identity": identity, "path": path})
                value = accuracies(row, column, seed) if callable(accuracies) else accuracies[row][place]
                if value is not None:
                    write_run(directory / path, spec, result(value, seed, target, identity=identity))
    head = {
        "name": directory.name,
        "title": "A sweep",
        "column_keys": list(columns[0]),
        "tuning_cells": None,
        "notes": None,
        "baselines": dict(baselines or {}),
        "cells": cells,
    }
    write_json(directory / "sweep.json", head | manifest)
    return directory


def fail(path: Path, error: str) -> None:
    """Turn a finished run into a failed one."""
    for name in ("result.json", "metrics.jsonl"):
        (path / name).unlink(missing_ok=True)
    write_json(path / "failure.json", {"status": "failed", "error": error, "step": 12})


def forget(path: Path) -> None:
    """Remove a run's folder: it never started."""
    shutil.rmtree(path)


def write_attempt(path: Path, number: int = 1, **changes: Any) -> None:
    """Write one attempt's claim, and the ledger's line about its start; ``changes`` replace or add keys."""
    claim = {
        "attempt": number,
        "pid": 1,
        "home": None,
        "host": "login",
        "started": None,
        "node": "n0",
        "job": None,
        "job_id": None,
        "restarts": 0,
        "ranks": 1,
        "time": 1000.0,
    } | changes
    write_json(path / "attempts" / f"{number:04}.json", claim)
    start = {"attempt": number, "event": "start", "step": changes.get("step", 0), "time": claim["time"]}
    with (path / "ledger.jsonl").open("a") as file:
        file.write(json.dumps(start) + "\n")


def write_heartbeat(path: Path, step: int, total: int = 124, attempt: int = 1, seconds: float = 1100.0) -> None:
    """Write a run's last sign of life."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "heartbeat").write_text(f"{attempt} {step} {total} {seconds:.2f}".ljust(79) + "\n")


def write_checkpoint(path: Path, step: int) -> None:
    """Write the name of a checkpoint."""
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    (path / "checkpoints" / f"step-{step:08}-{'0' * 16}.pt").touch()


def interrupt(path: Path, step: int = 31, **claim: Any) -> None:
    """Turn a finished run into one that stopped at a checkpoint; ``claim`` goes to `write_attempt`."""
    (path / "result.json").unlink(missing_ok=True)
    write_checkpoint(path, step)
    write_heartbeat(path, step)
    write_attempt(path, **({"ended": 1100.0, "reason": "stopped"} | claim))


def write_submission(
    directory: Path, tasks: Sequence[Sequence[str]], job: str | None = "12", identifier: str = "ab12cd34", **more: Any
) -> Path:
    """Write the record of a submission of one array; the folder of its logs."""
    array = {"name": f"ham-{directory.name}-{identifier}-0", "job": job, "tasks": [list(task) for task in tasks]}
    record = {"id": identifier, "time": 900.0, "profile": "main", "snapshot": "code", "arrays": [array], **more}
    write_json(directory / "submissions" / f"{identifier}.json", record)
    folder = directory / "submissions" / identifier
    folder.mkdir(exist_ok=True)
    return folder
