"""One e-mail at the end of a sweep: a small job that starts when all others are over, about which Slurm sends it.

Slurm's own ``--mail-type`` of an array mails each array, or each requeue, and not the end of a table. A job that
depends on all arrays starts once, since a requeued job is not over. No process watches, so the login session may end.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection
from pathlib import Path

from results.runs.submissions import submissions

from .plan import Place
from .profile import Profile
from .scheduler import cluster, queue

_SCRIPT = """\
#!/bin/bash
{setup}
export PYTHONPATH={snapshot}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1
# all runs done: COMPLETED in the e-mail; anything else: FAILED
{python} -m experiments.cli wait {sweep} --timeout 300
"""


def request(place: Place, chosen: Profile, jobs: Collection[str]) -> str:
    """Submit the job about whose end Slurm sends an e-mail, in place of one of an earlier submission.

    An e-mail is no reason for runs not to be submitted: whatever goes wrong here is said, and nothing else.

    Args:
        place: The folders of the submission.
        chosen: The profile; its `mail` is the address, or true for that of the account.
        jobs: Numbers of the arrays that were submitted.

    Returns:
        What to tell the user.
    """
    name = f"ham-end-{place.sweep.name}-{hashlib.sha256(str(place.sweep).encode()).hexdigest()[:8]}"
    numbers = {task.array for task in submissions(place.sweep).tasks if task.array} | set(jobs)
    answer = queue.queue(numbers, [name])
    active = [job for job in answer.jobs.values() if job.active]
    script = place.folder / "mail.sh"
    script.write_text(
        _SCRIPT.format(
            setup="\n".join(chosen.setup),
            snapshot=shlex.quote(str(place.snapshot)),
            python=place.python,
            sweep=shlex.quote(str(place.sweep)),
        )
    )
    waits = {job.id.partition("_")[0] for job in active if job.name != name} | set(jobs)
    output, problem = cluster.ask("sbatch", "--parsable", *_options(name, place.folder, chosen, waits), str(script))
    if problem is not None:
        return f"no e-mail at the end: {problem}"
    queue.cancel(job.id for job in active if job.name == name)
    return f"e-mail at the end: job {output.split(';')[0].strip()}"


def _options(name: str, folder: Path, chosen: Profile, waits: Collection[str]) -> list[str]:
    options = [
        f"--job-name={name}",
        f"--dependency=afterany:{':'.join(sorted(waits))}",
        "--mail-type=END,FAIL",
        "--time=10",
        "--nodes=1",
        "--ntasks=1",
        f"--output={str(folder / 'mail.log').replace('%', '%%')}",
    ]
    options += [f"--mail-user={chosen.mail}"] if isinstance(chosen.mail, str) else []
    for key in ("partition", "account", "qos", "reservation", "constraint"):
        value = getattr(chosen, key)
        options += [f"--{key}={value}"] if value is not None else []
    return options
