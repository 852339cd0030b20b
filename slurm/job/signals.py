"""Handling of the signals that the scheduler sends to a job's task."""

from __future__ import annotations

import logging
import signal
import threading
import time

from .codes import STOPPED, TERMINATED

log = logging.getLogger(__name__)
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
_GRACE = 20.0


class Signals:
    """The signals received from the scheduler: a warning (SIGUSR1, SIGUSR2) or the end (SIGTERM).

    The warnings stay blocked, also in worker processes, which the scheduler signals too; a thread waits for them. What
    arrives before `install` is not lost, since `slurm.script.command` blocks all of them from the first moment on.

    Args:
        interrupt: Whether to raise KeyboardInterrupt in the main thread at the first signal.
    """

    def __init__(self, interrupt: bool = False):
        self.warned = False
        self.terminated = False
        self._interrupt = interrupt

    def install(self) -> None:
        """Replace submitit's handlers, which would requeue the job in the middle of a step."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (*WARNINGS, signal.SIGTERM):
            signal.signal(number, lambda received, frame: self._note(received))
        signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def received(self) -> bool:
        """Return whether a signal has been received, so that the run should stop."""
        return self.warned or self.terminated

    @property
    def code(self) -> int:
        """Exit code of a run that stopped because of the signals."""
        return TERMINATED if self.terminated else STOPPED

    def let_main_end(self, code: int) -> int:
        """Delay the end of another rank until rank 0 has ended.

        The exit code of rank 0 counts, and srun would kill rank 0 as soon as another rank failed.

        Returns:
            The exit code for this rank. If this rank alone has failed, it waits in vain and then ends the others too.
        """
        if code in (0, STOPPED, TERMINATED):
            return 0
        until = time.monotonic() + _GRACE
        while time.monotonic() < until and not self.terminated:
            time.sleep(0.1)
        return code

    def _wait(self) -> None:
        while True:
            self._note(signal.sigwait(WARNINGS))

    def _note(self, number: int) -> None:
        first = not self.received()
        if number == signal.SIGTERM:
            self.terminated = True
        else:
            self.warned = True
        log.info("received %s", signal.Signals(number).name)
        if first and self._interrupt and (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, signal.SIGINT)
