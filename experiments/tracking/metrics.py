"""The names under which W&B shows a run: one row of its history per line of ``metrics.jsonl``, and its summary.

W&B makes a section of what stands before the first ``/``. No name of the summary is one of the history, since W&B would
write the last row over it. No name has a dot: for some of those that have, W&B forgets that it is to summarise none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.rundir.files import finite

EVERY = {"step": "train/step", "epoch": "epoch"}
"""Keys of every line."""

EPOCH = {
    "loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "lr": "train/lr",
    "level": "train/level",
    "validation_loss": "val/loss",
    "validation_accuracy": "val/accuracy",
    "density": "sparsity/density",
    "sign_flips_initial": "flips/initial",
    "sign_flips_previous": "flips/previous",
    "overlap_initial": "mask/overlap_initial",
    "overlap_previous": "mask/overlap_previous",
    "train_flops_fraction": "cost/flops_so_far",
    "seconds": "cost/seconds_so_far",
    "step_ms": "cost/step_ms",
    "images_per_s": "cost/images_per_s",
    "peak_memory_gib": "cost/peak_memory_gib",
    "gpu_utilisation": "cost/gpu_utilisation",
}
"""Keys of the lines of epochs; other keys go below ``train/``, those of mappings below the mapping's own name."""

LAYERS = {"layer_density": "layers/{layer}/density"}
"""Keys of the lines of epochs that map a layer to its number."""

EVENT = "mask/{event}/{key}"
"""What a method did to the masks, such as ``mask/update/changed``."""

SUMMARY = {
    "loss": "{part}/loss",
    "accuracy": "{part}/accuracy",
    "evaluated": "{part}/images",
    "average_accuracy": "{part}/average_accuracy",
    "average_loss": "{part}/average_loss",
    "best_validation_accuracy": "best_val/accuracy",
    "best_validation_epoch": "best_val/epoch",
    "sparsity": "sparsity/realised",
    "target_sparsity": "sparsity/target",
    "nonzero": "sparsity/nonzero",
    "prunable_weights": "sparsity/prunable_weights",
    "inference_flops_fraction": "cost/inference_flops",
    "training_flops_fraction": "cost/training_flops",
    "seconds": "cost/seconds",
}
"""Keys of ``result.json``; other keys go below ``final/``. The part is ``test``, or ``tune`` on validation."""

NOT_SHOWN = ("identity", "seed", "files", "checksum")
"""Keys of ``result.json`` that are in the configuration of the W&B run, or say nothing there."""

CLOCKS = ("cost/",)
"""Beginnings of the names whose values depend on the time and not on the run alone."""

AXES = dict.fromkeys(("train/*", "val/*", "sparsity/*", "flips/*", "layers/*", "cost/*"), "epoch") | {
    "mask/*": "train/step",
    "ham/*": "train/step",
}
"""What W&B draws the names of the history over."""


def row(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the row of W&B's history for one line of ``metrics.jsonl``: its numbers under their names there."""
    kind, event = line.get("kind"), line.get("event")
    named: dict[str, float] = {}
    for key, value in _numbers(line):
        if key in EVERY:
            named[EVERY[key]] = value
        elif kind == "event":
            named[EVENT.format(event=event, key=key)] = value
        elif kind == "epoch":
            named[_of_epoch(key)] = value
        else:
            named[key if "/" in key else f"{kind}/{key}"] = value
    return _without_dots(named)


def _of_epoch(key: str) -> str:
    whole, _, layer = key.partition("/")
    if layer and whole in LAYERS:
        return LAYERS[whole].format(layer=layer)
    return EPOCH.get(key) or (key if layer else f"train/{key}")


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return W&B's summary of a run for its ``result.json``."""
    part = "test" if result.get("accuracy_on") == "test" else "tune"
    named: dict[str, Any] = {}
    for key, value in result.items():
        if key in NOT_SHOWN or value is None:
            continue
        if key == "layers":
            for name, layer in value.items():
                named[f"final/layers/{name}/density"] = layer["nonzero"] / layer["size"]
        elif key == "events":
            named |= {f"final/events/{name}": count for name, count in value.items()}
        elif isinstance(value, (dict, list)):
            named[f"final/{key}"] = len(value)
        else:
            named[SUMMARY.get(key, f"final/{key}").format(part=part)] = value
    return _without_dots(finite(named))


def _without_dots(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "/"): value for name, value in named.items()}


def _numbers(line: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{key}/")
        elif isinstance(value, (int, float)):
            yield f"{before}{key}", value
