"""Submission of a sweep's runs as jobs. No process watches the jobs afterwards: all state is in the run directories."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.config.sweep import Cell, Sweep
from experiments.errors import SuiteError, UserError
from experiments.launch import elsewhere, table
from experiments.launch.estimate import Estimate
from experiments.rundir import names

from . import foresee, hours, mail, profile, records, snapshot
from .array import ArrayPlan
from .look import Seen, look
from .plan import Place, plan
from .plan import script as batch_script
from .scheduler import cluster
from .send import send
from .throttle import throttled


@dataclass(frozen=True)
class Submitted:
    """The outcome of a submission.

    Attributes:
        arrays: The submitted arrays.
        jobs: Their job numbers.
        seen: The runs as the submission saw them.
        note: What the user should know, or an empty text.
    """

    arrays: Sequence[ArrayPlan]
    jobs: Sequence[str]
    seen: Seen
    note: str = ""

    def __str__(self) -> str:
        """Return the outcome in one line, and the note in another one."""
        runs, jobs = sum(array.runs for array in self.arrays), sum(len(array.tasks) for array in self.arrays)
        numbers = f" ({', '.join(self.jobs)})" if self.jobs else ""
        text = f"{runs} runs in {jobs} jobs submitted{numbers}; {self.seen.done} have a result, "
        text += f"{len(self.seen.under_way)} were under way"
        text += f"; {self.seen.later} are left for later calls, by --limit" if self.seen.later else ""
        return f"{text}\n{self.note}" if self.note else text


def submit(
    sweep: Sweep,
    runs_root: Path,
    name: str,
    only: Collection[str] | None = None,
    limit: int | None = None,
    found: Mapping[str, Path] | None = None,
) -> Submitted:
    """Submit the runs of a sweep that have no result and are not under way.

    Args:
        sweep: The sweep.
        runs_root: Folder that holds the folders of all sweeps.
        name: Name of the cluster's profile, see `profile.load`.
        only: Paths of the runs to consider; None considers all.
        limit: How many runs of the sweep may wait or run afterwards; None: all.
        found: Folders of finished runs that are taken over, see `elsewhere.find`.

    Raises:
        UserError: if the profile is not valid, Slurm is not installed, or it refuses the jobs; the error quotes it.
        SuiteError: if the scheduler does not answer, or refuses some of the jobs; the error says what was submitted.
    """
    chosen = profile.load(name)
    cluster.require("sbatch", "srun")
    folder = (runs_root / sweep.name).resolve()
    sweep = _absolute(sweep)
    foresee.check(sweep.runs, chosen, folder, Path.cwd())
    with records.alone(folder):
        table.write(sweep, folder)
        wanted = _wanted(sweep, only)
        elsewhere.take(wanted, folder, found or {})
        return _submit(sweep, folder, look(folder, wanted).limited(limit), name, chosen, Path.cwd())


def resubmit(folder: Path, paths: Collection[str], name: str | None = None, limit: int | None = None) -> Submitted:
    """Submit runs of a sweep again, with the specifications of their last submission and the current code.

    Args:
        folder: Folder of the sweep.
        paths: Directories of the runs, relative to `folder`.
        name: Name of the profile; None uses the copy kept with the last submission, in its working directory.
        limit: How many of these runs may wait or run afterwards; None: all.

    Raises:
        UserError: if one of the runs was never submitted; otherwise as for `submit`.
        SuiteError: as for `submit`.
    """
    folder = folder.resolve()
    known = records.recorded_runs(folder)
    unknown = [path for path in paths if path not in known]
    if unknown:
        raise UserError(f"was never submitted: use `ham sweep CONFIG --cluster slurm` ({unknown[0]})", str(folder))
    kept, home = records.last_profile(folder)
    chosen_name, home = (str(kept), home) if name is None else (name, Path.cwd())
    chosen = profile.load(chosen_name)
    cluster.require("sbatch", "srun")
    sweep = Sweep(folder.name, None, None, None, [], {}, list(known.values()))
    wanted = [known[path] for path in paths]
    foresee.check(wanted, chosen, folder, home)
    foresee.unchanged(wanted)
    with records.alone(folder):
        return _submit(sweep, folder, look(folder, wanted).limited(limit), chosen_name, chosen, home)


def dry_run(
    sweep: Sweep,
    runs_root: Path,
    name: str,
    expected: Mapping[str, Estimate] | None = None,
    limit: int | None = None,
    only: Collection[str] | None = None,
) -> str:
    """Return the batch scripts that `submit` would pass to sbatch and the resources it would request; write nothing.

    Args:
        sweep: The sweep.
        runs_root: Folder that holds the folders of all sweeps.
        name: Name of the cluster's profile.
        expected: How long runs will take, by path, as far as it is known.
        limit: As for `submit`.
        only: As for `submit`.
    """
    chosen = profile.load(name)
    folder = (runs_root / sweep.name).resolve()
    foresee.check(sweep.runs, chosen, folder, Path.cwd())
    wanted = _wanted(sweep, only)
    seen = look(folder, wanted).limited(limit)
    code = runs_root.resolve() / snapshot.FOLDER / snapshot.name_of(snapshot.contents(_imports(seen.free)))
    place = Place(folder / names.SUBMISSIONS / "DRY-RUN", folder, code, _python(chosen), Path.cwd())
    arrays = _planned(seen.free, folder, chosen, place, f"ham-{sweep.name}-DRY-RUN")
    scripts = [f"# {_ask_of(array)}\n{batch_script(array, place)}" for array in arrays]
    jobs = sum(len(array.tasks) for array in arrays)
    later = f", {seen.later} left for later calls, by --limit" if seen.later else ""
    total = (
        f"{len(seen.free)} of {len(wanted)} runs in {jobs} jobs ({seen.done} have a result, "
        f"{len(seen.under_way)} under way{later}); at most {hours.bound(arrays)}: time limit × jobs, an upper bound "
        "for runs that one time limit is enough for"
    )
    told = [total, hours.estimate(arrays, expected or {}, chosen.signal_seconds), foresee.warned_early(arrays, chosen)]
    return "\n".join(filter(None, [*scripts, *told]))


def _wanted(sweep: Sweep, only: Collection[str] | None) -> list[Cell]:
    return [cell for cell in sweep.runs if only is None or cell.path in only]


def _ask_of(array: ArrayPlan) -> str:
    at_once = f", {array.width} at once" if array.width else ""
    after = f", after {' and '.join(array.after)}" if array.after else ""
    return (
        f"{array.name}: {array.runs} runs in {len(array.tasks)} jobs{at_once}{after}, each of {array.resources} with "
        f"{array.gpus} GPUs: at most {hours.bound([array])}"
    )


def _submit(sweep: Sweep, folder: Path, seen: Seen, name: str, chosen: profile.Profile, home: Path) -> Submitted:
    if not seen.free:
        return Submitted([], [], seen)
    identifier = secrets.token_hex(4)
    place = Place(
        folder=folder / names.SUBMISSIONS / identifier,
        sweep=folder,
        snapshot=snapshot.take(folder.parent, snapshot.contents(_imports(seen.free))),
        python=_python(chosen),
        home=home,
    )
    arrays = _planned(seen.free, folder, chosen, place, f"ham-{sweep.name}-{identifier}")
    about = {"id": identifier, "time": time.time(), "profile": name, "home": str(home), "snapshot": str(place.snapshot)}
    record = records.SubmissionRecord(folder, about, arrays)
    try:
        records.keep_runs(folder, identifier, sweep, snapshot.homes(_imports(seen.free)))
        records.keep_profile(folder, identifier, chosen)
        problem = send(arrays, place, chosen, record)
    except OSError:
        record.closed()
        raise
    record.closed()
    jobs = list(record.numbers.values())
    notes = [
        foresee.warned_early(record.sent, chosen),
        mail.request(place, chosen, jobs) if chosen.mail and jobs else "",
    ]
    done = Submitted(record.sent, jobs, seen, "" if problem else "\n".join(filter(None, notes)))
    if problem is not None:
        raise _told(problem, done, f"profile {name}")
    return done


def _told(problem: SuiteError, done: Submitted, where: str) -> SuiteError:
    """Return the error of a submission that was not accepted as a whole, which says what was."""
    missing = len(done.seen.free) - sum(array.runs for array in done.arrays)
    again = f"the same command, given again later, goes on with the {missing} runs that were not accepted"
    if done.arrays:
        return SuiteError(f"{done}; {problem}; {again}", where)
    if isinstance(problem, UserError):
        return UserError(str(problem), where)
    return SuiteError(f"{problem}; nothing was submitted: {again}", where)


def _planned(cells: Sequence[Cell], folder: Path, chosen: profile.Profile, place: Place, name: str) -> list[ArrayPlan]:
    size = cluster.array_size(cluster.configuration())
    arrays = plan(cells, chosen, place, name=name, array_size=size)
    return throttled(arrays, chosen.max_running, records.earlier(folder) if chosen.max_running else [])


def _absolute(sweep: Sweep) -> Sweep:
    """Name data and initial weights by absolute paths, so that a later submission from any folder finds them."""

    def found(cell: Cell) -> Cell:
        data, model = cell.spec.data, cell.spec.model
        if data.root is not None:
            data = data.model_copy(update={"root": os.path.abspath(os.path.expanduser(data.root))})
        if model.weights is not None:
            model = model.model_copy(update={"weights": os.path.abspath(model.weights)})
        return replace(cell, spec=cell.spec.model_copy(update={"data": data, "model": model}))

    return replace(sweep, cells=[found(cell) for cell in sweep.cells])


def _imports(cells: Sequence[Cell]) -> set[str]:
    return {name for cell in cells for name in cell.spec.imports}


def _python(chosen: profile.Profile) -> str:
    return chosen.python or shlex.quote(sys.executable)
