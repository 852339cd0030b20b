"""Calibration: solve for the threshold decay with which STR reaches a given sparsity.

STR's sparsity is not set but results from the decay of the threshold parameter s (only one setting is published), so a
table at a given sparsity needs a decay for each setting. The decay is searched for with one seed and stored beside the
configuration, together with how it was obtained. The search does not count as tuning; its cost is stored with it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.config.identity import CALIBRATED, THRESHOLD_DECAY, calibration_identity, identity_with_data
from experiments.config.resolve import from_mapping, with_threshold_decay
from experiments.config.schema import Spec
from experiments.config.sweep import Cell
from experiments.config.yaml_text import dump, read_yaml
from experiments.errors import RunFailure, UserError
from experiments.run import runner
from experiments.rundir.files import write_text

from .pool import Listener, Task, TaskResult, run_all

TOLERANCE = 0.002  # of sparsity; tables mark rows that miss their target by more than 0.005
MAX_RUNS = 14
_START, _LEAST, _MOST = 0.01, 1e-12, 1e4
_ADVICE = "Another representation.initial_threshold may help"


def needed(cells: list[Cell], known: dict[str, float]) -> list[Cell]:
    """Return one cell for each setting that asks for a calibrated decay and has none yet."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if getattr(cell.spec.representation.options, THRESHOLD_DECAY, None) != CALIBRATED:
            continue
        key = calibration_identity(cell.spec)
        if key not in known:
            found.setdefault(key, cell)
    return list(found.values())


class _Storing(Listener):
    """Stores each decay as soon as it is found, so that no search is lost if the others are stopped."""

    def __init__(self, inner: Listener, path: Path, cells: list[Cell]):
        self._inner, self._path = inner, path
        self._cells = {cell.path: cell for cell in cells}
        self.started, self.progress, self.waits = inner.started, inner.progress, inner.waits

    def finished(self, name: str, outcome: TaskResult) -> None:
        """Store the decay that a search has found."""
        if outcome.error is None:
            cell = self._cells[name]
            about = {"row": cell.row, **cell.column}
            store(self._path, {"identity": calibration_identity(cell.spec), **outcome.value, "of": about})
        self._inner.finished(name, outcome)


def calibrate(cells: list[Cell], path: Path, jobs: int, listener: Listener) -> list[str]:
    """Search for the decays of some cells, in parallel, and store them.

    Args:
        cells: Cells to calibrate, as `needed` returns them.
        path: The calibration file.
        jobs: Number of worker processes.
        listener: Receives the progress.

    Returns:
        One message per failed search.
    """
    with tempfile.TemporaryDirectory(prefix="ham-calibrate-") as scratch:
        tasks = [
            Task(
                name=f"{cell.path}",
                function=_search,
                arguments=(cell.spec.model_dump(), Path(scratch) / str(number)),
                log=Path(scratch) / f"{number}.txt",
            )
            for number, cell in enumerate(cells)
        ]
        outcomes = run_all(tasks, jobs, _Storing(listener, path, cells))
    return [f"{cell.path}: {outcomes[cell.path].error}" for cell in cells if outcomes[cell.path].error]


def _search(mapping: dict[str, Any], folder: Path, *, progress: Any, stop: Any) -> dict[str, Any]:
    spec = from_mapping(mapping)
    target = spec.topology.sparsity
    if target <= 0:
        raise UserError("there is no sparsity to calibrate for; set it above 0", where="topology.sparsity")

    def measure(decay: float) -> float:
        trial = _trial(spec, decay)
        hashed = identity_with_data(trial)
        result = runner.run(trial, folder / f"{decay:.12g}", hashed, progress=progress, stop=stop)
        return result["sparsity"]

    decay, reached, runs = solve(measure, target)
    return {
        THRESHOLD_DECAY: decay,
        "target": target,
        "reached": round(reached, 5),
        "seed": spec.seed,
        "runs": runs,
    }


def _trial(spec: Spec, decay: float) -> Spec:
    spec = with_threshold_decay(spec, decay)
    update = {
        "tracking": spec.tracking.model_copy(update={"wandb": "disabled"}),
        "checks": spec.checks.model_copy(update={"events": {}}),
        # the search does not use the accuracy, so that the test part need not be read
        "data": spec.data.model_copy(update={"evaluate_on": "validation"} if spec.data.validation else {}),
    }
    return spec.model_copy(update=update)


def solve(measure: Callable[[float], float], target: float) -> tuple[float, float, int]:
    """Find the decay that reaches a target sparsity, by bracketing and the Illinois method on log scales.

    Sparsity grows with the decay; its logit is nearly linear in the logarithm of the decay around the target.

    Args:
        measure: Function from a decay to the sparsity it reaches, in [0, 1].
        target: Target sparsity, in (0, 1).

    Returns:
        The decay, the sparsity it reaches, and the number of measurements.

    Raises:
        RunFailure: if the target is not met to `TOLERANCE` in `MAX_RUNS` measurements.
    """
    tried: dict[float, float] = {}

    def gap(log_decay: float) -> float:
        try:
            tried[log_decay] = measure(_written(log_decay))
        except RunFailure as error:
            raise RunFailure(
                f"no threshold decay found for sparsity {target:g}: with {_written(log_decay):.3g} the training fails "
                f"({error.message}); {_nearest()}{_ADVICE}"
            ) from error
        return _logit(tried[log_decay]) - _logit(target)

    def _nearest() -> str:
        if not tried:
            return ""
        best = min(tried, key=lambda point: abs(tried[point] - target))
        return f"nearest of {len(tried)} runs: {tried[best]:.4f} at {_written(best):.3g}. "

    def met(log_decay: float) -> bool:
        return abs(tried[log_decay] - target) <= TOLERANCE

    low = high = math.log(_START)
    low_gap = high_gap = gap(low)
    step = math.log(2)
    while (low_gap > 0 or high_gap < 0) and len(tried) < MAX_RUNS and not (met(low) or met(high)):
        if not math.log(_LEAST) < low <= high < math.log(_MOST):
            break
        if high_gap < 0:
            low, low_gap = high, high_gap
            high += step
            high_gap = gap(high)
        else:
            high, high_gap = low, low_gap
            low -= step
            low_gap = gap(low)
        step *= 1.5
    kept_side = 0
    bracketed = low_gap <= 0 <= high_gap and low_gap < high_gap
    while bracketed and len(tried) < MAX_RUNS and not any(met(point) for point in tried):
        middle = (low * high_gap - high * low_gap) / (high_gap - low_gap)
        # stay inside the bracket: a saturated end (sparsity 1) would pull the secant to the other end
        middle = min(max(middle, low + 0.1 * (high - low)), high - 0.1 * (high - low))
        middle_gap = gap(middle)
        if middle_gap < 0:
            low, low_gap = middle, middle_gap
            high_gap *= 0.5 if kept_side == 1 else 1.0
            kept_side = 1
        else:
            high, high_gap = middle, middle_gap
            low_gap *= 0.5 if kept_side == -1 else 1.0
            kept_side = -1
    best = min(tried, key=lambda point: abs(tried[point] - target))
    if not met(best):
        raise RunFailure(
            f"no threshold decay found for sparsity {target:g} in {len(tried)} runs; nearest: {tried[best]:.4f} at "
            f"{_written(best):.3g}. {_ADVICE}"
        )
    return _written(best), tried[best], len(tried)


def _written(log_decay: float) -> float:
    """Return the decay with the digits that the file stores, so that the stored value is the measured one."""
    return float(f"{math.exp(log_decay):.6g}")


def _logit(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))


def store(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a calibration file; it replaces an old one of the same identity."""
    old: list[Mapping[str, Any]] = read_yaml(path) if path.exists() else []
    entries = {one["identity"]: dict(one) for one in [*old, entry]}
    head = (
        "# Decay of STR's thresholds for the target sparsity, one entry a setting, written by `ham calibrate`\n"
        "# runs is the cost of the search in full training runs, which no tuning count includes.\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, head + dump(list(entries.values())))
