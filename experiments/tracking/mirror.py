"""The mirror as a training sees it: a process that follows its files. The truth is ``metrics.jsonl``."""

from __future__ import annotations

import logging
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from . import environment, process
from .session import PATIENCE

log = logging.getLogger(__name__)


class Mirror:
    """Starts the process, says in the log what it says, and lets it end; nothing here waits for W&B but `close`.

    Args:
        folder: The run's folder, with its specification.
        tracking: The section ``tracking`` of the specification.
    """

    def __init__(self, folder: Path, tracking: dict[str, Any]):
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        decided = environment.decide(tracking)
        for words in decided.words:
            log.info(words)
        if decided.mode == "disabled":
            return
        try:
            self._process = process.start("follow", folder, decided.mode)
        except OSError as error:
            log.warning("W&B is off for this run (%s); `ham track push %s` sends it", error.strerror or error, folder)
            return
        self._listener = Thread(target=self._listen, args=(self._process,), name="mirror", daemon=True)
        self._listener.start()

    @staticmethod
    def _listen(follower: subprocess.Popen[str]) -> None:
        assert follower.stdout is not None
        for line in follower.stdout:
            log.warning(process.read(line)["words"])

    def close(self) -> None:
        """Let W&B have the rest; the run's folder says whether the run has finished."""
        if self._process is None:
            return
        follower, self._process = self._process, None
        assert follower.stdin is not None
        with suppress(OSError):  # it has ended before, and has said why
            follower.stdin.write("over\n")  # closing would do, but for processes that inherited this end
            follower.stdin.close()
        try:
            code = follower.wait(2 * PATIENCE)  # for the server, and for an earlier mirror
        except subprocess.TimeoutExpired:
            follower.kill()
            code = follower.wait()
        self._listener.join(1)
        if follower.stdout is not None:
            follower.stdout.close()
        if code:
            log.warning(
                "W&B has not everything (its process ended with code %d); `ham track push %s` sends what is missing",
                *(code, self._folder),
            )
