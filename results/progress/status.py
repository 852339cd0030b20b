"""The states of all runs of a directory, from their folders, the manifest and the scheduler."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.rundir import names
from experiments.rundir.attempts import newest
from experiments.rundir.holder import process_of, silent_for
from results.runs.schema import RunEntry, SweepResults
from results.runs.store import outcomes, read_plan
from results.runs.submissions import Submissions, submissions
from slurm.scheduler import queue
from slurm.scheduler.parse import Job
from slurm.scheduler.words import clean, last_words

from .advance import Advance, newest_checkpoint, progress
from .logs import telling_log
from .states import STATES, Facts, Known, State, StateVerdict, judge


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
            "not started", or "never submitted" in a sweep that was submitted.
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
        note: Last line of the error of a failed run, why a pending one waits, or what the scheduler says about a lost
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


def status(directory: str | Path) -> Report:
    """Determine the state of every run of a directory.

    The scheduler is queried once (twice if jobs have left the queue), and only if unfinished runs have jobs. It is
    queried before the results are read, so that a run that ends in between is seen as done and not as lost.

    Args:
        directory: A directory as for `results.load`.

    Raises:
        UserError: as for `results.load`.
    """
    plan = read_plan(directory)
    submitted = submissions(plan.directory)
    known, asked = _ask(plan, submitted)
    now = time.time()
    begun = {run.path: _begun(run.path, submitted) for run in plan.runs}
    sweep = outcomes(plan)  # after the attempts, so that an attempt that ends in between has written its result
    facts = {run.path: _with_outcome(begun[run.path], run) for run in sweep.runs}
    verdicts = {run.path: judge(facts[run.path], known, now) for run in sweep.runs if run.status != "done"}
    if gone := [path for path, verdict in verdicts.items() if verdict.state == "lost"]:
        known = Known(known.queue, queue.history({one for path in gone for one in facts[path].ids[:1]}))
        verdicts |= {path: judge(facts[path], known, now) for path in gone}
    runs = [_state(run, facts[run.path], verdicts.get(run.path, StateVerdict("done")), now) for run in sweep.runs]
    return Report(sweep, runs, now, known.queue.problem if asked else None, asked)


def _ask(plan: SweepResults, submitted: Submissions) -> tuple[Known, bool]:
    """Query squeue for the jobs of unfinished runs; return its answer, and whether there was anything to query."""
    ids: set[str] = set()
    job_names: set[str] = set()
    for run in plan.runs:
        if (run.path / names.RESULT).is_file():
            continue
        for task in submitted.by_run.get(run.path, ()):
            ids.update([task.array] if task.array else ())
            job_names.update(() if task.array else [task.name])
        job = (newest(run.path) or {}).get("job")
        ids.update([str(job)] if job is not None else ())
    if not ids and not job_names:
        return Known(), False
    return Known(queue.queue(ids, job_names)), True


def _begun(path: Path, submitted: Submissions) -> Facts:
    attempt = newest(path)
    held = attempt is not None and "ended" not in attempt
    verdict = process_of(attempt) if held and attempt is not None else False
    return Facts(
        attempt=attempt,
        silent=silent_for(path, attempt) if verdict is None and attempt is not None else None,
        alive=bool(verdict),
        tasks=submitted.by_run.get(path, ()),
        submitted=bool(submitted.tasks),
    )


def _with_outcome(facts: Facts, run: RunEntry) -> Facts:
    failed = run.status == "failed"
    return replace(
        facts,
        error=(_last(run.error) or "no reason given") if failed else None,
        failed_at=_changed(run.path / names.FAILURE) if failed else 0.0,
        checkpoint=None if run.status == "done" else newest_checkpoint(run.path),
    )


def _last(text: str | None) -> str | None:
    lines = [line for one in (text or "").splitlines() if (line := clean(one))]
    return lines[-1] if lines else None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _state(run: RunEntry, facts: Facts, verdict: StateVerdict, now: float) -> RunState:
    attempt, job, state = facts.attempt or {}, verdict.job, verdict.state
    if state == "done":
        steps = int(run.number("steps") or 0) or None
        done = Advance(steps, steps)
    else:
        at_work = attempt.get("attempt") if state == "running" and facts.open else None
        done = progress(run.path, at_work, now) if attempt else Advance()
    note, log = _explained(run.path, facts, verdict)
    active = job is not None and job.active
    return RunState(
        row=run.row,
        column=run.column,
        seed=run.seed,
        path=run.path,
        state=state,
        step=done.step,
        total=done.total,
        left=done.left,
        beat=done.beat,
        node=_node(facts, job),
        job=job.id if job is not None else next(iter(facts.ids), None),
        attempts=attempt.get("attempt", 0),
        restarts=job.restarts if job is not None and active else attempt.get("restarts") or 0,
        starts=job.started if job is not None and job.pending else None,
        checkpoint=facts.checkpoint,
        note=note,
        log=log,
    )


def _explained(path: Path, facts: Facts, verdict: StateVerdict) -> tuple[str | None, Path | None]:
    """Return the note on a run, and the file that most likely explains what went wrong."""
    note, job = verdict.note, verdict.job
    if verdict.state not in ("failed", "lost"):
        return note, None
    log = telling_log(path, facts.tasks, of_job=verdict.state == "lost")
    if verdict.state == "lost" and job is not None and job.state == "FAILED" and log is not None:
        note = ": ".join([*([note] if note else []), *last_words(log)])
    return note, log


def _node(facts: Facts, job: Job | None) -> str | None:
    """Return the node of the run: the attempt's, unless its job has just been restarted and has no attempt yet."""
    attempt = facts.attempt or {}
    stale = job is not None and attempt.get("job") not in (job.id, job.raw)
    of_job = job.node if job is not None else None
    if stale and of_job:
        return of_job
    return attempt.get("node") or of_job or None


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values, as ``ham status --json`` prints it.

    Returns:
        ``name``, ``directory``, ``time`` (unix seconds), ``scheduler`` (``asked``, and ``problem``: an error message or
        null), ``counts`` (number of runs by state) and ``runs``: a list of `RunState` in table order, with paths as
        text.
    """
    return {
        "name": report.sweep.name,
        "directory": str(report.sweep.directory),
        "time": report.time,
        "scheduler": {"asked": report.asked, "problem": report.problem},
        "counts": report.counts(),
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
