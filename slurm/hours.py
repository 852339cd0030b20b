"""Hours before: what a submission will use at most, and what it will probably use, as pure functions of its plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.durations import words
from experiments.launch.estimate import Estimate, sources

from .array import ArrayPlan


@dataclass(frozen=True)
class Forecast:
    """What the jobs of a submission will probably use.

    Attributes:
        known: Number of runs with an estimate; the rest of these numbers is about them.
        jobs: Number of jobs or, where jobs requeue themselves, of starts.
        longest: The largest number of starts that follow each other for one run.
        gpu_hours: GPUs × hours.
        cpu_hours: CPUs × hours.
        seconds: Time of the run that takes longest.
    """

    known: int
    jobs: int
    longest: int
    gpu_hours: float
    cpu_hours: float
    seconds: float


def cpus(array: ArrayPlan) -> int:
    """Return the number of CPUs that one job of an array requests."""
    asked = array.resources
    return asked.nodes * asked.ranks_per_node * (array.parameters.get("cpus_per_task") or 1)


def bound(arrays: Sequence[ArrayPlan]) -> str:
    """Say what jobs use at most until their time limit, in GPU- and CPU-hours."""
    gpu = sum(array.gpu_hours for array in arrays)
    cpu = sum(cpus(array) * array.resources.minutes / 60 * len(array.tasks) for array in arrays)
    return f"{gpu:g} GPU-hours and {cpu:g} CPU-hours" if gpu else f"{cpu:g} CPU-hours"


def forecast(arrays: Sequence[ArrayPlan], found: Mapping[str, Estimate], signal_seconds: int) -> Forecast:
    """Compute what the jobs of a submission will use.

    A job trains until `signal_seconds` before its time limit, and then the next start resumes. What each start takes
    before it trains is not counted.

    Args:
        arrays: The plan of the submission.
        found: Estimates of runs by path.
        signal_seconds: Seconds between the warning and the end of a job, see `Profile`.
    """
    known, jobs, longest, gpu, cpu, slowest = 0, 0, 0, 0.0, 0.0, 0.0
    for array in arrays:
        for task in array.tasks:
            seconds = [found[one.path].seconds for one in task if one.path in found]
            if not seconds:
                continue
            own = max(seconds)  # runs that share a job run side by side
            starts = max(1, math.ceil(own / (60 * array.resources.minutes - signal_seconds)))
            known, jobs, longest, slowest = known + len(seconds), jobs + starts, max(longest, starts), max(slowest, own)
            gpu += array.gpus * own / 3600
            cpu += cpus(array) * own / 3600
    return Forecast(known, jobs, longest, gpu, cpu, slowest)


def estimate(arrays: Sequence[ArrayPlan], found: Mapping[str, Estimate], signal_seconds: int) -> str:
    """Return the forecast of a submission in one line."""
    paths = {one.path for array in arrays for task in array.tasks for one in task}
    if not paths & found.keys():
        return f"estimate: none, {sources((), len(paths))}" if paths else "estimate: nothing to do"
    one = forecast(arrays, found, signal_seconds)
    some = "" if one.known == len(paths) else f" for {one.known} of {len(paths)} runs"
    gpu = f"{one.gpu_hours:.3g} GPU-hours and " if one.gpu_hours else ""
    chain = f", up to {one.longest} after another for one run" if one.longest > 1 else ""
    said = sources((found[path] for path in paths if path in found), len(paths))
    return (
        f"estimate{some}: {gpu}{one.cpu_hours:.3g} CPU-hours in {one.jobs} starts of jobs{chain}; the longest run "
        f"takes {words(one.seconds)} ({said})"
    )
