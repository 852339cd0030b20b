"""What a task does for its job when the batch script, which else puts the job back into the queue, has been killed."""

from __future__ import annotations

import logging
import os
import re
import threading
import time

from slurm.scheduler import cluster
from slurm.scheduler.environment import JobStart

from .signals import Signals

log = logging.getLogger(__name__)
# the job has ended by the end of its batch script, not by a cancellation, a preemption, a requeue or its time limit
_KILLED = re.compile(r"\bReason=(JobLaunchFailure|RaisedSignal|NonZeroExitCode|OutOfMemory)")
_PAUSE = 5.0  # seconds between two questions
_RESTARTS = re.compile(r"\bRestarts=(\d+)")


def watch(signals: Signals, start: JobStart) -> threading.Thread:
    """Call `put_back` as soon as this task is terminated; it may not live until it has written a checkpoint.

    A task whose slurmstepd has been killed can be told nothing any more. It asks from then on by itself, in case that
    its batch script has been killed as well.
    """
    parent = os.getppid()

    def wait() -> None:
        while not signals.terminated and os.getppid() == parent:
            time.sleep(0.5)
        while not put_back(start) and not signals.terminated:
            time.sleep(_PAUSE)

    thread = threading.Thread(target=wait, name="orphan", daemon=True)
    thread.start()
    return thread


def put_back(start: JobStart) -> bool:
    """Requeue the job of this task if it counts as over only because its batch script has been killed.

    Returns:
        Whether nothing is left to ask: the job has been started again or goes back into the queue.
    """
    if start.name is None:
        return True
    shown, _ = cluster.ask("scontrol", "show", "job", "--oneliner", start.name)
    restarts = _RESTARTS.search(shown)
    if restarts and int(restarts[1]) != start.restarts:
        return True
    if not _KILLED.search(shown):
        return False
    _, problem = cluster.ask("scontrol", "requeue", start.name)
    log.warning("the batch script of this job has been killed; %s", problem or "the job goes back into the queue")
    return problem is None
