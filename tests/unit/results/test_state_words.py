"""The state of a run for every state and reason of Slurm's, and the reason that a note gives."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from fake_runs import fail, forget, interrupt, write_attempt, write_json, write_submission, write_sweep

from experiments.rundir import process
from results.progress.report import RunState
from results.progress.states import BAD, STATES, UNDER_WAY
from results.progress.status import status
from results.runs.store import read
from slurm.scheduler import queue, words
from slurm.scheduler.output import in_one_line, told
from slurm.scheduler.parse import OVER, PENDING, RUNNING, Job
from slurm.scheduler.queue import Answer

NAME = "ham-demo-ab12cd34-0"

# "JOB STATE CODES" of `man squeue`, version 22.05, and those that later versions added
WHILE_ACTIVE = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "POWER_UP_NODE": "pending",
    "REQUEUED": "pending",
    "REQUEUE_FED": "pending",
    "REQUEUE_HOLD": "held",
    "RESV_DEL_HOLD": "held",
    "SPECIAL_EXIT": "held",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
    "COMPLETING": "completing",
    "STAGE_OUT": "completing",
    "A_STATE_OF_A_LATER_SLURM": "pending",
}
WHEN_OVER = {
    "BOOT_FAIL": "lost",
    "CANCELLED": "cancelled",
    "COMPLETED": "lost",
    "DEADLINE": "lost",
    "FAILED": "lost",
    "LAUNCH_FAILED": "lost",
    "NODE_FAIL": "lost",
    "OUT_OF_MEMORY": "lost",
    "PREEMPTED": "lost",
    "RECONFIG_FAIL": "lost",
    "REVOKED": "lost",
    "TIMEOUT": "lost",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of the only run of a sweep, which was submitted and has not begun."""
    sweep = write_sweep(tmp_path / "demo", {"RiGL": [0.8]}, seeds=(0,))
    (path,) = (one.path for one in read(sweep).runs)
    forget(path)
    write_submission(sweep, [[path.name]])
    return path


def found(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    *jobs: Job,
    remembers: tuple[Job, ...] = (),
    problem: str | None = None,
) -> RunState:
    """The state of the run with these answers of squeue and sacct."""
    monkeypatch.setattr(queue, "queue", lambda ids=(), names=(): Answer({job.id: job for job in jobs}, problem))
    past = Answer({job.id: job for job in remembers}, problem=None if remembers else "no accounting")
    monkeypatch.setattr(queue, "history", lambda ids=(), names=(): past)
    return status(run.parent).runs[0]


def job(state: str, **more: Any) -> Job:
    fields: dict[str, Any] = {"id": "12_0", "raw": "12", "name": NAME, **more}
    return Job(state=state, **fields)


def cancellation(run: Path, seconds: float = 950.0) -> None:
    write_json(
        run.parent / "submissions" / "cancelled" / "950-ab.json",
        {"time": seconds, "jobs": ["12_0"], "runs": [run.name]},
    )


def test_every_state_of_slurm_is_known():
    assert (WHILE_ACTIVE.keys() | WHEN_OVER.keys()) - {"A_STATE_OF_A_LATER_SLURM"} == PENDING | RUNNING | OVER
    assert set(STATES) >= UNDER_WAY | BAD


@pytest.mark.parametrize(("state", "expected"), [*WHILE_ACTIVE.items(), *WHEN_OVER.items()])
def test_a_job_in_every_state(run, monkeypatch, state, expected):
    one = found(run, monkeypatch, job(state))
    assert one.state == expected
    assert (one.state in UNDER_WAY) == (state in WHILE_ACTIVE), "what may live is never submitted a second time"
    assert one.note is not None
    assert (state in one.note) == (state not in ("RUNNING", "RESIZING", "SIGNALING")), "Slurm's own word is quoted"


@pytest.mark.parametrize(("state", "expected"), [("SUSPENDED", "suspended"), ("COMPLETING", "completing")])
def test_a_process_that_lives_does_not_hide_that_its_job_stands_still(run, monkeypatch, state, expected):
    write_attempt(run, pid=os.getpid(), home=process.home(), job="12_0")
    assert found(run, monkeypatch, job(state)).state == expected
    assert found(run, monkeypatch, job("RUNNING")).state == "running"
    assert found(run, monkeypatch).state == "running"


def test_a_run_that_has_stopped_while_its_job_goes_on(run, monkeypatch):
    interrupt(run, job="12_0")
    one = found(run, monkeypatch, job("RUNNING"))
    assert (one.state, one.note) == ("completing", "stopped; its job is about to end or to be requeued")
    cancellation(run, 1200.0)
    assert found(run, monkeypatch, job("COMPLETING")).note == "COMPLETING: its job is ending, cancelled"
    fail(run, "a loss that is not a number")
    assert found(run, monkeypatch, job("COMPLETING")).state == "failed"


@pytest.mark.parametrize(
    ("reason", "state", "part"),
    [
        ("Priority", "pending", "jobs of a higher priority come first"),
        ("JobHeldUser", "held", "`scontrol release 12_0` lets it go"),
        ("JobHeldAdmin", "held", "an administrator, who alone"),
        ("launch failed requeued held", "held", "`scontrol release 12_0` lets it go"),
        ("job requeued in held state", "held", "`scontrol release 12_0` lets it go"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "pending", "down, reserved or in use"),
        ("PartitionTimeLimit", "pending", "more hours than its partition allows; it never starts"),
        ("QOSMaxJobsPerUserLimit", "pending", "its QOS allows no more jobs at once"),
        ("QOSMaxCpuPerUserLimit", "pending", "its QOS allows no more CPUs at once"),
        ("QOSMaxWallDurationPerJobLimit", "pending", "more hours than its QOS allows a job; it never starts"),
        ("AssocMaxJobsLimit", "pending", "its account allows no more jobs at once"),
        ("AssocGrpGRES", "pending", "its account allows no more GPUs and other devices at once"),
        ("AssocGrpCPUMinutesLimit", "pending", "the hours that its account may use are used up"),
        ("QOSMinCpuNotSatisfied", "pending", "fewer CPUs than its QOS demands"),
        ("DependencyNeverSatisfied", "pending", "it never starts: `ham cancel` it"),
    ],
)
def test_why_a_job_waits(run, monkeypatch, reason, state, part):
    one = found(run, monkeypatch, job("PENDING", reason=reason))
    assert one.state == state
    assert one.note is not None
    assert one.note.startswith(f"{reason}: ")
    assert part in one.note


def test_a_reason_without_words_stays_as_it_is(run, monkeypatch):
    assert found(run, monkeypatch, job("PENDING", reason="AReasonOfALaterSlurm")).note == "AReasonOfALaterSlurm"


MANUAL = [  # "JOB REASON CODES" of `man squeue`; those that say how a job ended stand for no waiting
    *("AssociationJobLimit", "AssociationResourceLimit", "AssociationTimeLimit", "BadConstraints", "BeginTime"),
    *("Cleaning", "Dependency", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "JobHeldAdmin"),
    *("JobHeldUser", "Licenses", "NodeDown", "PartitionDown", "PartitionInactive", "PartitionNodeLimit"),
    *("PartitionTimeLimit", "Priority", "Prolog", "QOSJobLimit", "QOSResourceLimit", "QOSTimeLimit"),
    *("QOSUsageThreshold", "ReqNodeNotAvail", "Reservation", "Resources"),
]


@pytest.mark.parametrize("reason", MANUAL)
def test_every_reason_of_the_manual_has_words(reason):
    assert words.waiting(job("PENDING", reason=reason)).startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("state", "code", "text"),
    [
        ("FAILED", 3, "FAILED, exit code 3"),
        ("FAILED", 127, "FAILED, exit code 127: a command was not found"),
        ("FAILED", 137, "FAILED, exit code 137: killed by SIGKILL"),
        ("FAILED", -9, "FAILED, signal 9: killed by SIGKILL"),
        ("FAILED", -53, f"FAILED, signal 53: {words._CODES[-53]}"),
        ("NODE_FAIL", None, "NODE_FAIL: its node failed"),
        ("CANCELLED", -15, "CANCELLED"),
    ],
)
def test_how_a_job_ended(state, code, text):
    assert words.ended(job(state, code=code)) == text


def test_cancelled_is_known_after_the_scheduler_has_forgotten(run, monkeypatch):
    assert found(run, monkeypatch).state == "lost"
    cancellation(run)
    one = found(run, monkeypatch)
    assert (one.state, str(one.note)[:22]) == ("cancelled", "CANCELLED by `ham canc")
    assert found(run, monkeypatch, remembers=(job("CANCELLED", reason="by 7"),)).note == "CANCELLED by 7"
    assert found(run, monkeypatch, problem="no answer").state == "unknown", "it may not have come through"
    assert found(run, monkeypatch, job("RUNNING")).state == "running"


def test_a_run_that_was_submitted_or_started_since_is_not_cancelled(run, monkeypatch):
    cancellation(run)
    write_submission(run.parent, [[run.name]], job="14", identifier="00000001", time=960.0)
    assert found(run, monkeypatch).state == "lost"
    (run.parent / "submissions" / "00000001.json").unlink()
    write_attempt(run, time=970.0, job="99")
    assert found(run, monkeypatch).state == "lost"
    write_attempt(run, time=970.0, job="12_0")
    assert found(run, monkeypatch).state == "cancelled", "the start that was cancelled"
    interrupt(run, time=970.0)
    assert found(run, monkeypatch).state == "resumable", "taken up without the scheduler"


def test_a_cancelled_job_whose_number_was_never_recorded(run, monkeypatch):
    write_submission(run.parent, [[run.name]], job=None)
    assert found(run, monkeypatch).state == "never submitted"
    assert found(run, monkeypatch, job("CANCELLED")).state == "cancelled"
    assert found(run, monkeypatch, job("TIMEOUT")).state == "lost"
    cancellation(run)
    assert found(run, monkeypatch).state == "cancelled"


def test_a_damaged_record_of_a_cancellation_is_left_out(run, monkeypatch, caplog):
    cancellation(run)
    (run.parent / "submissions" / "cancelled" / "950-ab.json").write_text('{"time": -1}')
    assert found(run, monkeypatch).state == "lost"
    assert "950-ab.json: " in caplog.text


SRUN = """\
srun: launch/slurm: _step_signal: Terminating StepId=12.0
slurmstepd: error: *** STEP 12.0 ON n0 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***
srun: Job step aborted: Waiting up to 32 seconds for job step to finish.
srun: error: n0: task 0: Exited with exit code 1
srun: error: n1: tasks 0-3,5: Killed
the task did not start (exit code 1); the log says why
"""


@pytest.mark.parametrize(
    "reason",
    [
        "ImportError: no torch",
        "slurmstepd: error: execve(): sh: Permission denied",
        "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive.",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed.",
        "srun: error: n0: task 0: Out Of Memory",
        "srun: error: Unable to create step for job 12: Memory required by task is not available",
        "/bin/sh: 1: apptainer: not found",
    ],
)
def test_the_note_quotes_the_reason_and_not_what_stands_beside_it(run, monkeypatch, reason):
    (run.parent / "submissions" / "ab12cd34" / "12_0_0_log.err").write_text(f"loading\n\x1b[31m{reason}\x1b[0m\n{SRUN}")
    assert found(run, monkeypatch, job("FAILED", code=1)).note == f"FAILED, exit code 1: {reason}"


def test_a_log_of_nothing_but_noise_is_better_than_none():
    assert told(SRUN.splitlines()[3:4]) == ["srun: error: n0: task 0: Exited with exit code 1"]
    assert told(["", "  "]) == []


def test_an_error_of_several_lines_is_told_whole_and_a_traceback_by_its_end():
    assert in_one_line("the ranks did not meet\nrank 1 ended") == "the ranks did not meet / rank 1 ended"
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\n    f()\nValueError: no\nand more'
    assert in_one_line(trace) == "ValueError: no / and more"
    assert in_one_line("x" * 500) == "x" * 400 + " …"
    assert in_one_line("") == ""


def test_a_cancelled_run_says_when(run, monkeypatch):
    now = time.time()
    cancellation(run, now)
    expected = time.strftime("CANCELLED by `ham cancel`, %Y-%m-%d %H:%M", time.localtime(now))
    assert found(run, monkeypatch).note == expected
