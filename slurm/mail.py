"""One e-mail at the end of a sweep: a small job that starts when all others are over, about which Slurm sends it.

Slurm's own ``--mail-type`` of an array mails each array, or each requeue, and not the end of a table.
"""

from __future__ import annotations

from collections.abc import Collection

from . import errand
from .plan import Place
from .profile import Profile


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
    job, problem = errand.send(
        errand.name_of("end", place.sweep),
        ["wait", str(place.sweep), "--timeout", "300"],
        "all runs done: COMPLETED in the e-mail; anything else: FAILED",
        sweep=place.sweep,
        folder=place.folder,
        snapshot=place.snapshot,
        python=place.python,
        home=place.home,
        chosen=chosen,
        jobs=jobs,
        options=["--mail-type=END,FAIL", *([f"--mail-user={chosen.mail}"] if isinstance(chosen.mail, str) else [])],
    )
    return f"e-mail at the end: job {job}" if problem is None else f"no e-mail at the end: {problem}"
