"""HAM's figures in the record of a run, and a warning where alpha is too large or idle."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ham.diagnostics import IDLE, TOO_LARGE, Look, Watch

if TYPE_CHECKING:
    from .build import RunObjects
    from .writer import RunWriter

log = logging.getLogger(__name__)

_EARLY, _EVERY = 100, 10  # steps


class HamWatch:
    """Measures HAM at every tenth of the first hundred steps, and at the end of each epoch; does nothing without HAM.

    Nothing that it does changes a run.

    Args:
        run: The objects of the run.
        is_main: Whether this is rank 0; the others see the same and measure nothing.
    """

    def __init__(self, run: RunObjects, *, is_main: bool):
        self._run = run
        try:
            self._watch = Watch(run.optimizer, run.model.named_parameters()) if is_main else None
        except ValueError:  # no HAM
            self._watch = None
        self._skipped = run.sparse.skipped

    def after_step(self, step: int, writer: RunWriter) -> None:
        """Measure if it is time; a step that the loss scaler skipped shows nothing."""
        run, watch = self._run, self._watch
        if watch is None:
            return
        left_out, self._skipped = run.sparse.skipped > self._skipped, run.sparse.skipped
        early = step <= _EARLY and step % _EVERY == 0
        if left_out or not (early or step % run.data.steps_per_epoch == 0):
            return
        before = watch.verdict
        seen = watch.look()
        if seen is None:
            return
        writer.write({"kind": "ham", "step": step, **seen.metrics()})
        if watch.verdict == "too large" and before != "too large":
            log.warning(_too_large(seen, step))
        if step == min(_EARLY, run.total_steps) and watch.verdict == "idle":
            log.warning(
                "step %d: HAM's alpha is idle: alpha times a weight is %.2g on average (below %g small networks "
                "trained as without HAM); a larger optimizer.ham.alpha may do something (docs/howto/choose_alpha.md)",
                *(step, seen.overall.speed, IDLE),
            )

    def new_level(self) -> None:
        """Count sign flips from here on: weights may have been rewound."""
        if self._watch is not None:
            self._watch.forget_signs()

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a resumed run continues with; None without HAM."""
        return self._watch.state_dict() if self._watch is not None else None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore the state."""
        self._skipped = self._run.sparse.skipped
        if self._watch is not None and state is not None:
            self._watch.load_state_dict(state)


def _too_large(seen: Look, step: int) -> str:
    share = seen.layers[seen.worst].relative_step
    return (
        f"step {step}: HAM's alpha is too large here: one step changes the weights of {seen.worst} by {share:.0%} on "
        f"average (beyond {TOO_LARGE:.0%} small networks trained worse); a lower optimizer.ham.alpha may help "
        "(docs/howto/choose_alpha.md)"
    )
