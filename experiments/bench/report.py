"""The measured costs as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from .methods import BATCH, EPOCHS, Cost, Found

HEAD = ("method", "step", "updates", "over training", "memory", "set-up s")


def table(found: Found) -> str:
    """Times in steps of the optimizer, memory in copies of the weights."""
    lines = [
        f"{found.model}, {found.weights:,} prunable weights, {found.sparsity:.0%} sparse, {found.device}",
        f"A step of SGD with momentum takes {found.optimizer_ms:.2f} ms. Times are in such steps, beyond it.",
        "step: an ordinary training step. updates: one with that event.",
        f"over training: the mean over {EPOCHS} epochs of ImageNet in batches of {BATCH}, updates included.",
        "memory: peak beyond plain training, in copies of the weights.",
        "set-up: once, initial masks included, with small random images in place of data.",
        "",
    ]
    rows: list[Sequence[str]] = [HEAD]
    rows += [_row(cost) for cost in found.costs]
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(HEAD))]
    lines += ["".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def to_json(found: Found) -> str:
    """One object; times in steps of the optimizer, null where nothing was observed."""
    return json.dumps(asdict(found), indent=1)


def _row(cost: Cost) -> tuple[str, ...]:
    updates = ", ".join(f"{kind} {number:.2f}" for kind, number in cost.updates.items())
    numbers = (cost.step, cost.share)
    step, share = ("-" if number is None else f"{number:.3f}" for number in numbers)
    return (cost.name, step, updates or "-", share, f"{cost.memory:.2f}", f"{cost.initial_seconds:.2f}")
