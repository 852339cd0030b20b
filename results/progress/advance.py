"""The progress of a run and its remaining time, from its heartbeat and ledger."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from experiments.rundir import names
from experiments.rundir.ledger import Entry, last_beat
from experiments.rundir.reading import Unreadable, parse_json, read_regular, typed

QUIET = 600.0
"""Seconds without a step after which a running run is reported as quiet."""


class Advance(NamedTuple):
    """The progress of a run.

    Attributes:
        step: Optimizer steps done, None if unknown.
        total: Steps of the whole run, None if unknown.
        left: Seconds until the end at the speed of the current attempt, None if unknown.
        beat: Unix seconds of the last step, None if there was none.
    """

    step: int | None = None
    total: int | None = None
    left: float | None = None
    beat: float | None = None


def progress(path: Path, attempt: int | None, now: float) -> Advance:
    """Read the progress of a run.

    Args:
        path: The run's folder.
        attempt: Number of the current attempt, None if there is none.
        now: Unix seconds.
    """
    beat = last_beat(path)
    if beat is None:
        return Advance()
    left = None
    start = _start(path, beat.attempt) if attempt == beat.attempt else None
    if start is not None and now - beat.time < QUIET:
        first, begun = start
        if beat.step > first and beat.time > begun:
            rate = (beat.step - first) / (beat.time - begun)
            left = max(0.0, (beat.total - beat.step) / rate - max(0.0, now - beat.time))
    return Advance(beat.step, beat.total, left, beat.time)


def _start(path: Path, attempt: int) -> tuple[int, float] | None:
    """Return the first step of an attempt and the unix seconds of its start; None if unknown."""
    try:
        lines = read_regular(path / names.LEDGER).splitlines()
    except (FileNotFoundError, Unreadable):
        return None
    for line in reversed(lines):
        if b'"start"' in line:  # only these are worth parsing: a long run has thousands of checkpoints
            try:
                entry = typed(Entry, parse_json(line))
            except Unreadable:  # a line that a killed process left incomplete
                continue
            if entry.attempt == attempt:
                return entry.step, entry.time
    return None


def newest_checkpoint(path: Path) -> int | None:
    """Return the step of the newest checkpoint of a run, or None if it has none."""
    try:
        files = list((path / names.CHECKPOINTS).iterdir())
    except OSError:
        return None
    return max((found[0] for file in files if (found := names.parse_checkpoint(file.name))), default=None)
