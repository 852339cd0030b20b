"""The states of all runs of a directory, from their folders, the manifest and the scheduler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.rundir import names
from experiments.rundir.attempts import newest
from experiments.rundir.holder import process_of, silent_for
from results.runs.schema import RunEntry, SweepResults
from results.runs.store import outcomes, read_plan
from results.runs.submissions import Submissions, submissions
from slurm.scheduler import queue
from slurm.scheduler.output import cancelled, in_one_line, last_words
from slurm.scheduler.parse import Job

from .advance import Advance, newest_checkpoint, progress
from .facts import Facts, Known
from .logs import telling_log
from .report import Report, RunState
from .states import StateVerdict, judge, minute


def status(directory: str | Path) -> Report:
    """Determine the state of every run of a directory; see `statuses`."""
    return statuses([directory])[0]


def statuses(directories: Sequence[str | Path]) -> list[Report]:
    """Determine the states of the runs of some directories.

    The scheduler is queried once for all (twice if jobs have left the queue), and only if unfinished runs have jobs. It
    is queried before the results are read, so that a run that ends in between is seen as done and not as lost.

    Args:
        directories: Directories as for `results.load`.

    Raises:
        UserError: as for `results.load`.
    """
    plans = [read_plan(directory) for directory in directories]
    looks = [_Look(plan, submissions(plan.directory)) for plan in plans]
    jobs = [look.jobs() for look in looks]
    ids, labels = (set().union(*parts) for parts in zip(*jobs, strict=True)) if jobs else (set(), set())
    known = Known(queue.queue(ids, labels)) if ids or labels else Known()
    now = time.time()
    for look in looks:
        look.read()
    if gone := {one for look in looks for one in look.gone(known, now)}:
        known = Known(known.queue, queue.history(gone))
    return [look.report(known, now, any(parts)) for look, parts in zip(looks, jobs, strict=True)]


class _Look:
    """One look at the runs of a directory: `jobs`, then the scheduler's answer, then `read`, then the rest."""

    def __init__(self, plan: SweepResults, submitted: Submissions):
        self._sweep, self._submitted = plan, submitted
        self._facts: dict[Path, Facts] = {}

    def jobs(self) -> tuple[set[str], set[str]]:
        """Return the numbers of the jobs of unfinished runs, and the names of those whose number is not known."""
        ids: set[str] = set()
        labels: set[str] = set()
        for run in self._sweep.runs:
            if (run.path / names.RESULT).is_file():
                continue
            for task in self._submitted.by_run.get(run.path, ()):
                ids.update([task.array] if task.array else ())
                labels.update(() if task.array else [task.name])
            job = (newest(run.path) or {}).get("job")
            ids.update([str(job)] if job is not None else ())
        return ids, labels

    def read(self) -> None:
        """Read the folders of the runs."""
        begun = {run.path: _begun(run.path, self._submitted) for run in self._sweep.runs}
        # after the attempts, so that an attempt that ends in between has written its result
        self._sweep = outcomes(self._sweep)
        self._facts = {run.path: _with_outcome(begun[run.path], run) for run in self._sweep.runs}

    def gone(self, known: Known, now: float) -> set[str]:
        """Return the jobs of which sacct may know how they ended."""
        ended = [path for path, verdict in self._verdicts(known, now).items() if verdict.state in ("lost", "cancelled")]
        return {one for path in ended for one in self._facts[path].ids[:1]}

    def report(self, known: Known, now: float, asked: bool) -> Report:
        """Return the states of the runs."""
        verdicts = self._verdicts(known, now)
        done = StateVerdict("done")
        runs = [_state(run, self._facts[run.path], verdicts.get(run.path, done), now) for run in self._sweep.runs]
        return Report(self._sweep, runs, now, known.queue.problem if asked else None, asked)

    def _verdicts(self, known: Known, now: float) -> dict[Path, StateVerdict]:
        unfinished = (run.path for run in self._sweep.runs if run.status != "done")
        return {path: _as_told(path, self._facts[path], judge(self._facts[path], known, now)) for path in unfinished}


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
        cancelled=submitted.cancelled.get(path),
    )


def _with_outcome(facts: Facts, run: RunEntry) -> Facts:
    failed = run.status == "failed"
    return replace(
        facts,
        error=(in_one_line(run.error or "") or "no reason given") if failed else None,
        failed_at=_changed(run.path / names.FAILURE) if failed else 0.0,
        checkpoint=None if run.status == "done" else newest_checkpoint(run.path),
    )


def _as_told(path: Path, facts: Facts, verdict: StateVerdict) -> StateVerdict:
    """Return the verdict on a run of whose end only the output of its job is left, if Slurm wrote it there."""
    if verdict.state != "lost" or verdict.job is not None or not facts.tasks:
        return verdict
    log = telling_log(path, facts.tasks, of_job=True)
    at = cancelled(log) if log is not None else None
    if at is None or at < (facts.attempt or {}).get("time", 0.0) - 1:  # to the second; or it was started again since
        return verdict
    return StateVerdict("cancelled", f"CANCELLED {minute(at)}, as its output says")


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
        mask_updates=run.result.get("mask_updates"),
        note=note,
        log=log,
    )


def _explained(path: Path, facts: Facts, verdict: StateVerdict) -> tuple[str | None, Path | None]:
    """Return the note on a run, and the file that most likely explains what went wrong."""
    note, job = verdict.note, verdict.job
    if verdict.state not in ("failed", "lost", "cancelled"):
        return note, None
    log = telling_log(path, facts.tasks, of_job=verdict.state != "failed")
    # of a job that the scheduler ended itself, its word says more than the program's last one
    silent = job is None or job.state in ("FAILED", "COMPLETED")
    if verdict.state == "lost" and facts.ids and silent and log is not None:
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
