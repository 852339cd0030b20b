#!/bin/bash

# Parameters
#SBATCH --array=0-3%4
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
  for ham_try in ; do
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
module load cuda
export NCCL_DEBUG=WARN
export PYTHONPATH=/shared/runs/.snapshots/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c 'tar -xf '"'"'/data/it s.tar'"'"' -C $TMPDIR' || { echo "staging failed; the lines above say why" >&2; exit 1; }

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.out --error /shared/runs/table/submissions/ab12cd34/%A_%a_%t_log.err --kill-on-bad-exit=1 '--container-image=/images/ham suite.sqsh' sh -c 'if env --block-signal=USR1,USR2 true 2> /dev/null; then exec env --block-signal=USR1,USR2 "$@"; fi; exec "$@"' sh python -u -m submitit.core._submit /shared/runs/table/submissions/ab12cd34

