"""Hours before a submission, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_plans import PLACE, cells, profile_of

from experiments.launch.estimate import Estimate
from slurm import hours
from slurm.plan import ArrayPlan, plan

WARNED = 120


def arrays(folder: Path, count: int, *overrides: str, **keys: object) -> list[ArrayPlan]:
    profile = profile_of(folder, signal_seconds=WARNED, **keys)
    return plan(cells(folder, count, *overrides), profile, PLACE, name="ham-t-1", array_size=1000)


def taking(arrays: list[ArrayPlan], *seconds: float) -> dict[str, Estimate]:
    paths = [cell.path for array in arrays for task in array.tasks for cell in task]
    return {path: Estimate(one, "same") for path, one in zip(paths, seconds, strict=False)}


def test_without_gpus_cpu_hours_are_said(tmp_path: Path) -> None:
    assert hours.bound(arrays(tmp_path, 4, hours=2.0, gpus_per_rank=0, cpus_per_rank=3)) == "24 CPU-hours"
    assert hours.bound(arrays(tmp_path, 4, hours=2.0, gpus_per_rank=0)) == "8 CPU-hours"
    with_gpus = arrays(tmp_path, 4, hours=2.0, gpus_per_rank=1, cpus_per_rank=3, nodes=2, ranks_per_node=2)
    assert hours.bound(with_gpus) == "32 GPU-hours and 96 CPU-hours"


def test_a_run_longer_than_a_job_is_a_chain_of_jobs(tmp_path: Path) -> None:
    planned = arrays(tmp_path, 3, hours=1.0, gpus_per_rank=1, cpus_per_rank=8)
    each = 3600 - WARNED  # seconds that a job trains
    found = hours.forecast(planned, taking(planned, each, each + 1, 10 * each), WARNED)
    assert (found.known, found.jobs, found.longest) == (3, 1 + 2 + 10, 10)
    assert found.gpu_hours == pytest.approx((12 * each + 1) / 3600)
    assert found.cpu_hours == pytest.approx(8 * (12 * each + 1) / 3600)
    assert found.seconds == 10 * each


def test_runs_that_share_a_job_share_its_time(tmp_path: Path) -> None:
    planned = arrays(tmp_path, 4, hours=1.0, gpus_per_rank=1, cpus_per_rank=2, runs_per_job=2)
    found = hours.forecast(planned, taking(planned, 900, 1800, 3600, 60), WARNED)
    assert (found.known, found.jobs, found.gpu_hours, found.cpu_hours) == (4, 1 + 2, 1.5, 3.0)


def test_the_sentence(tmp_path: Path) -> None:
    planned = arrays(tmp_path, 3, hours=1.0, gpus_per_rank=0, cpus_per_rank=2)
    assert hours.estimate(planned, taking(planned, 7200.0, 1800.0), WARNED) == (
        "estimate for 2 of 3 runs: 5 CPU-hours in 4 starts of jobs, up to 3 after another for one run; the longest run "
        "takes 2 h 0 min (2 from finished runs of other seeds, of 1 nothing is known (--probe times some steps of "
        "each here))"
    )
    assert hours.estimate(planned, {}, WARNED) == (
        "estimate: none, of 3 nothing is known (--probe times some steps of each here)"
    )
    assert hours.estimate([], {}, WARNED) == "estimate: nothing to do"
    gpu = arrays(tmp_path, 1, hours=1.0, gpus_per_rank=1, cpus_per_rank=2)
    assert hours.estimate(gpu, taking(gpu, 1800.0), WARNED).startswith("estimate: 0.5 GPU-hours and 1 CPU-hours in 1 ")
