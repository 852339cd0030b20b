"""A small job that starts when others are over and calls one command of the suite, with the code of a snapshot.

A job that depends on all arrays starts once, since a requeued job is not over. No process watches, so the login session
may end.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from results.runs.submissions import submissions

from .profile import Profile
from .scheduler import cluster, queue

_SCRIPT = """\
#!/bin/bash
{setup}
export PYTHONPATH={snapshot}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1
cd {home} || exit 1
# {comment}
{python} -m experiments.cli {command}
"""
_MINUTES = 10


def name_of(kind: str, sweep: Path) -> str:
    """Name the one errand of a kind that a sweep's folder has."""
    return f"ham-{kind}-{sweep.name}-{hashlib.sha256(str(sweep).encode()).hexdigest()[:8]}"


def send(
    name: str,
    command: Sequence[str],
    comment: str,
    *,
    sweep: Path,
    folder: Path,
    snapshot: Path,
    python: str,
    home: Path,
    chosen: Profile,
    jobs: Collection[str],
    options: Sequence[str] = (),
) -> tuple[str, str | None]:
    """Submit an errand that waits for all jobs of a sweep, in place of an earlier one of the same name.

    Args:
        name: Of the job, from `name_of`; also of its script and log in `folder`.
        command: What follows ``ham``.
        comment: What the exit code means.
        sweep: The sweep's folder.
        folder: Folder of the submission.
        snapshot: The code.
        python: Command that starts Python.
        home: Working directory.
        chosen: The profile.
        jobs: Numbers of arrays that were submitted a moment ago.
        options: Further arguments of sbatch.

    Returns:
        The job's number and None, or an empty text and why there is none.
    """
    numbers = {task.array for task in submissions(sweep).tasks if task.array} | set(jobs)
    answer = queue.queue(numbers, [name])
    active = [job for job in answer.jobs.values() if job.active]
    waits = {job.id.partition("_")[0] for job in active if job.name != name} | set(jobs)
    script = folder / f"{name}.sh"
    script.write_text(
        _SCRIPT.format(
            setup="\n".join(chosen.setup),
            snapshot=shlex.quote(str(snapshot)),
            home=shlex.quote(str(home)),
            comment=comment,
            python=python,
            command=shlex.join(command),
        )
    )
    after = [f"--dependency=afterany:{':'.join(sorted(waits))}"] if waits else []
    asked = [f"--job-name={name}", *after, *_usual(script, chosen), *options]
    output, problem = cluster.ask("sbatch", "--parsable", *asked, str(script))
    if problem is not None:
        return "", problem
    queue.cancel(job.id for job in active if job.name == name)
    return output.split(";")[0].strip(), None


def _usual(script: Path, chosen: Profile) -> list[str]:
    log = str(script.with_suffix(".log")).replace("%", "%%")
    options = [f"--time={_MINUTES}", "--nodes=1", "--ntasks=1", f"--output={log}"]
    for key in ("partition", "account", "qos", "reservation", "constraint"):
        value = getattr(chosen, key)
        options += [f"--{key}={value}"] if value is not None else []
    return options
