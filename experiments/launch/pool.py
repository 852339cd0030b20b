"""Local worker processes: one per task, so that a crash does not affect other tasks.

Workers are forked from a server process that has imported torch but not used it. A worker therefore starts within
milliseconds and inherits neither threads nor state of other runs.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.errors import Busy, Interrupted, RunFailure, SuiteError, way_out, words_of
from experiments.rundir.files import check_regular

from . import server, signals

_GRACE = 60.0  # seconds that a stopped worker has to write its checkpoint


@dataclass(frozen=True)
class Task:
    """A function call to be executed in a worker.

    Attributes:
        name: Unique name, the key of its result.
        function: A module-level function, called as ``function(*arguments, progress=..., stop=...)``.
        arguments: Positional arguments; must be picklable.
        log: File to which the worker's output is appended.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    log: Path


@dataclass(frozen=True)
class TaskResult:
    """How a task ended.

    Attributes:
        value: What the function returned; None if it failed.
        error: Why it failed; None if it succeeded.
        interrupted: Whether it stopped at a checkpoint on request; `error` is then set too.
        busy: Whether another process holds what it would work on; `error` then says which.
    """

    value: Any = None
    error: str | None = None
    interrupted: bool = False
    busy: bool = False


class Listener:
    """Receiver of the progress of tasks; this base class ignores it."""

    def planned(self, total: int) -> None:
        """React to the number of tasks, once it is known."""

    def started(self, name: str) -> None:
        """React to the start of a task."""

    def progress(self, name: str, done: int, total: int) -> None:
        """React to a task that has reached step `done` of `total`."""

    def finished(self, name: str, outcome: TaskResult) -> None:
        """React to the end of a task."""

    def waits(self, words: str) -> None:
        """React to a wait for tasks that other processes work on."""


class _Stop:
    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: Any) -> None:
        self.requested = True

    def __call__(self) -> bool:
        return self.requested


def _die_with_parent() -> None:
    """Make this worker end with the server process, which ends with the command (Linux only).

    A killed command then leaves no process behind that still writes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    command = multiprocessing.parent_process()
    if command is not None and not command.is_alive():  # it ended before the line above could take effect
        os._exit(1)


def _work(task: Task, connection: Connection, threads: int) -> None:
    # Ctrl-C and the end of a terminal reach the whole group, but the parent decides, and sends SIGTERM
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.request)
    _die_with_parent()
    with suppress(ConnectionError):  # the parent is gone
        _carry_out(task, connection, threads, stop)


def _carry_out(task: Task, connection: Connection, threads: int, stop: _Stop) -> None:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.3:
            last = time.monotonic()
            try:
                connection.send(("progress", done, total))
            except ConnectionError:
                stop.request()

    try:
        _redirect_output(task.log)
        from experiments.run.numerics import same_arithmetic  # loads torch

        with same_arithmetic(threads):
            connection.send(("value", task.function(*task.arguments, progress=progress, stop=stop)))
    except Interrupted as error:
        connection.send(("interrupted", str(error)))
    except Busy as error:
        connection.send(("busy", str(error)))
    except SuiteError as error:
        connection.send(("error", str(error)))
    except OSError as error:
        connection.send(("error", f"{error.filename or task.log}: {error.strerror or error}{way_out(error)}"))
    except (Exception, SystemExit) as error:  # code of the user's may raise anything
        import traceback

        traceback.print_exc()
        connection.send(("error", f"{type(error).__name__}: {words_of(error)} (traceback in {task.log})"))


def _redirect_output(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    check_regular(path)  # a pipe would wait for a reader
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def run_all(tasks: Sequence[Task], jobs: int, listener: Listener, *, threads: int = 1) -> dict[str, TaskResult]:
    """Run tasks in worker processes.

    Args:
        tasks: The tasks, started in this order.
        jobs: Maximum number of concurrent workers, at least 1.
        listener: Receives the progress, in this process.
        threads: Compute threads per worker.

    Returns:
        The result of each task by its name. Tasks that were not started because of an interrupt are missing.

    Raises:
        KeyboardInterrupt: after the workers have stopped at a checkpoint; SIGTERM and SIGHUP act like Ctrl-C.
        RunFailure: if no worker can be started.
    """
    context = multiprocessing.get_context("forkserver")
    # torch imports its compiler when the first optimizer is made, which would cost every worker two seconds
    context.set_forkserver_preload(["torch._dynamo", "experiments.run.runner"])
    server.start(threads)
    waiting, outcomes = list(tasks), {}
    running: dict[Any, tuple[Task, Any]] = {}
    try:
        with signals.like_ctrl_c():
            _carry_on(context, threads, jobs, listener, waiting, running, outcomes)
    except KeyboardInterrupt:
        _stop(running)
        raise
    return outcomes


def _carry_on(
    context: Any,
    threads: int,
    jobs: int,
    listener: Listener,
    waiting: list[Task],
    running: dict[Any, tuple[Task, Any]],
    outcomes: dict[str, TaskResult],
) -> None:
    while waiting or running:
        while waiting and len(running) < jobs:
            task = waiting.pop(0)
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(task, theirs, threads), name=task.name)
            try:
                process.start()
            except EOFError:
                raise RunFailure(f"the process that workers are started from has ended: {server.FEW}") from None
            theirs.close()
            running[ours] = (task, process)
            listener.started(task.name)
        for connection in wait(list(running)):
            _receive(connection, running, outcomes, listener)


def _receive(
    connection: Any, running: dict[Any, tuple[Task, Any]], outcomes: dict[str, TaskResult], listener: Listener
) -> None:
    task, process = running[connection]
    try:
        kind, *content = connection.recv()
        if kind == "progress":
            listener.progress(task.name, *content)
            return
    except (EOFError, OSError):  # OSError: killed in the middle of a message
        process.join()
        code = process.exitcode or 0
        reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        kind, content = "error", [f"the worker process {reason}"]
    del running[connection]
    process.join()
    outcome = TaskResult(
        value=content[0] if kind == "value" else None,
        error=None if kind == "value" else content[0],
        interrupted=kind == "interrupted",
        busy=kind == "busy",
    )
    outcomes[task.name] = outcome
    listener.finished(task.name, outcome)


def _stop(running: dict[Any, tuple[Task, Any]]) -> None:
    for _, process in running.values():
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for connection, (_, process) in running.items():
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        connection.close()
