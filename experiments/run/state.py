"""What a checkpoint holds, gathered from all ranks and given back to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from experiments.errors import RunFailure
from experiments.ranks.distributed import World

from .loop import EpochMeter

if TYPE_CHECKING:
    from .training import Training

log = logging.getLogger(__name__)


def collect(training: Training) -> dict[str, Any]:
    """Everything that makes split equal whole; all ranks must call it, rank 0 writes it."""
    run = training.objects
    cuda = run.device.type == "cuda"
    own = {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(run.device) if cuda else None,
        "meter": training.meter.state_dict(),
    }
    ranks = training.world.gather(own)
    return {
        "step": training.step,
        "model": run.model.state_dict(),
        "average": run.average.state_dict() if run.average is not None else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "sparse": run.sparse.state_dict(),
        "ranks": ranks,
        "metrics_bytes": training.record.sync(),
        "seconds": training.elapsed(),
        "empty_layers": training.empty_layers,
        "ham_watch": training.ham_watch.state_dict(),
    }


def restore(training: Training) -> tuple[int, str | None]:
    """Load the newest whole checkpoint, the same one on all ranks.

    Returns:
        How many bytes of the metrics it vouches for, and its digest; 0 and None for a new run.

    Raises:
        RunFailure: if there are checkpoints but none that fits.
    """
    world = training.world
    found = training.checkpoints.load() if world.leads else None
    saved = world.broadcast(found[0] if found is not None else None)
    if saved is None:
        log.info("started%s", f" on {world.size} ranks" if world.size > 1 else "")
        return 0, None
    state = found[1] if found is not None else training.checkpoints.read(saved)
    _load(training, state, str(saved.path))
    _load_ranks(training, state["ranks"])
    log.info("resumed at step %d", training.step)
    return state["metrics_bytes"], saved.digest


def _load(training: Training, state: dict[str, Any], where: str) -> None:
    run = training.objects
    try:
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.sparse.load_state_dict(state["sparse"])
        if run.average is not None:
            run.average.load_state_dict(state["average"])
        if run.scaler is not None:
            run.scaler.load_state_dict(state["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunFailure(
            f"this checkpoint does not fit the run ({reason}); remove the folder checkpoints to start it anew", where
        ) from None
    training.step, training.seconds = state["step"], state["seconds"]
    training.empty_layers = list(state["empty_layers"])
    training.ham_watch.load_state_dict(state.get("ham_watch"))  # else from before there was one


def _load_ranks(training: Training, ranks: list[dict[str, Any]]) -> None:
    """Each rank takes its own random state back, if there are as many ranks as there were."""
    world = training.world
    if len(ranks) == world.size:
        own = ranks[world.rank]
        training.meter.load_state_dict(own["meter"])
        torch.set_rng_state(own["rng"])
        if own["cuda_rng"] is not None and training.objects.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_rng"], training.objects.device)
        return
    log.warning(
        "this run goes on with %d ranks where it had %d: batches, masks and weights are the same, but sums are taken "
        "in another order, batch statistics and local perturbations of SAM over other shares, and random layers "
        "(dropout) start a new stream",
        *(world.size, len(ranks)),
    )
    if world.leads:  # the sums of the epoch so far are counted once
        training.meter.load_state_dict(EpochMeter.merge([rank["meter"] for rank in ranks]))


@torch.no_grad()
def share_buffers(model: nn.Module, world: World) -> None:
    """Give all ranks rank 0's batch statistics, as DDP does before each forward pass of training."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
