"""Submission of a sweep's runs as jobs. No process watches the jobs afterwards: all state is in the run directories."""

from __future__ import annotations

import io
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from experiments.config.sweep import Cell, Sweep
from experiments.errors import SuiteError, UserError
from experiments.launch import table
from experiments.run import reuse
from experiments.rundir import names
from results.progress.states import UNDER_WAY
from results.progress.status import status

from . import profile, records, script, snapshot
from .job.payload import JobPayload, JobRun
from .plan import ArrayPlan, Place, RunsOfJob, plan
from .plan import script as batch_script
from .scheduler import cluster, queue

PATIENCE = 60.0
"""Seconds to wait for the scheduler's answer before a submission is given up."""


@dataclass(frozen=True)
class Submitted:
    """The outcome of a submission.

    Attributes:
        arrays: The submitted arrays.
        jobs: Their job numbers.
        done: Number of runs that have a result.
        under_way: Number of runs that were already waiting or running.
    """

    arrays: Sequence[ArrayPlan]
    jobs: Sequence[str]
    done: int
    under_way: int

    def __str__(self) -> str:
        """Return the outcome in one line."""
        runs, jobs = sum(array.runs for array in self.arrays), sum(len(array.tasks) for array in self.arrays)
        numbers = f" ({', '.join(self.jobs)})" if self.jobs else ""
        return f"{runs} runs in {jobs} jobs submitted{numbers}, {self.done} done before, {self.under_way} under way"


def submit(sweep: Sweep, runs_root: Path, name: str, only: Collection[str] | None = None) -> Submitted:
    """Submit the runs of a sweep that have no result and are not under way.

    Args:
        sweep: The sweep.
        runs_root: Folder that holds the folders of all sweeps.
        name: Name of the cluster's profile, see `profile.load`.
        only: Paths of the runs to consider; None considers all.

    Raises:
        UserError: if the profile is not valid, Slurm is not installed, or it refuses the jobs; the error quotes it.
        SuiteError: if the scheduler does not answer.
    """
    chosen = profile.load(name)
    cluster.require("sbatch", "srun")
    folder = (runs_root / sweep.name).resolve()
    with records.alone(folder):
        table.write(sweep, folder)
        wanted = [cell for cell in sweep.runs if only is None or cell.path in only]
        todo = [cell for cell in wanted if reuse.finished(cell.spec, cell.identity, folder / cell.path) is None]
        free = not_under_way(folder, todo)
        if not free:
            return Submitted([], [], len(wanted) - len(todo), len(todo))
        arrays, jobs = _submit(sweep, folder, free, name, chosen)
    return Submitted(arrays, jobs, len(wanted) - len(todo), len(todo) - len(free))


def resubmit(folder: Path, paths: Collection[str], name: str | None = None) -> Submitted:
    """Submit runs of a sweep again, with the specifications of their last submission and the current code.

    Args:
        folder: Folder of the sweep.
        paths: Directories of the runs, relative to `folder`.
        name: Name of the profile; None uses the copy kept with the last submission.

    Raises:
        UserError: if one of the runs was never submitted; otherwise as for `submit`.
        SuiteError: if the scheduler does not answer.
    """
    known = records.recorded_runs(folder)
    unknown = [path for path in paths if path not in known]
    if unknown:
        raise UserError(f"was never submitted: use `ham sweep CONFIG --cluster slurm` ({unknown[0]})", str(folder))
    kept = sorted((folder / names.SUBMISSIONS).glob("*/profile.yaml"), key=lambda path: path.stat().st_mtime)
    sweep = Sweep(folder.name, None, None, None, [], {}, list(known.values()))
    chosen = name or str(kept[-1])
    loaded = profile.load(chosen)
    cluster.require("sbatch", "srun")
    with records.alone(folder):
        todo = [
            one
            for one in (known[path] for path in paths)
            if reuse.finished(one.spec, one.identity, folder / one.path) is None
        ]
        free = not_under_way(folder, todo)
        arrays, jobs = _submit(sweep, folder.resolve(), free, chosen, loaded) if free else ([], [])
    return Submitted(arrays, jobs, len(paths) - len(todo), len(todo) - len(free))


def dry_run(sweep: Sweep, runs_root: Path, name: str) -> str:
    """Return the batch scripts that `submit` would pass to sbatch and the resources it would request; write nothing."""
    chosen = profile.load(name)
    folder = (runs_root / sweep.name).resolve()
    todo = reuse.pending(sweep, folder)
    done = len(sweep.runs) - len(todo)
    if (folder / names.SUBMISSIONS).exists():
        todo = not_under_way(folder, todo)
    code = runs_root.resolve() / snapshot.FOLDER / snapshot.name_of(snapshot.contents(_imports(todo)))
    place = Place(folder / names.SUBMISSIONS / "DRY-RUN", folder, code, _python(chosen))
    size = cluster.array_size(cluster.configuration())
    arrays = plan(todo, chosen, place, name=f"ham-{sweep.name}-DRY-RUN", array_size=size)
    scripts = [f"# {_ask_of(array)}\n{batch_script(array, place)}" for array in arrays]
    hours = sum(array.gpu_hours for array in arrays)
    jobs = sum(len(array.tasks) for array in arrays)
    total = (
        f"{len(todo)} of {len(sweep.runs)} runs in {jobs} jobs ({done} done, {len(sweep.runs) - done - len(todo)} "
        f"under way); at most {hours:g} GPU-hours: GPUs × time limit × jobs, an upper bound for runs that one time "
        "limit is enough for"
    )
    return "\n".join([*scripts, total])


def _ask_of(array: ArrayPlan) -> str:
    asked = array.resources
    return (
        f"{array.name}: {array.runs} runs in {len(array.tasks)} jobs, each of {asked.nodes} × {asked.ranks_per_node} "
        f"ranks, {array.gpus} GPUs and {asked.minutes} minutes: at most {array.gpu_hours:g} GPU-hours"
    )


def not_under_way(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the runs on which no process works and for which no job waits.

    Raises:
        SuiteError: if the scheduler does not answer.
    """
    until = time.monotonic() + PATIENCE
    while True:
        report = status(folder)
        states = {run.path.name: run.state for run in report.runs}
        unknown = [cell for cell in cells if states.get(cell.path) == "unknown"]
        if not unknown:
            return [cell for cell in cells if states.get(cell.path) not in UNDER_WAY]
        if time.monotonic() > until:
            raise SuiteError(f"cannot tell which runs are under way; the scheduler says: {report.problem}", str(folder))
        time.sleep(1)


def _submit(
    sweep: Sweep, folder: Path, cells: Sequence[Cell], name: str, chosen: profile.Profile
) -> tuple[list[ArrayPlan], list[str]]:
    identifier = secrets.token_hex(4)
    place = Place(
        folder=folder / names.SUBMISSIONS / identifier,
        sweep=folder,
        snapshot=snapshot.take(folder.parent, snapshot.contents(_imports(cells))),
        python=_python(chosen),
    )
    size = cluster.array_size(cluster.configuration())
    arrays = plan(cells, chosen, place, name=f"ham-{sweep.name}-{identifier}", array_size=size)
    about = {"id": identifier, "time": time.time(), "profile": name, "snapshot": str(place.snapshot)}
    record = records.SubmissionRecord(folder, about, arrays)
    jobs = []
    try:
        records.keep_runs(folder, identifier, sweep, snapshot.homes(_imports(cells)))
        shutil.copyfile(profile.find(name), place.folder / "profile.yaml")
        for number, array in enumerate(arrays):
            jobs.append(_send(array, place, chosen, f"profile {name}"))
            record.accepted(number, jobs[-1])
    except (SuiteError, OSError):
        record.refused()
        raise
    return arrays, jobs


def _send(array: ArrayPlan, place: Place, chosen: profile.Profile, where: str) -> str:
    """Submit one array, repeatedly if the scheduler does not answer, and return its job number."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return _call(array, place, chosen)
        except RuntimeError as error:  # submitit's errors
            said = cluster.words(str(error)) or type(error).__name__
        if not cluster.silent(said):
            raise UserError(f"sbatch refused the job: {said}", where)
        while (problem := _withdraw(array.name)) is not None and time.monotonic() < until:
            time.sleep(1)
        if problem is not None or time.monotonic() > until:
            raise SuiteError(f"sbatch was given up, since the scheduler has not answered for {PATIENCE:g} s: {said}")


def _call(array: ArrayPlan, place: Place, chosen: profile.Profile) -> str:
    import submitit

    executor = submitit.SlurmExecutor(place.folder, python=script.command(place.python))
    executor.update_parameters(**array.parameters)
    staged_root = chosen.staging.root if chosen.staging else None
    with redirect_stderr(io.StringIO()), executor.batch():  # submitit also prints the text of the error
        jobs = [
            executor.submit(JobPayload(_runs(task, place), chosen.max_restarts, array.gpus > 0, staged_root))
            for task in array.tasks
        ]
    return jobs[0].job_id.partition("_")[0]


def _withdraw(name: str) -> str | None:
    """Cancel jobs that a call of sbatch without an answer may have left in the queue.

    A job that enters the queue even later finds no pickle and ends by itself.

    Returns:
        None, or the scheduler's message if it is not certain that no such job is left.
    """
    answer = queue.queue(names=[name], patience=5)
    active = [job.id for job in answer.jobs.values() if job.active]
    return answer.problem or queue.cancel(active, patience=5)


def _runs(task: RunsOfJob, place: Place) -> tuple[JobRun, ...]:
    return tuple(JobRun(str(place.sweep / one.path), one.identity, one.spec.model_dump()) for one in task)


def _imports(cells: Sequence[Cell]) -> set[str]:
    return {name for cell in cells for name in cell.spec.imports}


def _python(chosen: profile.Profile) -> str:
    return chosen.python or shlex.quote(sys.executable)
