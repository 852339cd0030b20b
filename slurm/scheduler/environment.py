"""The Slurm job that this process belongs to. No other module reads the ``SLURM_*`` variables about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class JobStart:
    """One start of a job, from the view of one of its tasks; outside a job, all attributes have their defaults.

    Attributes:
        id: The scheduler's internal number of the job, ``SLURM_JOB_ID``.
        name: The job in the form the scheduler prints, ``1234`` or ``1234_5``.
        restarts: How often the job has been requeued.
        node: Name of the node.
        step: Number of the step that srun started; "0" outside a step.
        rank: Rank of this task in its step.
        local_rank: Rank of this task on its node.
        size: Number of tasks of the step; 1 outside a step. A batch script has a rank too, but only srun's tasks have a
            step.
        cpus: CPUs of each task; 1 where Slurm does not say.
    """

    id: str | None = None
    name: str | None = None
    restarts: int = 0
    node: str | None = None
    step: str = "0"
    rank: int = 0
    local_rank: int = 0
    size: int = 1
    cpus: int = 1


def this_start(env: Mapping[str, str] = os.environ) -> JobStart:
    """Read the variables that Slurm sets for a job."""
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    return JobStart(
        id=env.get("SLURM_JOB_ID"),
        name=f"{array}_{task}" if array else env.get("SLURM_JOB_ID"),
        restarts=int(env.get("SLURM_RESTART_COUNT") or 0),
        node=env.get("SLURMD_NODENAME") or None,
        step=env.get("SLURM_STEP_ID", "0"),
        rank=int(env.get("SLURM_PROCID", 0)),
        local_rank=int(env.get("SLURM_LOCALID", 0)),
        size=int(env.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_PROCID" in env else 1,
        cpus=int(env.get("SLURM_CPUS_PER_TASK") or 1),
    )
