"""What a run has done so far, and how a checkpoint keeps and restores it on every rank."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.errors import RunFailure
from experiments.ranks.distributed import World
from experiments.rundir import names
from experiments.rundir.checkpoint import Checkpoints

from .build import RunObjects
from .diagnostics import Diagnostics
from .ham_watch import HamWatch
from .metrics import EpochMeter

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        meter: Sums of the epoch under way.
        step: Optimizer steps done.
        seconds: Seconds of training in earlier attempts.
        started: When this attempt started, on the monotonic clock.
    """

    meter: EpochMeter
    step: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds of training in all attempts."""
        return self.seconds + time.monotonic() - self.started


def collect(
    run: RunObjects, progress: Progress, watch: HamWatch, diagnostics: Diagnostics, metrics: bytes, world: World
) -> dict[str, Any]:
    """Gather everything that makes a run in pieces equal a run in one; all ranks must call it, rank 0 writes it.

    Args:
        run: The objects of the run.
        progress: How far it is.
        watch: The watch over HAM.
        diagnostics: What signs and masks are compared with.
        metrics: The metrics so far, from which a damaged log is written anew.
        world: The ranks.
    """
    cuda = run.device.type == "cuda"
    own = {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(run.device) if cuda else None,
        "meter": progress.meter.state_dict(),
    }
    return {
        "step": progress.step,
        "model": run.model.state_dict(),
        "average": run.average.state_dict() if run.average is not None else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "sparse": run.sparse.state_dict(),
        "ranks": world.gather(own),
        "metrics": metrics.decode(),
        "seconds": progress.elapsed(),
        "ham_watch": watch.state_dict(),
        "diagnostics": diagnostics.state_dict(),
        "initial_weights": run.initial_weights,
    }


def restore(
    run: RunObjects,
    progress: Progress,
    watch: HamWatch,
    diagnostics: Diagnostics,
    checkpoints: Checkpoints,
    world: World,
) -> tuple[bytes, str | None]:
    """Load the newest whole checkpoint, the same one on all ranks.

    Returns:
        The metrics that it counts on, and its digest; none and None for a new run.

    Raises:
        RunFailure: if there are checkpoints but none that fits.
    """
    found = checkpoints.load() if world.is_main else None
    saved = world.broadcast(found[0] if found is not None else None)
    if saved is None:
        log.info("started%s", f" on {world.size} ranks" if world.size > 1 else "")
        return b"", None
    state = found[1] if found is not None else checkpoints.read(saved)

    try:
        _load(run, state)
        progress.step, progress.seconds = state["step"], state["seconds"]
        run.initial_weights = state["initial_weights"]
        watch.load_state_dict(state["ham_watch"])
        diagnostics.load_state_dict(state["diagnostics"])
        _load_rank(run, progress.meter, state["ranks"], world)
        metrics = state["metrics"].encode()
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = f"remove the folder {names.CHECKPOINTS} to start it anew"
        raise RunFailure(f"this checkpoint does not fit the run ({reason}); {advice}", str(saved.path)) from None
    log.info("resumed at step %d", progress.step)
    return metrics, saved.digest


def _load(run: RunObjects, state: dict[str, Any]) -> None:
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.sparse.load_state_dict(state["sparse"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    if run.scaler is not None:
        run.scaler.load_state_dict(state["scaler"])


def _load_rank(run: RunObjects, meter: EpochMeter, ranks: list[dict[str, Any]], world: World) -> None:
    """Give this rank its own random state and sums back, if there are as many ranks as there were."""
    if len(ranks) == world.size:
        own = ranks[world.rank]
        meter.load_state_dict(own["meter"])
        torch.set_rng_state(own["rng"])
        if own["cuda_rng"] is not None and run.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_rng"], run.device)
        return
    log.warning(
        "this run goes on with %d ranks where it had %d: batches, masks and weights are the same, but sums are taken "
        "in another order, batch statistics and local perturbations of SAM over other shares, and random layers "
        "(dropout) start a new stream",
        *(world.size, len(ranks)),
    )
    if world.is_main:  # the sums of the epoch so far are counted once
        meter.load_state_dict(EpochMeter.merge([rank["meter"] for rank in ranks]))
