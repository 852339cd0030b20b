"""GPU- and CPU-hours that the runs of a sweep have really used, all their starts counted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from experiments.rundir import holder, ledger, names
from experiments.rundir.files import read_json
from results.runs.schema import RunEntry, SweepResults
from results.runs.store import read
from results.runs.submissions import ArrayTask, Submissions, submissions
from slurm.scheduler.usage import JobUse, used

Source = Literal["accounting", "attempts"]


@dataclass(frozen=True)
class Use:
    """What one start of a run has used; a job that several runs share counts for each of them in equal parts.

    Attributes:
        seconds: How long it took.
        cpus: CPUs it had.
        gpus: GPUs it had.
        source: ``accounting``, what the scheduler had reserved; or ``attempts``, what the run recorded of itself.
    """

    seconds: float
    cpus: float
    gpus: float
    source: Source


@dataclass(frozen=True)
class RunHours:
    """What a run has used.

    Attributes:
        run: The run.
        uses: Its starts.
    """

    run: RunEntry
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Hours:
    """Sums over some runs.

    Attributes:
        runs: Number of runs.
        done: Number of those with a result.
        starts: Number of starts.
        hours: Hours of all starts.
        cpu_hours: CPUs × hours.
        gpu_hours: GPUs × hours.
        sources: Where the numbers come from.
    """

    runs: int
    done: int
    starts: int
    hours: float
    cpu_hours: float
    gpu_hours: float
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class HoursReport:
    """The hours of a sweep.

    Attributes:
        sweep: The sweep.
        runs: Its runs, each once.
        problem: Why the scheduler's accounting could not be read, None if it could or was not needed.
    """

    sweep: SweepResults
    runs: Sequence[RunHours]
    problem: str | None


def hours(directory: Path) -> HoursReport:
    """Collect what the runs of a directory have used.

    Args:
        directory: A sweep's folder, a folder of runs, or a run's.

    Raises:
        UserError: if the folder does not exist or holds no runs.
    """
    sweep = read(directory)
    submitted = submissions(sweep.directory)
    tasks = (task for run in sweep.runs for task in submitted.by_run.get(run.path, []))
    starts, problem = used(task.array for task in tasks if task.array)
    jobs: dict[str, list[JobUse]] = {}
    for start in starts:
        jobs.setdefault(start.id, []).append(start)
    now = time.time()
    return HoursReport(sweep, [RunHours(run, _uses(run.path, submitted, jobs, now)) for run in sweep.runs], problem)


def total(runs: Iterable[RunHours]) -> Hours:
    """Sum up what some runs have used."""
    runs = list(runs)
    uses = [use for run in runs for use in run.uses]
    return Hours(
        runs=len(runs),
        done=sum(run.run.status == "done" for run in runs),
        starts=len(uses),
        hours=sum(use.seconds for use in uses) / 3600,
        cpu_hours=sum(use.seconds * use.cpus for use in uses) / 3600,
        gpu_hours=sum(use.seconds * use.gpus for use in uses) / 3600,
        sources=tuple(sorted({use.source for use in uses})),
    )


def by_row(report: HoursReport) -> dict[str, Hours]:
    """Sum up by row of the table; a run that is repeated over columns counts once."""
    return {row: total(run for run in report.runs if run.run.row == row) for row in report.sweep.rows}


def to_json(report: HoursReport) -> dict[str, Any]:
    """Return the report as one JSON object."""
    return {
        "name": report.sweep.name,
        "directory": str(report.sweep.directory),
        "problem": report.problem,
        "total": asdict(total(report.runs)),
        "rows": [{"row": row, **asdict(sums)} for row, sums in by_row(report).items()],
        "runs": [
            {
                "path": str(one.run.path),
                "row": one.run.row,
                "column": dict(one.run.column),
                "seed": one.run.seed,
                "status": one.run.status,
                **{key: value for key, value in asdict(total([one])).items() if key not in ("runs", "done")},
            }
            for one in report.runs
        ],
    }


def _uses(path: Path, submitted: Submissions, jobs: Mapping[str, list[JobUse]], now: float) -> tuple[Use, ...]:
    """Return the starts of a run: those of its jobs that accounting knows, and its attempts outside of them."""
    shares: dict[str, int] = {}  # runs that share a job which accounting does not know
    known: set[str] = set()
    found: list[Use] = []
    for task in submitted.by_run.get(path, []):
        share, names_of_it = len(task.runs), _names(task)
        starts = [job for name in names_of_it for job in jobs.get(name, []) if job.name == task.name]
        found += [Use(job.seconds, job.cpus / share, job.gpus / share, "accounting") for job in starts]
        known.update(names_of_it if starts else ())
        shares |= dict.fromkeys(names_of_it, share)
    for record, seconds in spans(path, now):
        job = str(record.get("job"))
        if job not in known:
            share = shares.get(job, 1)
            cpus, gpus = _amount(record, "cpus", 1), _amount(record, "gpus", 0)
            found.append(Use(seconds, cpus / share, gpus / share, "attempts"))
    return tuple(found)


def _names(task: ArrayTask) -> list[str]:
    """Return the numbers of a task's job: one that is alone is no array for Slurm."""
    if task.array is None:
        return []
    return [f"{task.array}_{task.index}", *([task.array] if task.alone else [])]


def spans(path: Path, now: float) -> list[tuple[Mapping[str, Any], float]]:
    """Return the record of each attempt of a run, and how many seconds it lasted.

    Of an attempt that was killed, the last sign of life counts: what it wrote into heartbeat and ledger and, as far as
    the next attempt leaves room for it, the time of its claim's file, which a copy of the folder may have lost.
    """
    files = sorted((path / names.ATTEMPTS).glob("*.json"))
    records = [content for file in files if isinstance(content := read_json(file), dict) and _is_one(content)]
    signs: dict[int, float] = {}
    for line in ledger.read(path):
        if line["event"] != "lost":  # which the next attempt has written
            signs[line["attempt"]] = max(signs.get(line["attempt"], 0.0), line["time"])
    beat = ledger.last_beat(path)
    if beat is not None:
        signs[beat.attempt] = max(signs.get(beat.attempt, 0.0), beat.time)
    found = []
    for record, following in zip_longest(records, records[1:]):
        end = record.get("ended")
        if not isinstance(end, (int, float)):
            end = _last_sign(path, record, following, signs.get(record["attempt"]), now)
        found.append((record, max(0.0, end - record["time"])))
    return found


def _last_sign(
    path: Path, record: Mapping[str, Any], following: Mapping[str, Any] | None, written: float | None, now: float
) -> float:
    if following is None and holder.process_of(record):
        return now
    touched = holder.touched(path, record) or record["time"]
    if following is None:
        return written if written is not None else min(touched, now)
    return min(max(touched, written or 0.0), following["time"])


def _is_one(content: Mapping[str, Any]) -> bool:
    return type(content.get("attempt")) is int and type(content.get("time")) in (int, float)


def _amount(record: Mapping[str, Any], key: str, each: int) -> float:
    """Return CPUs or GPUs of an attempt; records of earlier versions have only the number of ranks."""
    stated, ranks = record.get(key), record.get("ranks")
    if type(stated) is int and stated >= 0:
        return stated
    return each * ranks if type(ranks) is int and ranks > 0 else each
