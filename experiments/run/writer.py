"""What an attempt writes while it trains: metrics, their mirror, ledger and heartbeat; on rank 0 alone."""

from __future__ import annotations

from typing import Any

from experiments.config.schema import Spec
from experiments.rundir import names
from experiments.rundir.attempts import Attempt
from experiments.rundir.checkpoint import Saved
from experiments.rundir.files import JsonLines
from experiments.rundir.ledger import Ledger
from experiments.tracking.mirror import Mirror


class RunWriter:
    """Writes for rank 0; other ranks have one that does nothing.

    Args:
        attempt: The claim on the run directory.
        spec: The run.
        steps_per_epoch: What the steps of a line are counted against to give its epoch.
        good: The metrics that the checkpoint counts on.
        is_main: Whether this is rank 0.
    """

    def __init__(self, attempt: Attempt, spec: Spec, steps_per_epoch: int, good: bytes, *, is_main: bool):
        self._is_main = is_main
        if not is_main:
            return
        self._attempt = attempt
        self._metrics = JsonLines(attempt.folder / names.METRICS, good, attempt.check)
        self._ledger = Ledger(attempt)
        self._steps_per_epoch = steps_per_epoch
        # it reads the metrics, so it comes after them
        self._mirror = Mirror(attempt.folder, spec.tracking.model_dump())
        self._last: str | None = None

    def start(self, step: int, digest: str | None) -> None:
        """Note the first step of this attempt, and the checkpoint it resumes from."""
        if self._is_main:
            self._last = digest
            self._ledger.start(step, digest)

    def beat(self, step: int, total: int) -> None:
        """Note that a step is done."""
        if self._is_main:
            self._ledger.beat(step, total)

    def write(self, content: dict[str, Any]) -> None:
        """Write one line of the metrics; where it has no epoch, its step says how many have passed."""
        if self._is_main:
            self._metrics.write({**content, "epoch": content.get("epoch", content["step"] / self._steps_per_epoch)})

    def check(self) -> None:
        """Make sure that this process still holds the run; see `Attempt.check`."""
        if self._is_main:
            self._attempt.check()

    def sync(self) -> bytes:
        """Flush the metrics to the disk and return them."""
        return self._metrics.sync() if self._is_main else b""

    def records(self) -> list[dict[str, Any]]:
        """Return all lines of the metrics; none on other ranks."""
        return self._metrics.records() if self._is_main else []

    def close_metrics(self) -> None:
        """Close the metrics, whole, before a result rests on them; only who holds the run may do so."""
        if self._is_main:
            self._metrics.seal()

    def saved(self, checkpoint: Saved) -> None:
        """Note a checkpoint that is on the disk."""
        self._last = checkpoint.digest
        self._ledger.checkpoint(checkpoint.step, checkpoint.digest)

    def end(self, step: int, reason: str) -> None:
        """Close everything."""
        if self._is_main:
            self._metrics.close()
            self._ledger.end(step, reason, self._last)
            self._ledger.close()
            self._mirror.close()  # last, since it may wait for a server; it reads the result from the folder
