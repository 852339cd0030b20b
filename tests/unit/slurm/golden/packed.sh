#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --chdir=/home/me/project
#SBATCH --comment=Row
#SBATCH --error=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=ham-table-ab12cd34-0
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=240

# setup
[ "$(cd /shared/runs/.snapshots/0123456789abcdef 2> /dev/null && find . -name __pycache__ -prune -o ! -type d ! -path ./COMMIT -print0 | LC_ALL=C sort -z | { xargs -0 sha256sum || echo damaged; } | sha256sum | cut -c -16)" = 0123456789abcdef ] || { echo 'the code of this job, /shared/runs/.snapshots/0123456789abcdef, was changed or removed; to go on with the present code: ham status /shared/runs/table --resubmit lost' >&2; exit 1; }
timeout 10 scontrol update jobid="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" comment="$(sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p" /shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_NAME.rows")" > /dev/null 2>&1 || true
# common.sh
export PYTHONPATH=/shared/runs/.snapshots/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.out --error /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.err --export=ALL --kill-on-bad-exit=1 sh -c 'if env --block-signal=TERM,USR1,USR2 true 2> /dev/null; then exec env --block-signal=TERM,USR1,USR2 "$@"; fi; exec "$@"' sh python -u -m submitit.core._submit /shared/runs/table/submissions/ab12cd34

