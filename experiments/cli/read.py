"""The commands that read the files of runs; none of them loads torch."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import UserError

from . import menu
from .options import Dir, Words

app = typer.Typer()

MOST_SHOWN = 10
"""Number of runs whose logs are printed below each other; more are listed, to choose from."""


@app.command(**menu.listed(menu.LOOK, "ham logs runs/quickstart RiGL s0 -f", "ham logs runs/quickstart failed -n 20"))
def logs(
    directory: Dir,
    words: Words = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the output until the run ends.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the last lines of each file.")] = None,
    rank: Annotated[int, typer.Option(min=0, help="Output of this rank of the job.")] = 0,
) -> None:
    """Print a run's own log and the output of its newest job, of each run that the words fit; list them if many do."""
    from results.progress.end import end_of
    from results.progress.logs import Follower, files_of
    from results.progress.select import select
    from results.runs.store import read_plan
    from results.runs.submissions import submissions

    sweep = read_plan(directory)
    submitted = submissions(sweep.directory)
    runs = select(sweep, submitted, words or [])
    printed = Follower(lambda text: print(text, end="", flush=True))
    if len(runs) > 1:
        paths = dict.fromkeys(run.path for run in runs)
        if follow or not words or len(paths) > MOST_SHOWN:
            print(_choice(directory, set(paths)))
            return
        seen = {path: printed.look(files_of(path, submitted.by_run.get(path, []), rank), lines) for path in paths}
        if silent := [path.name for path, some in seen.items() if not some]:
            print(f"no log yet: {', '.join(silent)}", file=sys.stderr)
        return
    path = runs[0].path
    some = printed.look(files_of(path, submitted.by_run.get(path, []), rank), lines)
    if not some and not follow:
        raise UserError("has no log yet: it has not begun, or its job has written nothing", str(path))
    try:
        while follow:
            end = end_of(path)
            tasks = submissions(sweep.directory).by_run.get(path, [])  # it may have been submitted again meanwhile
            if not printed.look(files_of(path, tasks, rank)) and end is not None:
                print(end, file=sys.stderr)
                return
            time.sleep(1 if end is None else 0)
    except KeyboardInterrupt:
        return


def _choice(directory: Path, paths: set[Path]) -> str:
    """Return a list of runs to choose from, those with problems first."""
    from results.progress.status import status as look

    order = ("failed", "lost", "cancelled", "running", "resumable", "unknown", "elsewhere", "pending", "done")
    runs = [run for run in look(directory).runs if run.path in paths]
    runs.sort(key=lambda run: order.index(run.state) if run.state in order else len(order))
    shown = [f"{run.state:<15}  {run.path.name}" for run in runs[:40]]
    more = [f"and {len(runs) - 40} more"] if len(runs) > 40 else []
    return "\n".join([*shown, *more, f"these are {len(runs)} runs: say which, as in `ham logs {directory} WORD`"])
