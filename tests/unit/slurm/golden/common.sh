export HAM_VERDICT=/shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.verdict"
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
    ham_shown=$(scontrol show job --oneliner "$ham_job")
    case "$ham_shown" in
      *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
      *" Restarts="*) exit "$ham_code" ;;
    esac
    case "$ham_shown" in
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
