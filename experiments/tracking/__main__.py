"""The process that talks to W&B: whatever happens to W&B happens to it, and not to a training or a command.

It is started by `mirror` and `push`, and prints one JSON object per line to the pipe that it was given.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import follow, push


class _Speech:
    """The pipe to the process that started this one; it alone gets what is printed."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", buffering=1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)

    def say(self, folder: Path, words: str, *, failed: bool = True) -> None:
        try:
            self._file.write(json.dumps({"folder": str(folder), "words": words, "failed": failed}) + "\n")
        except OSError:  # nobody listens any more
            os._exit(1)


def main(arguments: Sequence[str]) -> None:
    """Follow one run until its training is over, or push runs that are over."""
    # Slurm signals all processes of a job; this one ends after the training
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    speech = _Speech()
    if arguments[0] == "follow":
        os.nice(10)  # a core belongs to the training first
        follow.follow(Path(arguments[1]), arguments[2], speech.say, _over)
    else:
        asked = json.load(sys.stdin)
        for folder in asked["folders"]:
            push.send(Path(folder), asked["tracking"], speech.say)
    os._exit(0)  # W&B's own farewell waits for a server, or prints what nobody asked for


def _over(seconds: float) -> bool:
    """Wait for a word on the standard input, or its end: the training is over, or was killed."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


if __name__ == "__main__":
    main(sys.argv[1:])
