"""Names of the files of runs and sweeps, and the keys that tell no two runs apart: each is written down here alone."""

from __future__ import annotations

import re

# a run's folder
SPEC, ENVIRONMENT = "spec.yaml", "environment.json"
METRICS, LOG = "metrics.jsonl", "log.txt"
RESULT, FAILURE, WEIGHTS = "result.json", "failure.json", "weights.pt"
ATTEMPTS, LEDGER, HEARTBEAT = "attempts", "ledger.jsonl", "heartbeat"
CHECKPOINTS = "checkpoints"
_CHECKPOINT = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.pt")

# a sweep's folder
MANIFEST, SUBMISSIONS = "sweep.json", "submissions"

NOT_IDENTIFYING = (
    *("extends", "sweep", "seed", "label", "tracking", "checkpoint", "resources"),
    *("data.root", "data.workers", "runtime.rank_timeout"),
)
"""Keys outside the identity of a run, with all keys below them.

``extends`` and ``sweep`` are no part of a resolved specification; they stand here for those who ask which keys count.
"""


def identifies(key: str) -> bool:
    """Say whether a dotted key counts for the identity of a run."""
    return not below(key, NOT_IDENTIFYING)


def below(key: str, names: tuple[str, ...]) -> bool:
    """Say whether a dotted key is one of some names or stands below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def checkpoint(step: int, digest: str) -> str:
    """Name the file of a checkpoint.

    Args:
        step: Steps done.
        digest: The first 16 hexadecimal digits of the SHA-256 of its content.
    """
    return f"step-{step:08}-{digest}.pt"


def parse_checkpoint(name: str) -> tuple[int, str] | None:
    """Read step and digest off the name of a checkpoint's file; None for any other file."""
    match = _CHECKPOINT.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def log_of(rank: int) -> str:
    """Name the log of one rank."""
    return f"log-rank{rank}.txt" if rank else LOG
