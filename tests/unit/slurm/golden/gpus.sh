#!/bin/bash

# Parameters
#SBATCH --account=sparse
#SBATCH --array=0-3%2
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --error=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=a100:4
#SBATCH --job-name=ham-table-ab12cd34-0
#SBATCH --mail-type=FAIL
#SBATCH --mem=124928M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/table/submissions/ab12cd34/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --reservation=night
#SBATCH --signal=USR2@300
#SBATCH --time=75

# setup
export HAM_VERDICT=/shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_ID.verdict"
rm -f "$HAM_VERDICT"
ham_end() {
  ham_code=$?
  trap - EXIT
  ham_verdict=$(cat "$HAM_VERDICT" 2> /dev/null)
  rm -f "$HAM_VERDICT"
  case "$ham_verdict" in
    '') echo "the task did not start (exit code $ham_code); the log says why" >&2; exit "$ham_code" ;;
    running) [ "$ham_code" -ne 0 ] || ham_code=70 ;;
    *) ham_code=$ham_verdict ;;
  esac
  case "$ham_code" in 0 | 1 | 2) exit "$ham_code" ;; esac
  ham_job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
  for ham_try in 1 2 3 4; do
    command -v scontrol > /dev/null || break
    case "$(scontrol show job --oneliner "$ham_job")" in
      *JobState=RUNNING* | *Reason=TimeLimit*) scontrol requeue "$ham_job" && exit 0 ;;
      *JobState=*) exit 0 ;;
    esac
    sleep 5
  done
  echo "this job cannot put itself back into the queue; go on with: ham status /shared/runs/table --resubmit lost" >&2
  case "$ham_code" in 75 | 76) exit 0 ;; esac
  exit "$ham_code"
}
trap : TERM USR1 USR2  # srun has them too, and this shell waits for it
trap ham_end EXIT
export PYTHONPATH=/shared/runs/.snapshots/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.out --error /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=8 sh -c 'if env --block-signal=USR1,USR2 true 2> /dev/null; then exec env --block-signal=USR1,USR2 "$@"; fi; exec "$@"' sh python -u -m submitit.core._submit /shared/runs/table/submissions/ab12cd34

