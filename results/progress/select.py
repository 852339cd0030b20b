"""Selection of a sweep's runs by words of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from experiments.errors import UserError, nearest
from results.runs.schema import RunEntry, SweepResults, place
from results.runs.submissions import Submissions

from .states import STATES

_SEED = re.compile(r"s(\d+)")


def select(sweep: SweepResults, submitted: Submissions, words: Sequence[str]) -> list[RunEntry]:
    """Return the runs that match all words; all runs if there are no words.

    A word is the label of a row, a seed ("s3"), a state ("failed"), a job ("1234_5", "1234"), or a part of the run
    folder's name or of its cell's name in the table.

    Args:
        sweep: The sweep.
        submitted: Its submissions, for words that are jobs.
        words: The words.

    Raises:
        UserError: if a word matches none of the runs that match the words before it.
    """
    found = list(sweep.runs)
    for word in words:
        fitting = _fitting(sweep, submitted, found, word)
        if not fitting and word.casefold() in STATES:
            raise UserError(f"no run is {word}", where=str(sweep.directory))
        if not fitting:
            names = [name.casefold() for name in (*sweep.rows, *(run.path.name for run in found), *STATES)]
            raise UserError(f"no run fits {word!r}{nearest(word.casefold(), names)}", where=str(sweep.directory))
        found = fitting
    return found


def _fitting(sweep: SweepResults, submitted: Submissions, runs: Sequence[RunEntry], word: str) -> list[RunEntry]:
    text = word.casefold()
    # an exact match takes precedence: "RiGL" does not match "RiGL + HAM"
    if exact := [run for run in runs if run.row.casefold() == text]:
        return exact
    if seed := _SEED.fullmatch(text):
        return [run for run in runs if run.seed == int(seed[1])]
    if text in STATES:
        return _in_state(sweep, runs, text)
    jobs = {task for task in submitted.tasks if word in (task.id, task.array)}
    if jobs:
        return [run for run in runs if any(run.path in task.runs for task in jobs)]
    return [run for run in runs if text in f"{run.path.name} {place(sweep, run.row, run.column)}".casefold()]


def _in_state(sweep: SweepResults, runs: Sequence[RunEntry], state: str) -> list[RunEntry]:
    from .status import status  # queries the scheduler, which other words do not need

    paths = {run.path for run in status(sweep.directory).runs if run.state == state}
    return [run for run in runs if run.path in paths]
