"""The end of a run: the method's last cut, one evaluation, the result."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.config.schema import Spec
from experiments.errors import RunFailure
from experiments.ranks.distributed import lost_ranks_named, share_buffers
from experiments.rundir import checkpoint, names
from experiments.rundir.attempts import codes, ending
from experiments.rundir.files import write_json
from experiments.rundir.result import seal
from sparsity.engine.flops import inference_fraction
from sparsity.engine.sparse_training import SparseTraining
from sparsity.options import TrainingError

from . import predictions
from .cut import lost_at_cut
from .metrics import density_of, evaluate
from .recalibrate import recalibrate
from .training import Training

log = logging.getLogger(__name__)


def carry_out(training: Training) -> dict[str, Any]:
    """Train to the end, evaluate once, write and return the result.

    Raises:
        RunFailure: if the run diverges or its method did not act as it must.
        Interrupted: if the training was asked to stop.
        LostRank: if another rank died.
    """
    try:
        training.start()
        with (
            ending(lambda reason: training.writer.end(training.progress.step, reason)),
            lost_ranks_named(training.world),
        ):
            training.train()
            return finish(training)
    finally:
        training.objects.data.close()


def finish(training: Training) -> dict[str, Any]:
    """Finalize, evaluate, and on rank 0 write `weights.pt` and `result.json`; all ranks must call it.

    Raises:
        RunFailure: if the method did not act as it says, or the run diverged in its last steps.
    """
    run, spec, folder = training.objects, training.spec, training.folder
    records = training.world.broadcast(training.writer.records())
    check_events(run.sparse, records, spec, folder)
    trained = density_of(run.sparse)
    try:
        nonzero = run.sparse.finalize()
    except TrainingError as error:  # a topology that holds another number of weights than it states
        raise RunFailure(str(error), where=str(folder)) from None
    events = [*records, *run.sparse.events]
    training.record_events()
    _settle_statistics(training, run.model)
    seen: list[Tensor] | None = [] if spec.evaluate.predictions else None
    with training.autocast():
        batches = run.data.evaluate_batches(spec.data.evaluate_on)
        loss, accuracy, images = evaluate(run.model, batches, training.world, seen)
    averaged, average = _evaluate_average(training)
    if not math.isfinite(loss):
        raise RunFailure("the final loss is not finite: the run diverged in its last steps", where=str(folder))
    sizes = run.sparse.masks.sizes
    densities = {name: nonzero[name] / size for name, size in sizes.items()}
    measured = {
        **({"initial_weights": run.initial_weights} if run.initial_weights is not None else {}),
        "code": codes(folder),
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
        "unpruned": {one.name: {"size": one.size, "why": one.why} for one in run.sparse.summary().layers if one.why},
        "events": run.sparse.event_counts,
        "mask_updates": None if run.sparse.expected_active() is None else mask_updates(events),
        "idle_events": run.sparse.idle,
        "empty_layers": run.sparse.emptied,
        "uncounted": run.sparse.representation.uncounted if spec.topology.sparsity > 0 else {},
        **lost_at_cut(
            accuracy,
            run.data.num_classes,
            records,
            training.progress.step,
            recalibrated=spec.model.recalibrate > 0,
        ),
        "ranks": training.world.size,
        "levels": run.sparse.levels.count,
        "epochs": training.progress.step // run.data.steps_per_epoch,
        "steps": training.progress.step,
        "skipped_steps": run.sparse.skipped,
        "seconds": round(training.progress.elapsed(), 3),
    }
    result = summarise(spec, training.identity, records, measured, trained)
    predicted = predictions.gather(seen, training.world) if seen is not None else None
    if training.world.is_main:
        _write(training, result, average, predicted)
    return result


def _settle_statistics(training: Training, model: nn.Module) -> None:
    """Give all ranks the same batch statistics: rank 0's, or those of some batches of an epoch that was not trained."""
    run, batches = training.objects, training.spec.model.recalibrate
    share_buffers(model, training.world)
    if batches:
        epoch = training.progress.step // run.data.steps_per_epoch
        with training.autocast():
            recalibrate(model, islice(run.data.batches(epoch), batches), training.world)


def _write(
    training: Training, result: dict[str, Any], average: nn.Module | None, predicted: NDArray[np.int64] | None
) -> None:
    folder, content = training.folder, {"model": training.objects.model.state_dict()}
    if average is not None:
        content["average"] = average.state_dict()
    check = training.writer.check
    checkpoint.write(folder / names.WEIGHTS, training.identity, training.spec.seed, content, check)
    if predicted is not None:
        predictions.write(folder, predicted, check)
    training.writer.close_metrics()
    write_json(folder / names.RESULT, seal(result, folder), check)
    training.checkpoints.clear()
    numbers = result["accuracy"], training.spec.data.evaluate_on, result["sparsity"]
    log.info("done: accuracy %.4f on %s, sparsity %.4f", *numbers)


def _evaluate_average(training: Training) -> tuple[dict[str, Any], nn.Module | None]:
    """Evaluate the averaged weights under the final masks, beside the weights themselves; return their network too."""
    run = training.objects
    if run.average is None:
        return {}, None
    network = run.average.network(run.model, run.sparse.masks)
    _settle_statistics(training, network)
    batches = run.data.evaluate_batches(training.spec.data.evaluate_on)
    with training.autocast():
        loss, accuracy, _ = evaluate(network, batches, training.world)
    return {"average_accuracy": accuracy, "average_loss": loss}, network


def mask_updates(records: Iterable[Mapping[str, Any]]) -> int:
    """Return how often a run has changed its masks after the first ones."""
    return sum(bool(one.get("changed")) for one in records if "dropped" in one and one["event"] != "initial")


def check_events(sparse: SparseTraining, records: list[dict[str, Any]], spec: Spec, folder: Path) -> None:
    """Make sure the method acted as it says it does, and as the configuration demands.

    Raises:
        RunFailure: if the number of events is not the method's own, or a demand under `checks.events` is not met.
    """
    for kind, count in sparse.expected_events().items():
        seen = sparse.event_counts.get(kind, 0)
        # a step that the loss scaler skips whole may take an event along
        if not count - sparse.skipped <= seen <= count:
            raise RunFailure(f"{count} {kind} events were due, {seen} happened", where=str(folder))
    total = sparse.total_steps
    for kind, demand in spec.checks.events.items():
        effective = [
            r
            for r in records
            if r["kind"] == "event" and r["event"] == kind and r["changed"] and r["step"] <= demand.by * total
        ]
        if len(effective) < demand.at_least:
            raise RunFailure(
                f"checks.events.{kind} demands {demand.at_least} with entries changed by {demand.by:.0%} of training, "
                f"{len(effective)} happened",
                where=str(folder),
            )


def _terms(spec: Spec) -> dict[str, Any]:
    """Collect what a table must say about how the run was meant, where that is unusual."""
    terms: dict[str, Any] = {}
    options = spec.topology.options
    if spec.topology.sparsity > 0 and getattr(options, "dense", "none") != "none":
        terms |= {"dense_layers": options.dense, "rebudget": options.rebudget}
    if spec.topology.sparsity > 0 and hasattr(options, "allocation"):
        terms["allocation"] = options.allocation
    if spec.model.recalibrate:
        terms["recalibrated"] = spec.model.recalibrate
    return terms


def summarise(
    spec: Spec, identity: str, records: list[dict[str, Any]], measured: dict[str, Any], density: float
) -> dict[str, Any]:
    """Return the content of `result.json`: the headline is the last epoch's, the best validation epoch stands apart.

    The best epoch is one of those that trained a network of the final density (dense phases and ramps do not count),
    in a run that trains several times one of the last training. There is none if the last step alone made the cut.
    """
    epochs = [record for record in records if record["kind"] == "epoch"]
    last = [record for record in epochs if record.get("level") == epochs[-1].get("level")]
    # ties with a threshold cost single weights, and STR's zeros come and go
    final = [record for record in last if math.isclose(record["density"], density, rel_tol=1e-3)]
    validated = [record for record in final if record["validation_accuracy"] is not None]
    best = max(validated, key=lambda r: (r["validation_accuracy"], -r["epoch"]), default=None)
    target = spec.topology.sparsity
    return {
        "status": "done",
        "identity": identity,
        "seed": spec.seed,
        "accuracy_on": spec.data.evaluate_on,
        "best_validation_accuracy": best["validation_accuracy"] if best else None,
        "best_validation_epoch": best["epoch"] if best else None,
        "train_loss": epochs[-1]["loss"],
        "train_accuracy": epochs[-1]["train_accuracy"],
        "target_sparsity": target if target > 0 else None,
        **_terms(spec),
        **measured,
    }
