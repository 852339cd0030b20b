"""What a task does for its job when the batch script, which else puts the job back into the queue, has been killed."""

from __future__ import annotations

import logging
import re
import threading
import time

from slurm.scheduler import cluster
from slurm.scheduler.environment import JobStart

from .signals import Signals

log = logging.getLogger(__name__)
# the job has ended by the end of its batch script, not by a cancellation, a preemption, a requeue or its time limit
_KILLED = re.compile(r"\bReason=(JobLaunchFailure|RaisedSignal|NonZeroExitCode|OutOfMemory)")
_RESTARTS = re.compile(r"\bRestarts=(\d+)")


def watch(signals: Signals, start: JobStart) -> threading.Thread:
    """Call `put_back` as soon as this task is terminated; it may not live until it has written a checkpoint."""

    def wait() -> None:
        while not signals.terminated:
            time.sleep(0.5)
        put_back(start)

    thread = threading.Thread(target=wait, name="orphan", daemon=True)
    thread.start()
    return thread


def put_back(start: JobStart) -> None:
    """Requeue the job of this task if it counts as over only because its batch script has been killed."""
    if start.name is None:
        return
    shown, _ = cluster.ask("scontrol", "show", "job", "--oneliner", start.name)
    restarts = _RESTARTS.search(shown)
    if not _KILLED.search(shown) or (restarts and int(restarts[1]) != start.restarts):  # started again since
        return
    _, problem = cluster.ask("scontrol", "requeue", start.name)
    log.warning("the batch script of this job has been killed; %s", problem or "the job goes back into the queue")
