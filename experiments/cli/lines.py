"""Progress where there is no terminal, as in a log: a line for each run that ends, with the time that is left."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from statistics import fmean
from typing import Any

from experiments.durations import words
from experiments.errors import printable
from experiments.launch.pool import Listener, TaskResult


class SweepLines(Listener):
    """Prints one line when a task has ended, and nothing that steers a terminal.

    Args:
        total: Number of tasks.
        unit: Plural noun for the tasks, said where they are no runs.
    """

    def __init__(self, total: int, unit: str = "runs"):
        self._unit = "" if unit == "runs" else f" {unit}"
        self._total, self._ended, self._at_once = total, 0, 1
        self._began: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._seconds: list[float] = []

    def __enter__(self) -> SweepLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each line was flushed."""

    def planned(self, total: int) -> None:
        """Count up to this number."""
        self._total = total

    def started(self, name: str) -> None:
        """Note when the task began."""
        self._began[name] = time.monotonic()
        self._at_once = max(self._at_once, len(self._began))

    def progress(self, name: str, done: int, total: int) -> None:
        """Note how much of the task is done."""
        self._shares[name] = done / total

    def waits(self, words: str) -> None:
        """Say what is waited for."""
        _say(words)

    def finished(self, name: str, outcome: TaskResult) -> None:
        """Say how the task ended, unless it can be resumed later."""
        seconds = time.monotonic() - self._began.pop(name)
        self._shares.pop(name, None)
        if outcome.busy or outcome.interrupted:
            return
        self._ended += 1
        if outcome.error is None:
            self._seconds.append(seconds)
            ended = f"{_of(outcome.value)} after {words(seconds)}"
        else:
            ended = f"failed after {words(seconds)}: {outcome.error}"
        left = self._left()
        more = f"; {words(left)} left" if left is not None else ""
        _say(f"[{self._ended}/{self._total}{self._unit}] {name}: {ended}{more}")

    def _left(self) -> float | None:
        """Return the seconds until the end, if the rest takes as long as what has ended; None if nothing is known."""
        rest = self._total - self._ended
        if rest <= 0 or not self._seconds:
            return None
        under_way = [1 - self._shares.get(name, 0.0) for name in self._began]
        waiting = max(0, rest - len(under_way))
        return fmean(self._seconds) * max((waiting + sum(under_way)) / self._at_once, min(waiting, 1), *under_way)


def _of(value: Any) -> str:
    accuracy = value.get("accuracy") if isinstance(value, dict) else None
    return "done" if accuracy is None else f"{100 * accuracy:.1f} %"


def _say(text: str) -> None:
    with suppress(OSError):  # of a terminal that was closed, or a full disk
        print(printable(" ".join(text.split())), file=sys.stderr, flush=True)
