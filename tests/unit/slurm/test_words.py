"""Which lines of a job's output say why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm.scheduler.output import last_words

FOLLOWS = [
    "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.",
    "srun: error: n0: task 0: Killed",
    "srun: error: n0: tasks 0-3: Terminated",
    "srun: error: n1: tasks 2,3: Exited with exit code 70",
    "srun: Terminating StepId=12.0",
    "srun: Force Terminated StepId=12.0",
    "srun: launch/slurm: _step_signal: Terminating StepId=12.0",
    "slurmstepd-n0: error: *** STEP 12.0 ON n0 FAILED (non-zero exit code or other failure mode) ***",
    "Terminated",
    "srun: error: Unable to confirm allocation for job 12: Job is pending execution",
    "srun: Check SLURM_JOB_ID environment variable. Expired or invalid job 12",
    "slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026-11-29T01:02:03 DUE TO JOB REQUEUE ***",
    "slurmstepd-n0: error: *** JOB 12 ON n0 CANCELLED AT 2026-11-29T01:02:03 DUE TO PREEMPTION ***",
    "srun: Job 12 step creation temporarily disabled, retrying (Requested nodes are busy)",
    "srun: Step created for StepId=12.1",
    "ham: the task did not start (exit code 13)",
    "ham: staging failed (exit code 7)",
]
SAYS = [
    "ImportError: no torch",
    "RuntimeError: rank 1 of 4 did not find the others: timeout",
    "sh: 1: exec: nopython: not found",
    "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive.",
    "slurmstepd: error: execve(): sh: Permission denied",
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been killed",
    "srun: error: Unable to create step for job 12: Invalid job id specified",
    "srun: error: n0: task 0: Segmentation fault (core dumped)",
    "srun: error: n0: task 0: Out Of Memory",
    "FATAL: could not open image /images/ham.sif: no such file or directory",
    "tar: /data/imagenet.tar: Cannot open: No such file or directory",
]


@pytest.mark.parametrize("said", SAYS)
def test_the_cause_is_quoted_and_not_what_follows_from_it(tmp_path: Path, said: str) -> None:
    (tmp_path / "log").write_text("\n".join(["it begins", f"\x1b[31m{said}\x1b[0m", *FOLLOWS, "", "  "]))
    assert last_words(tmp_path / "log") == [said]
    assert last_words(tmp_path / "log", 3) == ["it begins", said]


@pytest.mark.parametrize("only", FOLLOWS)
def test_what_follows_is_better_than_nothing(tmp_path: Path, only: str) -> None:
    (tmp_path / "log").write_text(f"{only}\n")
    assert last_words(tmp_path / "log") == [only]


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert last_words(tmp_path / "log") == []
