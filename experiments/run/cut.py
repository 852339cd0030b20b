"""Whether the cut at a run's last step took most of what its network knew."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

STALE = (
    "; its batch statistics are those of the network before the cut: model.recalibrate=100 computes them anew over 100 "
    "training batches"
)
KEPT = 0.25  # of the accuracy beyond guessing: a last cut that leaves less is told


def lost_at_cut(
    accuracy: float, classes: int, records: list[dict[str, Any]], last: int, *, recalibrated: bool
) -> dict[str, float]:
    """Say if a cut at the last step took most of what the last epoch's network knew beyond guessing.

    Args:
        accuracy: Accuracy after the cut, in [0, 1].
        classes: Number of classes.
        records: The metrics of the run.
        last: Its last step.
        recalibrated: Whether batch statistics were computed after the cut.
    """
    cuts = [record for record in records if record["kind"] == "event" and record["step"] == last and record["changed"]]
    (*_, epoch) = (record for record in records if record["kind"] == "epoch")
    before = epoch["train_accuracy"] if epoch["validation_accuracy"] is None else epoch["validation_accuracy"]
    guessing = 1 / classes
    if not cuts or accuracy - guessing > KEPT * (before - guessing):
        return {}
    log.warning(
        "the cut at the last step took the network near chance: accuracy %.4f where the last epoch's network has %.4f "
        "and guessing %.4f%s",
        *(accuracy, before, guessing, "" if recalibrated else STALE),
    )
    return {"accuracy_before_cut": before}
