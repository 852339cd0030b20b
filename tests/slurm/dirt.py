"""What shells and notebooks inside a job have, and what sites set: none of it may reach a job or Slurm's commands."""

from __future__ import annotations

DIRT: dict[str, str] = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "33"},
    **{"SLURM_RESTART_COUNT": "2", "SLURM_NTASKS": "3", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "3"},
    **{
        "SLURM_MEM_PER_CPU": "200",
        "SLURM_CPUS_PER_TASK": "5",
        "SLURM_EXPORT_ENV": "NONE",
        "SLURM_DISTRIBUTION": "cyclic",
    },
    **{"SLURM_SUBMIT_DIR": "/nowhere", "SLURM_JOB_NODELIST": "elsewhere[1-3]", "SLURM_TASKS_PER_NODE": "1(x3)"},
    **{
        "SLURMD_NODENAME": "elsewhere1",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_GTIDS": "5",
        "SLURM_LAUNCH_NODE_IPADDR": "::1",
    },
    **{"SBATCH_EXPORT": "NONE", "SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1", "SBATCH_PARTITION": "urgent"},
    **{
        "SBATCH_ARRAY_INX": "0-1",
        "SBATCH_CONSTRAINT": "nosuch",
        "SBATCH_MEM_PER_NODE": "1",
        "SBATCH_HINT": "nomultithread",
    },
    **{"SRUN_EXPORT_ENV": "NONE", "SALLOC_PARTITION": "urgent", "SQUEUE_STATES": "SUSPENDED", "SINFO_FORMAT": "%N"},
    **{"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2", "MASTER_ADDR": "elsewhere1", "MASTER_PORT": "1"},
    **{"TORCHELASTIC_RUN_ID": "x", "PMI_RANK": "2", "PMIX_RANK": "2", "OMPI_COMM_WORLD_RANK": "2"},
    **{
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_FOLDER": "/nowhere",
        "CUDA_VISIBLE_DEVICES": "5",
        "TMPDIR": "/proc/nowhere",
    },
    **{"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JPY_PARENT_PID": "1"},
}
