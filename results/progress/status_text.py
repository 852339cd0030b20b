"""The states of runs as text for the terminal."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.durations import words
from results.runs.schema import SweepResults, place

from .advance import QUIET
from .logs import near
from .report import Report, RunState
from .states import STATES, State

LISTED = 20
"""Number of runs per state that `render` lists one by one."""

_SILENT: frozenset[State] = frozenset({"done", "not started", "never submitted"})  # counted, not listed

_NOWHERE: frozenset[State] = frozenset({"pending", "held", "elsewhere", "resumable"})  # no node is at work on them


def summary(reports: Sequence[Report]) -> str:
    """Return one line for each of several directories."""
    lines = [f"{near(report.sweep.directory)}: {_counted(report)}" for report in reports]
    return "\n".join([*_problem(reports), *lines, "", "`ham status DIR` with one of them shows its runs"])


def changes(reports: Sequence[Report], said: dict[Path, str]) -> Iterator[str]:
    """Yield a line for each directory whose numbers of runs by state are not those that were said before.

    Args:
        reports: The states.
        said: What was said last of each directory; is updated.
    """
    for report in reports:
        folder, counts = report.sweep.directory, ", ".join(f"{n} {state}" for state, n in report.counts().items())
        text = f"{near(folder)}: {counts}" + (f" (the scheduler says: {report.problem})" if report.problem else "")
        if said.get(folder) != text:
            said[folder] = text
            yield text


def render(report: Report, width: int | None = None, listed: int = LISTED) -> str:
    """Return counts per row, followed by lists of the runs that run, wait, failed or were lost.

    Args:
        report: The states.
        width: Width of the terminal in characters; None does not break lines.
        listed: Number of runs per state that are listed one by one.
    """
    sweep, counts = report.sweep, report.counts()
    shown: list[State] = [state for state in STATES if state in counts or state == "done"]
    blocks = [f"{sweep.name}: {_counted(report)}", _by_row(sweep, report.runs, shown, width)]
    blocks = [*_problem([report]), *blocks]
    for state in shown:
        if state not in _SILENT and state in counts:
            blocks.append(_listing(report, state, listed))
    return "\n\n".join(_wrap(block, width) for block in blocks)


def _problem(reports: Sequence[Report]) -> list[str]:
    problem = next((report.problem for report in reports if report.problem), None)
    said = f"The scheduler could not be asked ({problem}): what only it can tell is unknown here."
    return [said] if problem else []


def _counted(report: Report) -> str:
    counts = report.counts()
    plural = "run" if len(report.runs) == 1 else "runs"
    shown: list[State] = [state for state in STATES if state in counts or state == "done"]
    text = ", ".join(f"{counts.get(state, 0)} {state}" for state in shown)
    requeued = sum(run.restarts > 0 for run in report.runs if run.state in ("running", "pending"))
    text += f" ({requeued} requeued)" if requeued else ""
    times = [run.left for run in report.runs if run.left is not None]
    if times and counts.get("running", 0) == len(times):
        text += f"; those that run end within {words(max(times))}"
    if strays := len(report.sweep.strays):
        text += f"; {strays} further {'run lies' if strays == 1 else 'runs lie'} in the folder and in no row"
    return f"{len(report.runs)} {plural}, {text}"


def _by_row(sweep: SweepResults, runs: Sequence[RunState], shown: Sequence[State], width: int | None) -> str:
    counts = {row: Counter(run.state for run in runs if run.row == row) for row in sweep.rows}
    first = max(len("Row"), *(len(row) for row in sweep.rows))
    updates = _updates(runs)
    last = ["mask updates"] if updates else []
    lines = ["  ".join(["Row".ljust(first), *shown, "of", *last])]
    for row, count in counts.items():
        numbers = [str(count[state] or "-").rjust(len(state)) for state in shown]
        ends = [updates.get(row, "-").rjust(len(head)) for head in last]
        lines.append("  ".join([row.ljust(first), *numbers, str(count.total()).rjust(2), *ends]))
    if width is None or max(map(len, lines)) <= width:
        return "\n".join(lines)
    return "\n".join(
        f"{row}: {', '.join(f'{count[state]} {state}' for state in shown if count[state])} of {count.total()}"
        + (f"; {updates[row]} mask updates" if row in updates else "")
        for row, count in counts.items()
    )


def _updates(runs: Sequence[RunState]) -> dict[str, str]:
    """Return how often the masks of each row's finished runs changed, the fewest and the most, where it is known."""
    found: dict[str, list[int]] = {}
    for run in runs:
        if run.mask_updates is not None:
            found.setdefault(run.row, []).append(run.mask_updates)
    return {row: "–".join(dict.fromkeys(f"{one:,}" for one in (min(each), max(each)))) for row, each in found.items()}


def _listing(report: Report, state: State, listed: int) -> str:
    runs = [run for run in report.runs if run.state == state]
    lines = [f"{state}:"]
    for run in runs[:listed]:
        text = f"  {place(report.sweep, run.row, run.column)}, seed {run.seed}"
        parts = _parts(report, run)
        lines.append(f"{text}: {'; '.join(parts)}" if parts else text)
        if run.log is not None:
            lines.append(f"    {near(run.log)}")
    if len(runs) > listed:
        rest = Counter(run.note for run in runs[listed:])
        notes = ", ".join(f"{count} {note}" for note, count in rest.most_common(3) if note and state == "pending")
        lines.append(f"  and {len(runs) - listed} more" + (f": {notes}" if notes else ""))
    return "\n".join(lines)


def _parts(report: Report, run: RunState) -> list[str]:
    """Return the parts of the text on one run, the most important first."""
    parts = [] if run.note is None else [run.note]
    if run.step is not None:
        share = f" of {run.total} ({100 * run.step / run.total:.0f} %)" if run.total else ""
        parts.append(f"step {run.step}{share}")
    if run.left is not None:
        parts.append(f"{words(run.left)} left")
    if run.state == "running" and run.beat is not None and report.time - run.beat > QUIET:
        parts.append(f"no step for {words(report.time - run.beat)}")
    if run.state == "pending" and run.starts is not None:
        parts.append(f"expected to start {time.strftime('%a %H:%M', time.localtime(run.starts))}")
    if run.state == "unknown" and run.beat is not None:
        parts.append(f"last step {words(report.time - run.beat)} ago")
    if run.state in ("lost", "cancelled") and run.checkpoint is not None:
        parts.append(f"goes on from step {run.checkpoint}")
    if run.restarts:
        times = "1 time" if run.restarts == 1 else f"{run.restarts} times"
        parts.append(f"requeued {times}")
    where = [f"job {run.job}"] if run.job else []
    where += [f"on {run.node}"] if run.node and run.state not in _NOWHERE else []
    return parts + ([" ".join(where)] if where else [])


def _wrap(block: str, width: int | None) -> str:
    """Break lines that the terminal would break within words; paths are not broken, so that they can be copied."""
    if width is None:
        return block
    lines = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        lines += textwrap.wrap(
            line.strip(),
            max(width, 20),
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + 2),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)
