"""The end of a run: the method's last cut, one evaluation, the result."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from experiments.errors import RunFailure
from experiments.rundir import checkpoint, outcome
from experiments.rundir.files import read_json_lines, write_json
from sparsity.engine.flops import inference_fraction

from . import state
from .loop import evaluate

if TYPE_CHECKING:
    from .training import Training

log = logging.getLogger(__name__)


def finish(training: Training) -> dict[str, Any]:
    """Finalize, evaluate, and on rank 0 write `weights.pt` and `result.json`; all ranks must call it.

    Raises:
        RunFailure: if the method did not act as it says, or the run diverged in its last steps.
    """
    run, spec, folder = training.objects, training.spec, training.folder
    records = read_json_lines(folder / "metrics.jsonl") if training.world.leads else []
    records = training.world.broadcast(records)
    outcome.check_events(run.sparse, records, spec, folder)
    try:
        nonzero = run.sparse.finalize()
    except RuntimeError as error:  # a topology that holds another number of weights than it states
        raise RunFailure(str(error), where=str(folder)) from None
    training.drain_events()
    state.share_buffers(run.model, training.world)
    with training.autocast():
        loss, accuracy, images = evaluate(run.model, run.data.evaluate_batches(spec.data.evaluate_on), training.world)
    averaged = _evaluate_average(training)
    if not math.isfinite(loss):
        raise RunFailure("the final loss is not finite: the run diverged in its last steps", where=str(folder))
    sizes = run.sparse.masks.sizes
    densities = {name: nonzero[name] / size for name, size in sizes.items()}
    measured = {
        "accuracy": accuracy,
        **averaged,
        "loss": loss,
        "evaluated": images,
        "sparsity": 1 - sum(nonzero.values()) / sum(sizes.values()),
        "prunable_weights": sum(sizes.values()),
        "nonzero": sum(nonzero.values()),
        "inference_flops_fraction": inference_fraction(run.macs, densities),
        # against one dense training, however many this run had
        "training_flops_fraction": run.sparse.cost.fraction(run.macs) * run.sparse.levels.count,
        "layers": {name: {"size": size, "nonzero": nonzero[name]} for name, size in sizes.items()},
        "events": run.sparse.event_counts,
        "empty_layers": training.empty_layers,
        "ranks": training.world.size,
        "levels": run.sparse.levels.count,
        "epochs": training.step // run.data.steps_per_epoch,
        "steps": training.step,
        "skipped_steps": run.sparse.skipped,
        "seconds": round(training.elapsed(), 3),
    }
    result = outcome.summarise(spec, training.identity, records, measured)
    if training.world.leads:
        _write(training, result)
    return result


def _write(training: Training, result: dict[str, Any]) -> None:
    folder, content = training.folder, {"model": training.objects.model.state_dict()}
    checkpoint.write(folder / "weights.pt", training.identity, training.spec.seed, content)
    write_json(folder / "result.json", result)
    training.checkpoints.clear()
    training.record.finish(result)
    numbers = result["accuracy"], training.spec.data.evaluate_on, result["sparsity"]
    log.info("done: accuracy %.4f on %s, sparsity %.4f", *numbers)


def _evaluate_average(training: Training) -> dict[str, Any]:
    """Accuracy of the averaged weights under the final masks, beside that of the weights themselves."""
    run = training.objects
    if run.average is None:
        return {}
    network = run.average.network(run.model, run.sparse.masks)
    state.share_buffers(network, training.world)
    batches = run.data.evaluate_batches(training.spec.data.evaluate_on)
    with training.autocast():
        loss, accuracy, _ = evaluate(network, batches, training.world)
    return {"average_accuracy": accuracy, "average_loss": loss}
