"""A finished sweep as files alone, for commands that only read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ACCURACIES = {"Dense": [0.9, 0.91, 0.92], "RiGL": [0.8, 0.82, 0.84], "RiGL + HAM": [0.82, 0.85, 0.86]}


def finished_sweep(folder: Path) -> Path:
    """Write a sweep of three rows and three seeds into a new folder."""
    cells = []
    for row, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            hashed = f"{len(row):08x}"
            path = f"{row.replace(' + ', '-').lower()}-{hashed}-s{seed}"
            cells.append({"row": row, "column": {"optimizer.lr": 0.1}, "seed": seed, "identity": hashed, "path": path})
            _write_run(folder / path, row, hashed, seed, accuracy)
    manifest = {
        "name": "fake",
        "title": "A fake table",
        "column_keys": ["optimizer.lr"],
        "tuning_cells": 9,
        "notes": None,
    }
    _write(folder / "sweep.json", {**manifest, "baselines": {"RiGL + HAM": "RiGL"}, "cells": cells})
    return folder


def _write_run(folder: Path, row: str, hashed: str, seed: int, accuracy: float) -> None:
    sparsity = 0.0 if row == "Dense" else 0.9
    result = {
        "status": "done",
        "identity": hashed,
        "seed": seed,
        "accuracy": accuracy,
        "accuracy_on": "validation",
        "loss": 0.5,
        "evaluated": 1000,
        "best_validation_accuracy": accuracy,
        "best_validation_epoch": 2,
        "train_loss": 0.4,
        "sparsity": sparsity,
        "target_sparsity": sparsity or None,
        "prunable_weights": 1000,
        "nonzero": round(1000 * (1 - sparsity)),
        "inference_flops_fraction": 1 - sparsity,
        "training_flops_fraction": 1 - sparsity,
        "layers": {"fc.weight": {"size": 1000, "nonzero": round(1000 * (1 - sparsity))}},
        "events": {},
        "epochs": 2,
        "steps": 20,
        "seconds": 1.0,
    }
    _write(folder / "result.json", result)
    (folder / "log.txt").write_text(f"{row}, seed {seed}: finished\n")
    _write(folder / "environment.json", {"python": "3.11.7", "torch": "2.14.1", "threads": 1})
    (folder / "spec.yaml").write_text(f"label: {row}\nseed: {seed}\ntopology: {{name: rigl, sparsity: {sparsity}}}\n")
    epochs: list[dict[str, Any]] = [
        {
            "kind": "epoch",
            "epoch": epoch,
            "step": 10 * epoch,
            "loss": 1.0 / epoch,
            "train_accuracy": accuracy,
            "validation_accuracy": accuracy,
            "validation_loss": 0.5,
            "lr": 0.1,
            "density": 1 - sparsity,
            "seconds": 0.5,
        }
        for epoch in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
