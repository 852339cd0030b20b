"""The shell code around a job: environment, staging of data, and the only place that requeues a job."""

from __future__ import annotations

import shlex
from pathlib import Path

from .job.codes import CRASHES, VERDICT
from .profile import Profile
from .scheduler.cluster import SILENT
from .scheduler.environment import LAUNCHED, NUMBERED

EVERYTHING = "--export=ALL"
"""Argument by which srun passes on the environment of the batch script, whatever that of sbatch was told."""

# what may still come from elsewhere, such as the start-up files of shells; what `setup` exports stays
_CLEAN = f"""\
unset {" ".join(f"${{!{prefix}@}}" for prefix in LAUNCHED)}
unset {" ".join(NUMBERED)}
[ -z "${{SLURM_MEM_PER_NODE:-}}" ] || unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU  # srun takes only one of them"""

# Until Python speaks, the verdict is "starting", followed by two numbers: how many starts in a row have died, and how
# many there were. They outlive a start, and Python's first word ends them.
_BEGIN = """\
ham_died=; ham_starts=
ham_last=${HAM_VERDICT%%.*.verdict}.$((${SLURM_RESTART_COUNT:-0} - 1)).verdict
read -r _ ham_died ham_starts 2> /dev/null < "$ham_last"
rm -f "$ham_last"
ham_starts=$((ham_starts + 1))
echo "starting ${ham_died:-0} $ham_starts" > "$HAM_VERDICT"
if [ "$ham_starts" -gt %(most)d ]; then
  echo "this job was started %(most)d times in a row before Python could begin; max_requeues allows no more" >&2
  rm -f "$HAM_VERDICT" "$HAM_CRASHES"
  exit 1
fi"""

# A line of `setup` that fails ends the job, as a command of Python's would: it would train without what is missing.
_SETUP = """\
ham_ran() {
  ham_code=$?
  [ "$ham_code" -ne 0 ] || return 0
  echo "a line of setup in the profile failed (exit code $ham_code): $1" >&2
  exit "$ham_code"
}"""

# srun's exit code is the worst of its tasks', including tasks that srun kills because another has ended. Therefore the
# code of rank 0 decides, and srun's only if rank 0 did not end by itself. A job that still counts as running, or has
# reached its time limit, is requeued, and charged unless it stopped at a checkpoint; one that the scheduler has ended
# (cancelled, preempted, or requeued by someone else) is neither. Nor is one that has been started again since: this
# shell may live on a node that the scheduler has given up. For the same reason each start has a verdict of its own.
# Before Python speaks, a death by a signal (253: out of memory) and a scheduler that did not answer srun are made good;
# a command that fails or is not found is not.
# The plain job number of an array's last task is that of the array, and requeueing it would requeue all tasks.
# Lines that begin with "ham: " say what follows from the lines before, see `scheduler.output`.
_END = """\
ham_made_good() {
  case "$ham_code" in
    143) ham_code=76; return 0 ;;
    129 | 1[3-8][0-9] | 19[0-2] | 253) return 0 ;;
  esac
  [ -f /dev/stderr ] || return 1
  ham_said=$(tail -n 3 /dev/stderr)
  case "${ham_said,,}" in %(silent)s) ham_code=70 ;; *) return 1 ;; esac
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
  echo "starting $((ham_died + 1)) $ham_starts" > "$HAM_VERDICT" && [ $((ham_died + 1)) -lt %(crashes)d ]
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
  for ham_try in %(tries)s; do
    command -v scontrol > /dev/null || break
    case "$(ham_state)" in
      ours) ham_charge || break; scontrol requeue "$ham_job" && exit 0 ;;
      gone) exit 0 ;;
    esac
    sleep 5
  done
  echo "ham: this job does not go back into the queue; go on with: ham status %(sweep)s --resubmit lost" >&2
  case "$ham_code" in 75 | 76) exit 0 ;; esac
  exit "$ham_code"
}"""


def setup(profile: Profile, snapshot: Path, folder: Path, sweep: Path) -> list[str]:
    """Return the lines of the batch script before srun.

    Args:
        profile: Profile of the cluster.
        snapshot: Folder of the code.
        folder: Folder of the submission.
        sweep: Folder of the sweep.
    """
    own = shlex.quote(str(folder))
    end = {
        "silent": " | ".join(f'*"{sign}"*' for sign in SILENT),
        "crashes": profile.max_restarts,
        "tries": "1 2 3 4" if profile.requeue else "",
        "sweep": shlex.quote(str(sweep)),
    }
    lines = [
        _CLEAN,
        f'export {VERDICT}={own}/"$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.verdict"',
        f'export {CRASHES}={own}/"$SLURM_JOB_ID.crashes"',
        _BEGIN % {"most": profile.max_requeues},
        _END % end,
        "trap : TERM USR1 USR2  # srun has them too, and this shell waits for it",
        "trap ham_end EXIT",
        *([_SETUP] if profile.setup else []),
        *(f"{line}\nham_ran {shlex.quote(line)}" for line in profile.setup),
        f'export PYTHONPATH={shlex.quote(str(snapshot))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot",
    ]
    if profile.staging is not None:
        once = f'srun {EVERYTHING} --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1'
        lines.append(
            f"{once} bash -c {shlex.quote(profile.staging.command)} || "
            '{ ham_code=$?; echo "ham: staging failed (exit code $ham_code)" >&2; exit "$ham_code"; }'
        )
    return lines


def command(python: str) -> str:
    """Return a command that starts Python with signals blocked until handlers exist, if `env` supports it.

    The warning signals stay blocked in workers that decode data, which the scheduler signals as well.
    """
    blocked = "env --block-signal=TERM,USR1,USR2"
    choice = f'if {blocked} true 2> /dev/null; then exec {blocked} "$@"; fi; exec "$@"'
    return f"sh -c {shlex.quote(choice)} sh {python}"
