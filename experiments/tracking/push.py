"""Sending to W&B what it has not of runs that are over: the mirror's own code, without a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import SuiteError
from experiments.rundir import attempts

from . import environment, process
from .journal import Journal
from .session import Session

Say = Callable[..., None]


@dataclass(frozen=True)
class Pushed:
    """How the push of one run ended, in words."""

    folder: Path
    words: str
    failed: bool


def push(folders: Iterable[Path], project: str | None, entity: str | None) -> Iterator[Pushed]:
    """Send what W&B has not of some runs, in a process of its own; finished runs get their summary.

    Args:
        folders: Folders of runs.
        project: Instead of that of the configuration.
        entity: Instead of that of the configuration.

    Raises:
        SuiteError: as `environment.require_server`.
    """
    environment.require_server(project, entity)
    return _ask(list(folders), {key: one for key, one in (("project", project), ("entity", entity)) if one})


def _ask(folders: list[Path], tracking: dict[str, Any]) -> Iterator[Pushed]:
    sender = process.start("push")
    assert sender.stdin is not None
    assert sender.stdout is not None
    try:
        json.dump({"folders": [str(folder) for folder in folders], "tracking": tracking}, sender.stdin)
        sender.stdin.close()
        for line in sender.stdout:
            said = process.read(line)
            yield Pushed(Path(said["folder"]), said["words"], said["failed"])
        if sender.wait():
            raise SuiteError("the process that sends has ended early; the same command goes on", environment.server())
    finally:  # Ctrl-C does not reach it
        sender.kill()
        sender.wait()
        sender.stdout.close()


def send(folder: Path, tracking: dict[str, Any], say: Say) -> None:
    """Send what W&B has not of one run, in this process.

    Args:
        folder: The run's folder.
        tracking: Replaces keys of the section ``tracking`` of its specification.
        say: Takes how it ended.
    """
    last = attempts.newest(folder)
    if last is not None and attempts.alive(folder, last):
        say(folder, "is under way, and is left to its own mirror", failed=False)
        return
    try:
        journal = Journal(folder, patience=0)
        try:
            session = Session(folder, "online", journal, **tracking)
            lines = session.finish()
            say(folder, f"{lines} lines, {session.sent} of them new to W&B", failed=False)
        finally:
            journal.close()
    except BlockingIOError:
        say(folder, "its mirror, or another push, is at work", failed=False)
    except Exception as error:
        say(folder, f"W&B has not everything ({process.reason(error)}); the same command goes on")
