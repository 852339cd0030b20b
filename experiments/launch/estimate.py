"""How long runs will take, from finished runs of the same table or from timed steps; pure functions, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from experiments.config.schema import Spec
from experiments.config.sweep import Cell
from experiments.durations import words

Source = Literal["same", "alike", "probe"]
SOURCES: dict[Source, str] = {
    "same": "finished runs of other seeds",
    "alike": "finished runs of the same network and data",
    "probe": "steps timed on this machine",
}


@dataclass(frozen=True)
class Estimate:
    """How long a run will take from where it is now.

    Attributes:
        seconds: Seconds of training, without the start of its process and, where steps were timed, without evaluation.
        source: What this is concluded from, see `SOURCES`.
    """

    seconds: float
    source: Source


@dataclass(frozen=True)
class StepTime:
    """Steps of a run that were timed.

    Attributes:
        seconds: Seconds per step.
        steps: Steps of the whole run.
    """

    seconds: float
    steps: int


def estimates(
    cells: Iterable[Cell],
    results: Sequence[tuple[Cell, Mapping[str, Any]]],
    steps: Callable[[Spec], int],
    timed: Mapping[str, StepTime] | None = None,
    done: Callable[[Cell], int] = lambda cell: 0,
) -> dict[str, Estimate]:
    """Estimate what is left of runs; what nothing is known about is missing.

    Finished runs of the same specification come first, then timed steps, then finished runs of the same network, data,
    batch and passes, whose seconds per step are taken.

    Args:
        cells: The runs.
        results: Finished runs of the table, with their results.
        steps: Number of steps of a run.
        timed: Timed steps by identity, see `timing.timed`.
        done: Number of steps that a run has done.

    Returns:
        The estimates by path.
    """
    same: dict[str, list[float]] = {}
    alike: dict[str, list[float]] = {}
    for cell, result in results:
        pace = _pace(result)
        if pace is not None:
            same.setdefault(cell.identity, []).append(pace)
            alike.setdefault(kind(cell.spec), []).append(pace)
    found = {}
    for cell in cells:
        known = (timed or {}).get(cell.identity)
        if cell.identity in same:
            source, pace = "same", mean(same[cell.identity])
        elif known is not None:
            source, pace = "probe", known.seconds
        elif kind(cell.spec) in alike:
            source, pace = "alike", mean(alike[kind(cell.spec)])
        else:
            continue
        total = known.steps if known is not None else steps(cell.spec)
        found[cell.path] = Estimate(pace * max(0, total - done(cell)), source)
    return found


def kind(spec: Spec) -> str:
    """Return what the speed of a step depends on most; the mask work of a method is little beside it."""
    passes = {"sam": spec.optimizer.sam is not None, "representation": spec.representation.name}
    data, model = spec.data.model_dump(exclude={"root"}), spec.model.model_dump(exclude={"weights"})
    return repr([data, model, spec.runtime.model_dump(), passes])


def _pace(result: Mapping[str, Any]) -> float | None:
    seconds, steps = result.get("seconds"), result.get("steps")
    return seconds / steps if seconds and steps else None


def sources(found: Iterable[Estimate], total: int) -> str:
    """Say what estimates of `total` runs are concluded from, and of how many runs nothing is known."""
    counts: dict[Source, int] = {}
    for one in found:
        counts[one.source] = counts.get(one.source, 0) + 1
    parts = [f"{count} from {SOURCES[source]}" for source, count in sorted(counts.items())]
    unknown = total - sum(counts.values())
    if unknown:
        parts.append(f"of {unknown} nothing is known (--probe times some steps of each here)")
    return ", ".join(parts)


def local(found: Mapping[str, Estimate], total: int, jobs: int) -> str:
    """Return the estimate of a sweep on this machine, in one line.

    Args:
        found: The estimates.
        total: Number of runs.
        jobs: Number of worker processes.
    """
    if not found:
        return f"how long they take is not known: {sources((), total)}"
    seconds = [one.seconds for one in found.values()]
    wall = max(max(seconds), sum(seconds) / jobs)
    return (
        f"{_about(len(found), total)}: about {sum(seconds) / 3600:.2g} hours of compute, {words(wall)} with {jobs} "
        f"workers; {sources(found.values(), total)}"
    )


def _about(known: int, total: int) -> str:
    return "time" if known == total else f"time of {known} of {total}"
