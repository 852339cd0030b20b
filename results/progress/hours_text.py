"""The hours of a sweep as text."""

from __future__ import annotations

from collections.abc import Sequence

from .hours import Hours, HoursReport, by_row, total

_HEAD = ("runs", "starts", "hours", "GPU-hours", "CPU-hours")
_SOURCES = {
    "accounting": "what Slurm had reserved (sacct, all starts of requeued jobs)",
    "attempts": "what the runs recorded of themselves, without the time before Python and while jobs wait",
}


def render(report: HoursReport, *, each: bool = False) -> str:
    """Return the hours by row, with the sum at the end.

    Args:
        report: The hours.
        each: Whether to list each run below its row.
    """
    lines: list[tuple[str, ...]] = [(report.sweep.name, *_HEAD)]
    for row, sums in by_row(report).items():
        lines.append((row, *_cells(sums)))
        if each:
            lines += [(f"  {one.run.path.name}", *_cells(total([one]))) for one in report.runs if one.run.row == row]
    sums = total(report.runs)
    lines.append(("all", *_cells(sums)))
    notes = [f"{sums.done} of {sums.runs} runs are done; {_source(report, sums)}"]
    if report.problem is not None:
        notes.append(f"sacct says: {report.problem}")
    return "\n".join([*_aligned(lines), "", *notes])


def _source(report: HoursReport, sums: Hours) -> str:
    if len(sums.sources) < 2:
        return f"counted is {_SOURCES[sums.sources[0]]}" if sums.sources else "nothing was started"
    some = sum("attempts" in total([one]).sources for one in report.runs)
    part = f"for {some} of {sums.runs} runs, in whole or in part, {_SOURCES['attempts']}"
    return f"counted is {_SOURCES['accounting']}; {part}"


def _cells(sums: Hours) -> tuple[str, ...]:
    numbers = (sums.hours, sums.gpu_hours, sums.cpu_hours)
    return (str(sums.runs), str(sums.starts), *(_number(hours) for hours in numbers))


def _number(hours: float) -> str:
    """Three digits are enough; a minute is 0.0167."""
    return "0" if hours == 0 else f"{hours:.3g}" if hours < 100 else f"{hours:,.0f}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in lines]
