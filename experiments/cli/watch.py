"""The commands that look at runs until they are done: `ham status` and `ham wait`; neither loads torch."""

from __future__ import annotations

import json
import math
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import SuiteError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.text import Text

    from results.progress.report import Report

from . import complete, menu

app = typer.Typer()

Every = Annotated[float, typer.Option("--every", metavar="SECONDS", help="Time between two looks.")]
Dirs = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR...", help="Folders of sweeps, of runs, or of many sweeps.", autocompletion=complete.folders
    ),
]
TIMED_OUT = 124
"""Exit code of a `ham wait` whose time is over, that of timeout(1)."""


class Again(StrEnum):
    """States of runs that can be submitted again."""

    failed = "failed"
    lost = "lost"
    cancelled = "cancelled"


@app.command(
    **menu.listed(
        menu.LOOK,
        "ham status runs/quickstart",
        "ham status runs --watch",
        "ham status runs/quickstart --resubmit failed",
    )
)
def status(
    directories: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...",
            help="Folders of sweeps or runs; with --resubmit: DIR [WORD]..., which runs.",
            autocompletion=complete.folders,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until nothing is under way.")] = False,
    every: Every = 10.0,
    resubmit: Annotated[Again | None, typer.Option(help="Submit the runs in this state again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --resubmit: how many may wait or run at once.")] = None,
) -> None:
    """Say of each run whether it is done, running, waiting, failed, lost or cancelled, and how far it is.

    The exit code is 1 if a run has failed, was lost or was never submitted, and 0 otherwise.
    """
    from results.progress import report as values
    from results.progress.status import status as look

    if [as_json, watch, resubmit is not None].count(True) > 1:
        raise UserError("--json, --watch and --resubmit exclude each other; give one")
    if limit is not None and resubmit is None:
        raise UserError("belongs to --resubmit", "--limit")
    if resubmit is not None:
        print(_submit_again(look(directories[0]), resubmit.value, directories[1:], limit))
        return
    if absent := [one for one in directories[1:] if not Path(one).exists()]:
        raise UserError("no such folder; words that select runs belong to --resubmit", absent[0])
    _check_every(every)
    reports = _watched(directories, every) if watch else _reports(directories)
    if as_json:
        shown = [values.to_json(report) for report in reports]
        print(json.dumps(shown[0] if _is_single(directories, reports) else shown, indent=1))
    elif not watch:
        _print(reports)
    raise typer.Exit(int(any(report.bad for report in reports)))


@app.command(**menu.listed(menu.LOOK, "ham wait runs/quickstart && ham table runs/quickstart"))
def wait(
    directories: Dirs,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Longest time to wait; default: no limit.")
    ] = None,
    every: Every = 10.0,
) -> None:
    """Wait until nothing is under way, and print the number of runs in each state whenever it changes.

    The exit code is 0 if all runs are done, 1 if some are not, and 124 if the time is over.
    """
    from results.progress.status_text import changes

    _check_every(every)
    until = math.inf if timeout is None else time.monotonic() + timeout
    said: dict[Path, str] = {}

    def say(reports: Sequence[Report]) -> None:
        for line in changes(reports, said):
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    reports = _looked(lambda: _reports(directories), say, every, until)
    if any(report.under_way for report in reports):
        print(f"still under way after {timeout:g} s; the same command goes on waiting", flush=True)
        raise typer.Exit(TIMED_OUT)
    raise typer.Exit(int(not all(report.done for report in reports)))


def _check_every(every: float) -> None:
    if not 1 <= every <= 86400:  # a day; not a number is not either
        raise UserError(f"{every:g} is out of range: must be 1 to 86400 seconds", "--every")


def _reports(directories: Sequence[str] | Sequence[Path]) -> list[Report]:
    from results.progress.status import statuses
    from results.runs.discover import places

    return statuses(list(dict.fromkeys(place.resolve() for one in directories for place in places(one))))


def _is_single(directories: Sequence[str], reports: Sequence[Report]) -> bool:
    return [Path(one).resolve() for one in directories] == [report.sweep.directory for report in reports]


def _looked(
    look: Callable[[], list[Report]], show: Callable[[list[Report]], None], every: float, until: float = math.inf
) -> list[Report]:
    """Look and show again and again until nothing is under way, or until the time is over; return the last look.

    Between the end of one process and the start of the next one nothing may seem to be under way: only the second look
    in a row that says so counts, unless all runs are done.
    """
    quiet = False
    while True:
        reports = look()
        show(reports)
        busy = any(report.under_way for report in reports)
        if time.monotonic() >= until or all(report.done for report in reports) or (quiet and not busy):
            return reports
        quiet = not busy
        time.sleep(max(0.0, min(every if busy else 1.0, until - time.monotonic())))


def _text(reports: Sequence[Report], width: int | None = None, height: int | None = None) -> str:
    """Return the text of one look; its lists are shortened until it fits the terminal, or as short as possible."""
    from results.progress.status_text import LISTED, render, summary

    if len(reports) > 1:
        return summary(reports)
    text = ""
    for listed in range(LISTED, 0, -1):
        text = render(reports[0], width, listed)
        if height is None or text.count("\n") + 1 < height:
            break
    return text


def _print(reports: Sequence[Report]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_colored(_text(reports, console.width)), soft_wrap=True)
    else:
        print(_text(reports))


def _colored(text: str) -> Text:
    from rich.text import Text

    colored = Text(text)
    colored.highlight_regex(r"(?m)^(failed|lost|unknown):$|^The scheduler .*$", "red")
    colored.highlight_regex(r"(?m)^(running|suspended|completing|pending|held|resumable|elsewhere|cancelled):$", "bold")
    return colored


def _watched(directories: Sequence[str], every: float) -> list[Report]:
    """Show the status until nothing is under way or Ctrl-C, and return the last one.

    On a terminal the text is updated in place; elsewhere it is printed again whenever it has changed.
    """
    from rich.console import Console
    from rich.live import Live

    console, before, reports = Console(highlight=False), "", _reports(directories)

    def show(found: list[Report]) -> None:
        nonlocal before, reports
        reports = found
        if console.is_terminal:
            text = _text(reports, console.width, console.height - 2)
            live.update(_colored(f"{text}\n\n{time.strftime('%H:%M:%S')}, every {every:g} s"), refresh=True)
        elif (text := _text(reports)) != before:
            print(text, end="\n\n", flush=True)
            before = text

    with Live(console=console, auto_refresh=False) as live:
        try:
            return _looked(lambda: _reports(directories), show, every)
        except KeyboardInterrupt:
            return reports


def _submit_again(report: Report, state: str, words: Sequence[str], limit: int | None) -> str:
    """Submit the runs of a sweep in one state again, or those of them that the words fit; say what was submitted."""
    from results.progress.select import select
    from results.runs.submissions import submissions

    folder = report.sweep.directory
    if report.problem is not None:
        raise SuiteError(f"nothing was submitted; the scheduler says: {report.problem}", str(folder))
    submitted = submissions(folder)
    meant = {run.path for run in select(report.sweep, submitted, words)}
    runs = [run.path for run in report.runs if run.state == state and run.path in meant]
    if not runs:
        which = f" of those that {' '.join(words)} fits" if words else ""
        return f"no run{which} is {state}; nothing was submitted"
    known = [path for path in runs if path in submitted.by_run]
    if not known:
        raise UserError(f"{len(runs)} runs are {state}, but none was submitted: `ham sweep` goes on here", str(folder))
    from slurm.submit import resubmit

    done = resubmit(submitted.home, [str(path.relative_to(submitted.home)) for path in known], limit=limit)
    left = len(runs) - len(known)
    return f"{done}" + (f"; {left} were never submitted: `ham sweep` goes on with them" if left else "")
