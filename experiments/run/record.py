"""What an attempt writes while it trains: metrics, their mirror, ledger and heartbeat; on rank 0 alone."""

from __future__ import annotations

from typing import Any

from experiments.config.resolve import Spec
from experiments.rundir.attempts import Attempt
from experiments.rundir.checkpoint import Saved
from experiments.rundir.files import JsonLines
from experiments.rundir.ledger import Ledger

from .tracking import WandbMirror


class Record:
    """Writes for rank 0; other ranks have one that does nothing.

    Args:
        attempt: The claim on the run directory.
        spec: The run.
        identity: Its identity hash.
        group: W&B group.
        keep: Bytes of the metrics that the checkpoint vouches for.
        leads: Whether this is rank 0.
    """

    def __init__(self, attempt: Attempt, spec: Spec, identity: str, group: str, keep: int, *, leads: bool):
        self._leads = leads
        if not leads:
            return
        self._metrics = JsonLines(attempt.folder / "metrics.jsonl", keep=keep)
        self._ledger = Ledger(attempt)
        self._mirror = WandbMirror(spec, identity, attempt.folder, group)
        self._last: str | None = None

    def start(self, step: int, digest: str | None) -> None:
        """The first step of this attempt, and the checkpoint it goes on from."""
        if self._leads:
            self._last = digest
            self._ledger.start(step, digest)

    def beat(self, step: int, total: int) -> None:
        """A step is done."""
        if self._leads:
            self._ledger.beat(step, total)

    def write(self, content: dict[str, Any]) -> None:
        """One line of the metrics, and of their mirror."""
        if self._leads:
            self._metrics.write(content)
            self._mirror.log(content)

    def sync(self) -> int:
        """Bytes of metrics that are on the disk."""
        return self._metrics.sync() if self._leads else 0

    def saved(self, checkpoint: Saved) -> None:
        """A checkpoint is on the disk."""
        self._last = checkpoint.digest
        self._ledger.checkpoint(checkpoint.step, checkpoint.digest)

    def finish(self, result: dict[str, Any]) -> None:
        """Give the result to the mirror."""
        if self._leads:
            self._mirror.finish(result)

    def end(self, step: int, reason: str) -> None:
        """Close everything."""
        if self._leads:
            self._metrics.close()
            self._ledger.end(step, reason, self._last)
            self._ledger.close()
            self._mirror.close()  # last, since it may wait for a server
