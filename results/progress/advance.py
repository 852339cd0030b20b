"""How far a run is and how long it will take, from its heartbeat and ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from experiments.rundir import names
from experiments.rundir.ledger import last_beat

QUIET = 600.0
"""Seconds without a step after which a running run is worth a look."""


class Advance(NamedTuple):
    """How far a run is.

    Attributes:
        step: Optimizer steps done, None if unknown.
        total: Steps of the whole run, None if unknown.
        left: Seconds to the end at the rate of the attempt under way, None where that cannot be told.
        beat: Unix seconds of the last step, None if there was none.
    """

    step: int | None = None
    total: int | None = None
    left: float | None = None
    beat: float | None = None


def progress(path: Path, attempt: int | None, now: float) -> Advance:
    """Read how far a run is.

    Args:
        path: The run's folder.
        attempt: Number of the attempt under way, None if there is none.
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
    """First step and unix seconds of an attempt."""
    try:
        lines = (path / names.LEDGER).read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        if b'"start"' in line:  # only these are worth parsing: a long run has thousands of checkpoints
            try:
                record = json.loads(line)
                if record["attempt"] == attempt:
                    return int(record["step"]), float(record["time"])
            except (ValueError, KeyError, TypeError):  # torn by a kill
                continue
    return None


def newest_checkpoint(path: Path) -> int | None:
    """Step of the newest checkpoint of a run, None if it has none."""
    try:
        files = list((path / names.CHECKPOINTS).iterdir())
    except OSError:
        return None
    return max((found[0] for file in files if (found := names.parse_checkpoint(file.name))), default=None)
