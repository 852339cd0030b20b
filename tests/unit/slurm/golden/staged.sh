#!/bin/bash

# Parameters
#SBATCH --array=0-3%4
#SBATCH --chdir=/home/me/project
#SBATCH --comment=Row
#SBATCH --error=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.err
#SBATCH --job-name=ham-table-ab12cd34-0
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.out
#SBATCH --signal=USR2@120
#SBATCH --time=240

# setup
[ "$(cd /shared/runs/.snapshots/0123456789abcdef 2> /dev/null && find . -name __pycache__ -prune -o ! -type d ! -path ./COMMIT -print0 | LC_ALL=C sort -z | { xargs -0 sha256sum || echo damaged; } | sha256sum | cut -c -16)" = 0123456789abcdef ] || { echo 'the code of this job, /shared/runs/.snapshots/0123456789abcdef, was changed or removed; to go on with the present code: ham status /shared/runs/table --resubmit lost' >&2; exit 1; }
timeout 10 scontrol update jobid="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" comment="$(sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p" /shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_NAME.rows")" > /dev/null 2>&1 || true
# common.sh, without a try
ham_ran() {
  ham_code=$?
  [ "$ham_code" -ne 0 ] || return 0
  echo "a line of setup in the profile failed (exit code $ham_code): $1" >&2
  exit "$ham_code"
}
module load cuda
ham_ran 'module load cuda'
export NCCL_DEBUG=WARN
ham_ran 'export NCCL_DEBUG=WARN'
export PYTHONPATH=/shared/runs/.snapshots/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot
srun --export=ALL --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c 'tar -xf '"'"'/data/it s.tar'"'"' -C $TMPDIR' || { ham_code=$?; echo "ham: staging failed (exit code $ham_code)" >&2; exit "$ham_code"; }

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.out --error /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.err --export=ALL --kill-on-bad-exit=1 '--container-image=/images/ham suite.sqsh' sh -c 'if env --block-signal=TERM,USR1,USR2 true 2> /dev/null; then exec env --block-signal=TERM,USR1,USR2 "$@"; fi; exec "$@"' sh python -u -m submitit.core._submit /shared/runs/table/submissions/ab12cd34

