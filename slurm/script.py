"""The shell code around a job: environment, staging of data, and the only place that requeues a job."""

from __future__ import annotations

import shlex
from pathlib import Path

from .job.codes import VERDICT
from .profile import Profile

# srun's exit code is the worst of its tasks', including tasks that srun kills because another has ended. Therefore the
# code of rank 0 decides, and srun's only if rank 0 did not end by itself. A job that still counts as running, or has
# reached its time limit, is requeued; one that the scheduler has ended (cancelled, or requeued by someone else) is not.
# Nor is one that has been started again since: this shell may live on a node that the scheduler has given up. For the
# same reason each start has a verdict of its own.
# The plain job number of an array's last task is that of the array, and requeueing it would requeue all tasks.
_END = """\
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
  for ham_try in %(tries)s; do
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
  echo "this job cannot put itself back into the queue; go on with: ham status %(sweep)s --resubmit lost" >&2
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
    lines = [
        f'export {VERDICT}={shlex.quote(str(folder))}/"$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.verdict"',
        f'rm -f "${VERDICT}"',
        _END % {"tries": "1 2 3 4" if profile.requeue else "", "sweep": shlex.quote(str(sweep))},
        "trap : TERM USR1 USR2  # srun has them too, and this shell waits for it",
        "trap ham_end EXIT",
        *profile.setup,
        f'export PYTHONPATH={shlex.quote(str(snapshot))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "export PYTHONSAFEPATH=1  # or the folder the job was submitted from would come before the snapshot",
    ]
    if profile.staging is not None:
        once = 'srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1'
        lines.append(
            f"{once} bash -c {shlex.quote(profile.staging.command)} || "
            '{ echo "staging failed; the lines above say why" >&2; exit 1; }'
        )
    return lines


def command(python: str) -> str:
    """Return a command that starts Python with the warning signals blocked until handlers exist, if `env` supports it.

    The signals stay blocked in workers that decode data, which the scheduler signals as well.
    """
    blocked = "env --block-signal=USR1,USR2"
    choice = f'if {blocked} true 2> /dev/null; then exec {blocked} "$@"; fi; exec "$@"'
    return f"sh -c {shlex.quote(choice)} sh {python}"
