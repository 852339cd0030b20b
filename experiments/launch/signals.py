"""The signals by which a command is asked to end: each of them saves what is under way, as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OF_A_COMMAND = (signal.SIGTERM, signal.SIGHUP)
"""What systemd, docker stop, timeout and a terminal that is closed send, besides Ctrl-C."""
OF_A_RUN = (signal.SIGINT, *OF_A_COMMAND, signal.SIGUSR1, signal.SIGUSR2)
"""The same, and the warnings of schedulers."""


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt during a block.

    A signal that is ignored, as after nohup, or has a handler of its own, as in a job, is left alone.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in OF_A_COMMAND if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@dataclass
class Noted:
    """The signals that have come.

    Attributes:
        first: Number of the first signal, None as long as none has come.
    """

    first: int | None = None

    def __call__(self) -> bool:
        """Return whether a signal has come."""
        return self.first is not None


@contextmanager
def noted() -> Iterator[Noted]:
    """Note the signals of a run during a block.

    SIGHUP is left alone where it is ignored, as after nohup.
    """
    seen = Noted()

    def request(number: int, _: Any) -> None:
        seen.first = seen.first or number

    lasting = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [number for number in OF_A_RUN if not (lasting and number == signal.SIGHUP)]
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
