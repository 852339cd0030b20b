"""Progress on the terminal: bars on an interactive one, lines elsewhere."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments.launch.pool import Listener, TaskResult

from .lines import SweepLines

console = Console(stderr=True, highlight=False)


def interactive() -> bool:
    """Return whether somebody sees what is drawn over; rich would also draw into a file if FORCE_COLOR is set."""
    return console.is_terminal and sys.stderr.isatty()


def width() -> int | None:
    """Return the width of the terminal that standard output is, or None where it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def next_step(words: str) -> None:
    """Say on standard error what to do now, so that what is on standard output stays the result."""
    print(f"next: {words}", file=sys.stderr, flush=True)


def shown(total: int, unit: str = "runs") -> SweepBars | SweepLines:
    """Return what shows the progress of some tasks: bars, or lines where there is no terminal.

    Args:
        total: Number of tasks.
        unit: Plural noun for the tasks.
    """
    return SweepBars(total, unit) if interactive() else SweepLines(total, unit)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(Text(record.getMessage()), soft_wrap=True)


@contextmanager
def damage_said() -> Iterator[None]:
    """Print what is said about damaged files of a run and about W&B, besides its log."""
    loggers, handler = (
        [logging.getLogger(f"experiments.{room}") for room in ("rundir", "tracking")],
        _Said(logging.WARNING),
    )
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class SweepBars(Listener):
    """One progress bar over all tasks, and one for each running task.

    Args:
        total: Number of tasks.
        unit: Plural noun for the tasks, shown beside the bar over all.
    """

    def __init__(self, total: int, unit: str):
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._all = self._bars.add_task(unit, total=total)
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> SweepBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a terminal that was closed
            self._bars.stop()

    def planned(self, total: int) -> None:
        """Let the bar over all end at this number."""
        self._bars.update(self._all, total=total)

    def started(self, name: str) -> None:
        """Add a bar for the task."""
        self._ids[name] = self._bars.add_task(name, total=None)

    def progress(self, name: str, done: int, total: int) -> None:
        """Move the bar of the task."""
        self._bars.update(self._ids[name], completed=done, total=total)

    def waits(self, words: str) -> None:
        """Say what is waited for."""
        self._bars.console.print(Text(words), soft_wrap=True)

    def finished(self, name: str, outcome: TaskResult) -> None:
        """Remove the bar of the task, and print its error, if there is one."""
        self._bars.remove_task(self._ids.pop(name))
        if outcome.busy:
            return
        self._bars.advance(self._all)
        if outcome.error and not outcome.interrupted:
            # a Text, since brackets in an error would be read as markup
            self._bars.console.print(Text.assemble(("failed", "red"), f" {name}: {outcome.error}"), soft_wrap=True)
