"""The states of runs as values, for text and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.runs.schema import SweepResults

from .states import BAD, STATES, UNDER_WAY, State


@dataclass(frozen=True)
class RunState:
    """The state and progress of one run.

    Attributes:
        row: Label of the table row.
        column: Column of the first cell that contains the run.
        seed: Seed of the run.
        path: The run's folder.
        state: "done"; "running": on a process of this host, or in a job that runs; "pending": its job waits;
            "elsewhere": held by a process of another host or container, which gave a sign of life lately;
            "unknown": the scheduler does not answer for its job; "resumable": stopped with a checkpoint; "failed";
            "lost": started or submitted, without a result or an error, and no process or job will continue it;
            "cancelled": the same, because somebody cancelled its job; "suspended", "completing", "held": see
            docs/howto/monitor.md; "not started", or "never submitted" in a sweep that was submitted.
        step: Optimizer steps done, None if unknown.
        total: Steps of the whole run, None if unknown.
        left: Seconds until its end at the current speed, None unless it runs.
        beat: Unix seconds of its last step, None if unknown.
        node: Node on which it runs or ran last, None if unknown.
        job: Its newest job, "1234_5", or None.
        attempts: How often it was started.
        restarts: How often the scheduler requeued its job.
        starts: Unix seconds at which its pending job is expected to start, None if unknown.
        checkpoint: Step of its newest checkpoint, None if there is none.
        mask_updates: How often its masks changed after the first ones; None unless it is done and sets masks.
        note: The error of a failed run in one line, why a pending one waits, or what the scheduler says about a lost
            one; otherwise None.
        log: The file most likely to explain what went wrong, or None.
    """

    row: str
    column: Mapping[str, Any]
    seed: int
    path: Path
    state: State
    step: int | None = None
    total: int | None = None
    left: float | None = None
    beat: float | None = None
    node: str | None = None
    job: str | None = None
    attempts: int = 0
    restarts: int = 0
    starts: int | None = None
    checkpoint: int | None = None
    mask_updates: int | None = None
    note: str | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Report:
    """The states of all runs of a directory.

    Attributes:
        sweep: The results of the directory.
        runs: One state per run folder, in table order.
        time: Unix seconds at which the states were determined.
        problem: The scheduler's error message; None if it answered or was not queried.
        asked: Whether the scheduler was queried.
    """

    sweep: SweepResults
    runs: Sequence[RunState]
    time: float
    problem: str | None = None
    asked: bool = False

    def counts(self) -> dict[State, int]:
        """Return the number of runs per state, for states that occur."""
        states = [run.state for run in self.runs]
        return {state: states.count(state) for state in STATES if state in states}

    @property
    def done(self) -> bool:
        """Whether all runs are done."""
        return self.counts().keys() == {"done"}

    @property
    def under_way(self) -> bool:
        """Whether something may still happen by itself."""
        return bool(UNDER_WAY & self.counts().keys())

    @property
    def bad(self) -> bool:
        """Whether a run has failed, was lost or was never submitted."""
        return bool(BAD & self.counts().keys())


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values, as ``ham status --json`` prints it.

    Returns:
        ``name``, ``directory``, ``time`` (unix seconds), ``scheduler`` (``asked``, and ``problem``: an error message or
        null), ``counts`` (number of runs by state), ``strays`` (names of the folders of runs that no row names) and
        ``runs``: a list of `RunState` in table order, with paths as text.
    """
    return {
        "name": report.sweep.name,
        "directory": str(report.sweep.directory),
        "time": report.time,
        "scheduler": {"asked": report.asked, "problem": report.problem},
        "counts": report.counts(),
        "strays": list(report.sweep.strays),
        "runs": [
            {
                **vars(run),
                "column": dict(run.column),
                "path": str(run.path),
                "log": None if run.log is None else str(run.log),
            }
            for run in report.runs
        ],
    }
