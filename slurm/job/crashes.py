"""Detection of runs that crash repeatedly without progress."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.rundir import names

_LINES = 3
_TAIL = 1 << 14


def in_vain(
    owners: Iterable[Mapping[str, Any]], records: Iterable[Mapping[str, Any]], job: str | None, restarts: int
) -> int:
    """Count the consecutive starts of a job, up to the last one, that did not bring its run to a new checkpoint.

    Starts without a trace count, such as one that was killed while Python was loading. So do starts that were stopped
    before they could write a checkpoint. Starts of other jobs do not count.

    Args:
        owners: The records of the run's attempts, see `experiments.rundir.attempts`.
        records: The run's ledger.
        job: The job, ``1234`` or ``1234_5``.
        restarts: How often the scheduler has restarted the job, including this start.
    """
    start_of = {owner["attempt"]: owner.get("restarts", 0) for owner in owners if owner.get("job") == job}
    first: dict[int, int] = {}
    fruitful = -1
    for record in records:
        attempt, step = record["attempt"], record["step"]
        if attempt not in start_of:
            continue
        if record["event"] == "start":
            first[attempt] = step
        elif record["event"] == "checkpoint" and step > first.get(attempt, step):
            fruitful = max(fruitful, start_of[attempt])
    return restarts - fruitful - 1


def last_words(folder: Path) -> str:
    """Return the last lines of a run's log and of its job's standard error, joined to one line."""
    found = _tail(folder / names.LOG)
    if "SUBMITIT_FOLDER" in os.environ:
        import submitit

        found += _tail(submitit.JobEnvironment().paths.stderr)
    return " / ".join(found) or "none"


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]
