"""Names of the files of runs and sweeps, and the keys outside a run's identity; no other module spells them."""

from __future__ import annotations

import re

# a run's folder
SPEC, ENVIRONMENT = "spec.yaml", "environment.json"
METRICS, LOG = "metrics.jsonl", "log.txt"
RESULT, FAILURE, WEIGHTS = "result.json", "failure.json", "weights.pt"
PREDICTIONS = "predictions.npz"
ATTEMPTS, LEDGER, HEARTBEAT = "attempts", "ledger.jsonl", "heartbeat"
CHECKPOINTS = "checkpoints"
MIRRORED = "mirrored.txt"
FILES = (SPEC, ENVIRONMENT, METRICS, LOG, RESULT, FAILURE, WEIGHTS, PREDICTIONS, LEDGER, HEARTBEAT, MIRRORED)
_CHECKPOINT = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.pt")

RUN = re.compile(r"(?P<slug>.+?)-(?P<identity>[0-9a-f]{8})-s(?P<seed>\d+)")
"""Name of a run's folder, where a command has named it."""

# a sweep's folder
MANIFEST, SUBMISSIONS = "sweep.json", "submissions"
CHOICES, DECAYS = "tuning.yaml", "calibration.yaml"
"""What a tuning has found out: the best setting of each row, and the threshold decays of its settings."""
CANCELLED = "cancelled"
"""Folder below `SUBMISSIONS` with a record of each cancellation."""

MEASURED = ("seconds", "step_ms", "images_per_s", "peak_memory_gib", "gpu_utilisation")
"""Entries of metrics and results that differ between equal runs."""

NOT_IDENTIFYING = (
    "extends",
    "sweep",
    "seed",
    "label",
    "tracking",
    "checkpoint",
    "resources",
    "evaluate",
    "data.root",
    "data.workers",
    "runtime.rank_timeout",
)
"""Keys outside the identity of a run, together with all keys below them.

``extends`` and ``sweep`` do not occur in a resolved specification; they are listed for readers of unresolved ones.
"""


COMPARED_AT = (
    *("topology.sparsity", "model.name", "data.name"),
    *("data.validation", "data.train_limit", "data.evaluate_on"),
)
"""Keys that say at what and on which images methods are compared, so that no best value of them can be chosen."""


def identifies(key: str) -> bool:
    """Return whether a dotted key is part of the identity of a run."""
    return not below(key, NOT_IDENTIFYING)


def below(key: str, names: tuple[str, ...]) -> bool:
    """Return whether a dotted key equals one of some names or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def checkpoint(step: int, digest: str) -> str:
    """Return the name of a checkpoint's file.

    Args:
        step: Steps done.
        digest: The first 16 hexadecimal digits of the SHA-256 of its content.
    """
    return f"step-{step:08}-{digest}.pt"


def parse_checkpoint(name: str) -> tuple[int, str] | None:
    """Parse the name of a checkpoint's file into step and digest; return None for any other file."""
    match = _CHECKPOINT.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def log_of(rank: int) -> str:
    """Return the name of one rank's log file."""
    return f"log-rank{rank}.txt" if rank else LOG
