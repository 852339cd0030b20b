"""What the environment says about the Slurm job of this process, and what of it is no business of another job.

No other module reads the ``SLURM_*`` variables about the job of a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

LAUNCHED = ("SBATCH_", "SRUN_", "SALLOC_", "SUBMITIT_", "TORCHELASTIC_", "PMI_", "PMIX_", "OMPI_", "PRTE_", "HYDRA_")
"""Prefixes of the variables by which launchers steer and number the processes that they start."""

NUMBERED = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK"),
    *("ROLE_WORLD_SIZE", "ROLE_NAME", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    *("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_SIZE"),
)
"""Variables of torchrun and of MPI by which a process knows its rank."""

_CLIENT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")  # which cluster, and who asks
_JOB = ("SLURM_", "SLURMD_", "SLURMSTEPD_")
_DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")  # SQUEUE_STATES, for one, could hide jobs
_NOTEBOOK = ("JPY_", "MPLBACKEND")
_GRANTED = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_GRANTED += ("ZE_AFFINITY_MASK", "TMPDIR")


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


def clean(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment in which commands of Slurm are called.

    It lacks what is about the job, the launcher or the notebook that this process belongs to, and the user's own
    defaults of these commands: they would overrule what the suite asks for, or reach the jobs.
    """
    without = (*_JOB, *LAUNCHED, *_DEFAULTS, *_NOTEBOOK)
    granted = _GRANTED if "SLURM_JOB_ID" in env else ()  # elsewhere they are the user's own choice
    return {
        name: value
        for name, value in env.items()
        if name in _CLIENT or not (name.startswith(without) or name in NUMBERED or name in granted)
    }


@contextmanager
def cleaned() -> Iterator[None]:
    """Give this process a clean environment during a block, for libraries that call commands of Slurm."""
    before = dict(os.environ)
    for name in before.keys() - clean(before).keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
