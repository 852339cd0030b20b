"""The server process that workers are forked from, as the command that starts it needs it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

from experiments.errors import RunFailure
from experiments.sockets import short_temporary_folder

FEW = "a limit of processes (ulimit -u) or of a container (pids, memory) is the usual reason; fewer --jobs may help"


def start(threads: int) -> None:
    """Start the server process with Ctrl-C, SIGTERM and SIGHUP ignored from its first moment on.

    A scheduler sends SIGTERM to all processes of a job, a terminal that is closed SIGHUP. Workers handle signals
    themselves, and the server must outlive them. It imports the suite from where this process did, whatever lies in
    the current folder.

    Args:
        threads: Compute threads of a worker, which torch reads when it is imported.

    Raises:
        RunFailure: if it cannot be started.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        with (
            _variables(OMP_NUM_THREADS=str(threads), PYTHONPATH=path, PYTHONSAFEPATH="1"),
            short_temporary_folder(),
        ):
            forkserver.ensure_running()
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ENOMEM):
            raise
        raise RunFailure(f"no process can be started ({error.strerror}): {FEW}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
