"""The mirror of a run under way, in a process of its own; it ends with the training, however that ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import environment
from .journal import Journal
from .process import LOOK, reason
from .session import PATIENCE, Session

Say = Callable[[Path, str], None]


def follow(folder: Path, mode: str, say: Say, over: Callable[[float], bool]) -> None:
    """Mirror a run until it is over.

    Args:
        folder: The run's folder.
        mode: ``online`` or ``offline``.
        say: Takes what went wrong, at most one thing.
        over: Waits some seconds, or until the run is over, and returns whether it is.
    """
    try:
        journal = Journal(folder, PATIENCE)  # an earlier mirror of this run may still be saying goodbye
        session = _open(folder, mode, journal, say)
        ended = False
        while not ended:
            ended = over(LOOK)
            session.catch_up()
        session.finish()
    except Exception as error:  # whatever W&B raises, its process included
        say(folder, f"W&B has not everything ({reason(error)}); `ham track push {folder}` sends what is missing")


def _open(folder: Path, mode: str, journal: Journal, say: Say) -> Session:
    """Begin online, or offline where the server is dead or refuses."""
    if mode == "online":
        why = environment.why_unreachable()
        try:
            if why is None:
                return Session(folder, mode, journal)
        except Exception as error:
            why = reason(error)
        session = Session(folder, "offline", journal)
        where = environment.server()
        say(folder, f"W&B at {where} cannot be reached ({why}); `ham track push {folder}` sends this run later")
        return session
    return Session(folder, mode, journal)
