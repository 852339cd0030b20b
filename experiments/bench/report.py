"""The measured costs as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from .methods import BATCH, EPOCHS, Cost, Found
from .optimizer import LISTING, FoundOptimizer, Timing

HEAD = ("method", "step", "updates", "over training", "memory", "set-up s")
LEAST_SPEED_UP, MOST_PASSES = 40, 2.5


def table(found: Found) -> str:
    """Return the costs of methods as a table: times in steps of the optimizer, memory in copies of the weights."""
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
    return "\n".join([*lines, *_aligned(rows)])


def optimizer_table(found: FoundOptimizer) -> str:
    """Return the times of HAM as tables, of whole steps first.

    Times are in milliseconds, and relative to the streaming pass, the listing and the base.
    """
    lines = [
        f"{found.model}, {found.weights:,} weights, {found.device}, {found.threads} threads, {found.rounds} rounds",
        f"A pass that reads weight and gradient and writes the weight takes {found.streaming_ms:.2f} ms.",
        "passes: time in such passes, median and quartiles. listing: how many times as long the published listing",
        "takes for the same part. base: time in steps of SGD with momentum. All by pairs of the same round.",
    ]
    for part, title in (("step", "a whole step"), ("rule", "HAM's part alone, by form and guards")):
        rows: list[Sequence[str]] = [(title, "ms", "passes", "", "listing", "base")]
        rows += [_timing(timing) for timing in found.timings if timing.part == part]
        lines += ["", *_aligned(rows)]
    return "\n".join([*lines, *_aims(found)])


def to_json(found: Found | FoundOptimizer) -> str:
    """Return the results as one JSON object, with null where nothing was observed."""
    return json.dumps(asdict(found), indent=1)


def _timing(timing: Timing) -> tuple[str, ...]:
    first, third = timing.quartiles
    listing = "" if timing.name == LISTING else f"{timing.listing:.1f} x"
    return (
        timing.name,
        f"{timing.ms:.2f}",
        f"{timing.floor:.2f}",
        f"{first:.2f}-{third:.2f}",
        listing,
        f"{timing.base:.2f}",
    )


def _aims(found: FoundOptimizer) -> list[str]:
    return [
        f"\nAims of the compiled form with both guards: the listing takes at least {LEAST_SPEED_UP} times as long: "
        f"{_met(timing.listing >= LEAST_SPEED_UP)}; at most {MOST_PASSES} passes: {_met(timing.floor <= MOST_PASSES)}."
        for timing in found.timings
        if (timing.part, timing.name) == ("rule", "compiled, NaN and norm")
    ]


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    return ["".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(cost: Cost) -> tuple[str, ...]:
    updates = ", ".join(f"{kind} {number:.2f}" for kind, number in cost.updates.items())
    numbers = (cost.step, cost.share)
    step, share = ("-" if number is None else f"{number:.3f}" for number in numbers)
    return (cost.name, step, updates or "-", share, f"{cost.memory:.2f}", f"{cost.initial_seconds:.2f}")
