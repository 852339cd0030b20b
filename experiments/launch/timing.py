"""A probe: some steps of each specification, timed on this machine, of which nothing is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments.config.resolve import from_mapping
from experiments.config.sweep import Cell
from experiments.errors import Interrupted
from experiments.run import runner
from experiments.rundir import names

from .estimate import TimedSteps
from .pool import Listener, Task, run_all

WARM_UP, STEPS = 5, 20
"""Steps that are not timed, since the first ones allocate and compile, and steps that are."""


def timed(cells: Iterable[Cell], listener: Listener) -> tuple[dict[str, TimedSteps], list[str]]:
    """Time some steps of each of some runs, one after another, as those of a sweep would compute.

    Args:
        cells: The runs, one for each specification.
        listener: Receives the progress.

    Returns:
        The timings by identity, and what went wrong with others.
    """
    cells = list(cells)
    with tempfile.TemporaryDirectory(prefix="ham-probe-") as folder:
        tasks = [
            Task(
                name=cell.path,
                function=_some_steps,
                arguments=(cell.spec.model_dump(), Path(folder) / cell.path, cell.identity),
                log=Path(folder) / cell.path / names.LOG,
            )
            for cell in cells
        ]
        outcomes = run_all(tasks, 1, listener)
    found = {one.identity: TimedSteps(*outcomes[one.path].value) for one in cells if outcomes[one.path].value}
    return found, [f"{name}: {outcome.error}" for name, outcome in outcomes.items() if outcome.value is None]


def _some_steps(
    mapping: dict[str, Any], folder: Path, identity: str, *, progress: runner.OnStep, stop: Callable[[], bool]
) -> tuple[float, int]:
    """Train for some steps; return seconds per step, and the steps of the whole run."""
    import torch

    spec = from_mapping(mapping)
    spec = spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"wandb": "disabled"})})
    moments: list[float] = []
    total = 0

    def note(done: int, steps: int) -> None:
        nonlocal total
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # or only the launch of a step would be timed
        moments.append(time.monotonic())
        total = steps
        progress(done, min(steps, WARM_UP + STEPS))

    try:
        runner.run(spec, folder, identity, progress=note, stop=lambda: stop() or len(moments) >= WARM_UP + STEPS)
    except Interrupted:
        if stop():
            raise
    first = min(WARM_UP, len(moments) // 2)  # a run may be shorter than that
    if len(moments) - first < 2:
        return moments[-1] - moments[0], total
    return (moments[-1] - moments[first]) / (len(moments) - 1 - first), total
