unset ${!SBATCH_@} ${!SRUN_@} ${!SALLOC_@} ${!SUBMITIT_@} ${!TORCHELASTIC_@} ${!PMI_@} ${!PMIX_@} ${!OMPI_@} ${!PRTE_@} ${!HYDRA_@}
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE ROLE_NAME NODE_RANK MASTER_ADDR MASTER_PORT MPI_LOCALRANKID MPI_LOCALNRANKS MV2_COMM_WORLD_RANK MV2_COMM_WORLD_LOCAL_RANK MV2_COMM_WORLD_SIZE
[ -z "${SLURM_MEM_PER_NODE:-}" ] || unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU  # srun takes only one of them
export HAM_VERDICT=/shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.verdict"
export HAM_CRASHES=/shared/runs/table/submissions/ab12cd34/"$SLURM_JOB_ID.crashes"
ham_died=; ham_starts=
ham_last=${HAM_VERDICT%.*.verdict}.$((${SLURM_RESTART_COUNT:-0} - 1)).verdict
read -r _ ham_died ham_starts 2> /dev/null < "$ham_last"
rm -f "$ham_last"
ham_starts=$((ham_starts + 1))
echo "starting ${ham_died:-0} $ham_starts" > "$HAM_VERDICT"
if [ "$ham_starts" -gt 100 ]; then
  echo "this job was started 100 times in a row before Python could begin; max_requeues allows no more" >&2
  rm -f "$HAM_VERDICT" "$HAM_CRASHES"
  exit 1
fi
ham_made_good() {
  case "$ham_code" in
    143) ham_code=76; return 0 ;;
    129 | 1[3-8][0-9] | 19[0-2] | 253) return 0 ;;
  esac
  [ -f /dev/stderr ] || return 1
  ham_said=$(tail -n 3 /dev/stderr)
  case "${ham_said,,}" in *"unable to contact slurm controller"* | *"unable to establish controller"* | *"timed out"* | *"connection re"* | *"connect failure"* | *"not connected"* | *"temporarily"* | *"zero bytes were transmitted"* | *"did not answer"*) ham_code=70 ;; *) return 1 ;; esac
}
ham_state() {
  ham_shown=$(scontrol show job --oneliner "$ham_job")
  case "$ham_shown" in
    *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
    *" Restarts="*) echo gone; return ;;
  esac
  case "$ham_shown" in
    *JobState=RUNNING* | *Reason=TimeLimit*) echo ours ;;
    *JobState=*) echo gone ;;
  esac
}
ham_charge() {
  case "$ham_code" in 75 | 76) return 0 ;; esac
  echo "${SLURM_RESTART_COUNT:-0}" >> "$HAM_CRASHES" || return 1
  [ "$ham_verdict" = starting ] || return 0
  echo "starting $((ham_died + 1)) $ham_starts" > "$HAM_VERDICT" && [ $((ham_died + 1)) -lt 3 ]
}
ham_end() {
  ham_code=$?
  trap - EXIT
  ham_job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
  ham_verdict=
  read -r ham_verdict ham_died ham_starts 2> /dev/null < "$HAM_VERDICT"
  case "${ham_verdict:=starting}" in
    starting)
      if ! ham_made_good; then
        [ "$(ham_state 2> /dev/null)" != gone ] || exit 0
        echo "ham: the task did not start (exit code $ham_code)" >&2
        rm -f "$HAM_VERDICT" "$HAM_CRASHES"
        [ "$ham_code" -ne 0 ] || exit 1
        exit "$ham_code"
      fi ;;
    running) case "$ham_code" in 0 | 1 | 2) ham_code=70 ;; esac ;;
    *) ham_code=$ham_verdict ;;
  esac
  [ "$ham_verdict" = starting ] || rm -f "$HAM_VERDICT"
  case "$ham_code" in 0 | 1 | 2) rm -f "$HAM_CRASHES"; exit "$ham_code" ;; esac
  for ham_try in 1 2 3 4; do
    command -v scontrol > /dev/null || break
    case "$(ham_state)" in
      ours) ham_charge || break; scontrol requeue "$ham_job" && exit 0 ;;
      gone) exit 0 ;;
    esac
    sleep 5
  done
  echo "ham: this job does not go back into the queue; go on with: ham status /shared/runs/table --resubmit lost" >&2
  case "$ham_code" in 75 | 76) exit 0 ;; esac
  exit "$ham_code"
}
trap : TERM USR1 USR2  # srun has them too, and this shell waits for it
trap ham_end EXIT
