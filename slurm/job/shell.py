"""What a task does in place of its batch shell, if that was killed."""

from __future__ import annotations

import logging
from threading import Event, Thread

from slurm.scheduler import cluster
from slurm.scheduler.environment import this_start

from .signals import Signals

log = logging.getLogger(__name__)


class StandIn:
    """Requeues the job when its batch shell was killed: Slurm counts the job as failed then, and ends its tasks.

    The scheduler is asked as soon as SIGTERM comes, since SIGKILL may follow before the checkpoint is written.

    Args:
        signals: The signals that this task has received.
    """

    def __init__(self, signals: Signals):
        self._signals = signals
        self._over = Event()
        self._thread = Thread(target=self._wait, name="shell", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while not self._signals.terminated:
            if self._over.wait(0.2):
                return
        start = this_start()
        if start.name is None:
            return
        said, _ = cluster.ask("scontrol", "show", "job", "--oneliner", start.name)
        words = said.split()
        # a job that was cancelled, preempted or requeued has other reasons, and a later start another count
        if {"Reason=JobLaunchFailure", "Requeue=1", f"Restarts={start.restarts}"} <= set(words):
            _, problem = cluster.ask("scontrol", "requeue", start.name)
            log.warning("the batch shell of this job was killed; %s", problem or "the job is in the queue again")

    def finish(self) -> None:
        """Come to an end; a task that was asked to end waits until the scheduler has answered."""
        self._over.set()
        self._thread.join(20)
