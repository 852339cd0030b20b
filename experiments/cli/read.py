"""The commands that read the files of runs; none of them loads torch."""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import SuiteError, UserError

if TYPE_CHECKING:
    from rich.text import Text

    from results.progress.status import Report

app = typer.Typer()

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder, or one run's.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[WORD]...", help="Which runs: a row, a seed (s0), a state, a job, part of a folder's name."
    ),
]


class Again(StrEnum):
    """States of runs that can be submitted again."""

    failed = "failed"
    lost = "lost"


@app.command()
def status(
    directory: Dir,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until nothing is under way.")] = False,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Time between looks of --watch.")] = 10.0,
    resubmit: Annotated[Again | None, typer.Option(help="Submit the runs in this state again.")] = None,
) -> None:
    """Say of each run whether it is done, running, pending, resumable, failed, lost or not started, and how far."""
    from results.progress import status as reader

    if [as_json, watch, resubmit is not None].count(True) > 1:
        raise UserError("--json, --watch and --resubmit exclude each other; give one")
    if watch:
        if not every <= 86400:  # a day; not a number is not either
            raise UserError(f"{every} is out of range: must be 1 to 86400 seconds", "--every")
        _watch(directory, every)
        return
    report = reader.status(directory)
    if as_json:
        print(json.dumps(reader.to_json(report), indent=1))
    elif resubmit is not None:
        print(_submit_again(report, resubmit.value))
    else:
        _print(report)


def _print(report: Report) -> None:
    from rich.console import Console

    from results.progress.status_text import render

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_colored(render(report, console.width)), soft_wrap=True)
    else:
        print(render(report))


def _colored(text: str) -> Text:
    from rich.text import Text

    colored = Text(text)
    colored.highlight_regex(r"(?m)^(failed|lost|unknown):$|^The scheduler .*$", "red")
    colored.highlight_regex(r"(?m)^(running|pending|resumable|elsewhere):$", "bold")
    return colored


def _watch(directory: Path, every: float) -> None:
    """Show the status until nothing is under way or Ctrl-C.

    On a terminal the text is updated in place; elsewhere it is printed again whenever it has changed.
    """
    from rich.console import Console
    from rich.live import Live

    from results.progress.states import UNDER_WAY
    from results.progress.status import status as look
    from results.progress.status_text import render

    console, before = Console(highlight=False), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                report = look(directory)
                if console.is_terminal:
                    text = _fitting(report, console.width, console.height - 2)
                    live.update(_colored(f"{text}\n\n{time.strftime('%H:%M:%S')}, every {every:g} s"), refresh=True)
                elif (text := render(report)) != before:
                    print(text, end="\n\n", flush=True)
                    before = text
                if not UNDER_WAY & report.counts().keys():
                    return
                time.sleep(every)
            except KeyboardInterrupt:
                return


def _fitting(report: Report, width: int, height: int) -> str:
    """Return the text with its lists shortened until it fits the terminal, or as short as possible."""
    from results.progress.status_text import LISTED, render

    texts = (render(report, width, listed) for listed in range(LISTED, 0, -1))
    text = ""
    for text in texts:
        if text.count("\n") + 1 < height:
            break
    return text


def _submit_again(report: Report, state: str) -> str:
    """Submit the failed or lost runs of a sweep again, and return a line about what was submitted."""
    from results.runs.submissions import submissions

    folder = report.sweep.directory
    if report.problem is not None:
        raise SuiteError(f"nothing was submitted; the scheduler says: {report.problem}", str(folder))
    runs = [run.path for run in report.runs if run.state == state]
    if not runs:
        return f"no run is {state}; nothing was submitted"
    submitted = submissions(folder)
    known = [path for path in runs if path in submitted.by_run]
    if not known:
        raise UserError(f"{len(runs)} runs are {state}, but none was submitted: `ham sweep` goes on here", str(folder))
    from slurm.submit import resubmit

    done = resubmit(submitted.home, [str(path.relative_to(submitted.home)) for path in known])
    left = len(runs) - len(known)
    return f"{done}" + (f"; {left} were never submitted: `ham sweep` goes on with them" if left else "")


@app.command()
def logs(
    directory: Dir,
    words: Words = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the last lines of each file.")] = None,
    rank: Annotated[int, typer.Option(min=0, help="Output of this rank of the job.")] = 0,
) -> None:
    """Print a run's own log and the output of its newest job, or list the runs that the words fit."""
    from results.progress.end import end_of
    from results.progress.logs import Follower, files_of
    from results.progress.select import select
    from results.runs.store import read_plan
    from results.runs.submissions import submissions

    sweep = read_plan(directory)
    submitted = submissions(sweep.directory)
    runs = select(sweep, submitted, words or [])
    if len(runs) > 1:
        paths = {run.path for run in runs}
        print(_choice(directory, paths))
        return
    path = runs[0].path
    printed = Follower(lambda text: print(text, end="", flush=True))
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

    order = ("failed", "lost", "running", "resumable", "unknown", "elsewhere", "pending", "done")
    runs = [run for run in look(directory).runs if run.path in paths]
    runs.sort(key=lambda run: order.index(run.state) if run.state in order else len(order))
    shown = [f"{run.state:<15}  {run.path.name}" for run in runs[:40]]
    more = [f"and {len(runs) - 40} more"] if len(runs) > 40 else []
    return "\n".join([*shown, *more, f"these are {len(runs)} runs: say which, as in `ham logs {directory} WORD`"])


@app.command()
def cancel(
    directory: Dir,
    words: Words = None,
) -> None:
    """Cancel the jobs of a sweep's runs, or of those that the words fit; runs that have begun can be resumed."""
    from results.progress.select import select
    from results.runs.store import read_plan
    from results.runs.submissions import submissions
    from slurm.cancel import cancel as take_out

    sweep = read_plan(directory)
    submitted = submissions(sweep.directory)
    print(take_out(submitted, [run.path for run in select(sweep, submitted, words or [])]))
