"""Detection of runs that crash repeatedly without progress."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.rundir import names
from slurm.scheduler.environment import JobStart
from slurm.scheduler.output import last_words

from .codes import CRASHES

_LINES = 3


@dataclass(frozen=True)
class Limits:
    """How often in a row the starts of a job may bring its run no new checkpoint until the run counts as failed.

    Attributes:
        crashes: Number of starts that crashed.
        starts: Number of starts, whatever ended them: a preemption, somebody's requeue, the loss of a node, a crash.
    """

    crashes: int
    starts: int

    def reached(
        self,
        owners: Iterable[Mapping[str, Any]],
        records: Iterable[Mapping[str, Any]],
        start: JobStart,
        crashed: Collection[int],
    ) -> str | None:
        """Say which limit the starts of a job before this one have reached, or return None.

        Starts without a trace count, such as one that was killed while Python was loading. Starts of other jobs do not.

        Args:
            owners: The records of the run's attempts, see `experiments.rundir.attempts`.
            records: The run's ledger.
            start: This start of the job.
            crashed: Restart counts of the job's starts that crashed.
        """
        fruitful = _fruitful(owners, records, start.name)
        crashes = sum(fruitful < number < start.restarts for number in crashed)
        if crashes >= self.crashes:
            return f"{crashes} attempts of job {start.name} in a row crashed without progress"
        starts = start.restarts - fruitful - 1
        if starts >= self.starts:
            return f"{starts} attempts of job {start.name} in a row ended without progress, {crashes} of them crashed"
        return None


def _fruitful(owners: Iterable[Mapping[str, Any]], records: Iterable[Mapping[str, Any]], job: str | None) -> int:
    """Return the restart count of a job's last start that brought its run to a new checkpoint, -1 if there is none."""
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
    return fruitful


def crashed_starts() -> set[int]:
    """Return the restart counts of this job's starts that crashed, as its batch script has noted them."""
    try:
        lines = Path(os.environ[CRASHES]).read_text(errors="replace").split()
    except (KeyError, OSError):
        return set()
    return {int(line) for line in lines if line.isdecimal()}


def words(folder: Path) -> str:
    """Return the last words of a run's log and of its job's standard error, joined to one line."""
    found = last_words(folder / names.LOG, _LINES)
    if "SUBMITIT_FOLDER" in os.environ:
        import submitit

        found += last_words(submitit.JobEnvironment().paths.stderr, _LINES)
    return " / ".join(dict.fromkeys(found)) or "none"
