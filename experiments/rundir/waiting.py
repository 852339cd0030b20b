"""Waits for those who hold or held a run directory; each yields once a second, so that ranks can be told of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.errors import Interrupted

from . import holder, ledger
from .attempts import Attempt, alive, newest, record
from .files import write_json

log = logging.getLogger(__name__)


def for_holder(folder: Path, stop: Callable[[], bool], patience: float = 0.0) -> Iterator[None]:
    """Wait before a claim: for a sign of life where nothing else can tell whether the last attempt is over.

    Args:
        folder: The run directory.
        stop: True ends the waiting.
        patience: Seconds to wait, moreover, for an attempt that is alive; a later start of this job is not waited for.

    Raises:
        Interrupted: if stopped while it was unknown whether the last attempt is over.
    """
    beaten, until, told = None, time.monotonic() + patience, False
    while (last := newest(folder)) is not None and alive(folder, last):
        sign = last["attempt"], holder.touched(folder, last)
        beaten = beaten or sign
        unknown = sign == beaten and holder.judge(last) is None
        if stop() and unknown and told:
            raise _stopped(folder)
        if stop() or holder.is_later(last) or not (unknown or time.monotonic() < until):
            return
        if not told:
            log.warning("%s: waiting, since %s", folder, holder.words(folder, last))
            told = True
        yield
        time.sleep(5 if last.get("job_id") else 1)  # a scheduler is not asked more often


def for_earlier(attempt: Attempt, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Wait after a claim until no earlier attempt can write any more; this comes before anything is read.

    The claim tells them that they have lost the run, at their next beat or before they next write, and whoever has lost
    it beats no longer. So this takes a beat and a step, or, if one cannot say that it has ended, a lease.

    Args:
        attempt: The new claim, which is kept alive meanwhile.
        stop: True ends the waiting.

    Raises:
        Interrupted: if stopped.
        ClaimLost: if another process has taken the run over meanwhile.
    """
    told = False
    begun = {line["attempt"] for line in ledger.read(attempt.folder) if line["event"] == "start"}
    for number in range(attempt.number - 1, 0, -1):
        while not holder.over(attempt.folder, owner := record(attempt.folder, number)):
            if not told:
                log.warning("%s: waiting, since %s", attempt.folder, _given_up(attempt.folder, owner))
                told = True
            attempt.check()
            if stop():
                raise _stopped(attempt.folder)
            yield
            time.sleep(1)
        _close(attempt, owner)
        if number in begun:  # it had waited for all before it
            break
    if told:
        log.warning("%s: goes on, since no other process can write this run any more", attempt.folder)
        attempt.begin()


def _close(attempt: Attempt, owner: dict[str, Any]) -> None:
    """Record the end of an attempt that was only silent; should its process wake, it has nothing to add."""
    if "ended" not in owner and holder.fault(owner) is None and holder.process_of(owner) is not False:
        path = holder.path(attempt.folder, owner["attempt"])
        write_json(path, {**owner, "ended": time.time(), "reason": "lost"}, attempt.check)


def _given_up(folder: Path, owner: dict[str, Any]) -> str:
    who = holder.writer(folder, owner)
    return f"{who} and may still live; it is told, and has {holder.LEASE:g} s from its last sign of life to end"


def _stopped(folder: Path) -> Interrupted:
    return Interrupted("stopped while it waited; the same command goes on", where=str(folder))
