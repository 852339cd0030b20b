"""The job's side: crash loops, signals, exit codes; without a scheduler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import calls, cells, install

from experiments.config.identity import identity, identity_with_data
from experiments.errors import Busy, LostRank, RunFailure
from experiments.launch.pool import Task, TaskResult
from experiments.rundir import process
from experiments.rundir.files import write_json
from slurm.job import orphans, payload
from slurm.job.crashes import Limits
from slurm.job.orphans import put_back, watch
from slurm.job.payload import JobPayload, JobRun, prepared
from slurm.job.signals import Signals
from slurm.scheduler.environment import JobStart
from slurm.script import command

LIMITS = Limits(crashes=3, starts=100)


def start(attempt: int, step: int) -> dict[str, Any]:
    return {"attempt": attempt, "event": "start", "step": step}


def saved(attempt: int, step: int) -> dict[str, Any]:
    return {"attempt": attempt, "event": "checkpoint", "step": step}


def owner(attempt: int, restarts: int, job: str = "7_1") -> dict[str, Any]:
    return {"attempt": attempt, "restarts": restarts, "job": job}


BEGUN, SAVED = [start(1, 0)], [start(1, 0), saved(1, 10)]
TWICE = [*SAVED, start(2, 10)]


@pytest.mark.parametrize(
    ("owners", "records", "restarts", "crashed", "crashes", "starts"),
    [
        ([], [], 0, [], 0, 0),
        ([], [], 2, [0, 1], 2, 2),  # died before Python could leave a trace
        ([], [], 3, [], 0, 3),  # preempted before it could
        ([owner(1, 0)], BEGUN, 1, [0], 1, 1),
        ([owner(1, 0)], BEGUN, 1, [], 0, 1),
        ([owner(1, 0)], SAVED, 1, [0], 0, 0),
        ([owner(1, 0), owner(2, 1)], TWICE, 2, [0, 1], 1, 1),
        ([owner(1, 0), owner(2, 1)], [*TWICE, saved(2, 20)], 2, [1], 0, 0),
        ([owner(1, 0), owner(2, 1)], [*TWICE, saved(2, 10)], 2, [1], 1, 1),
        ([owner(1, 0), owner(2, 3)], TWICE, 4, [1, 3], 2, 3),  # two starts left no trace, one of them was preempted
        ([owner(1, 5, "6_1"), owner(2, 0)], TWICE, 1, [0], 1, 1),  # of another job
        ([owner(1, 0)], BEGUN, 1, [0, 1], 1, 1),  # not this start itself
    ],
)
def test_crashes_without_a_new_checkpoint_are_counted_apart_from_starts(
    owners: list[dict[str, Any]],
    records: list[dict[str, Any]],
    restarts: int,
    crashed: list[int],
    crashes: int,
    starts: int,
) -> None:
    this = JobStart(id="9", name="7_1", restarts=restarts)
    found = (owners, records, this, crashed)
    assert Limits(crashes + 1, starts + 1).reached(*found) is None
    if crashes:
        assert "crashed without progress" in (Limits(crashes, 100).reached(*found) or "")
    if starts:
        assert "ended without progress" in (Limits(100, starts).reached(*found) or "")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobRun:
    """A tiny run, in a job's environment."""
    (cell,) = cells(tmp_path, 1)
    monkeypatch.setenv("HAM_VERDICT", str(tmp_path / "verdict"))
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    for name in (
        "SLURM_PROCID",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_RESTART_COUNT",
        "SUBMITIT_FOLDER",
        "SLURM_STEP_NUM_TASKS",
    ):
        monkeypatch.delenv(name, raising=False)
    return JobRun(str(tmp_path / "run"), identity_with_data(cell.spec), cell.spec.model_dump())


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers and threads of a job stay out of the test process."""
    monkeypatch.setattr("slurm.job.signals.Signals.install", lambda self: None)
    monkeypatch.setattr("slurm.job.payload.watch", lambda *_: None)


def ended(job: JobPayload) -> int:
    with pytest.raises(SystemExit) as left:
        job()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_finished_run_ends_with_zero_and_says_so(run: JobRun, tmp_path: Path) -> None:
    job = JobPayload((run,), LIMITS, gpu=False)
    assert ended(job) == 0
    result = json.loads(Path(run.folder, "result.json").read_text())
    assert result["status"] == "done"
    assert (tmp_path / "verdict").read_text() == "0\n"
    written = Path(run.folder, "result.json").stat().st_mtime_ns
    assert ended(job) == 0
    assert Path(run.folder, "result.json").stat().st_mtime_ns == written


def somebody(run: JobRun, **changes: Any) -> None:
    folder = Path(run.folder, "attempts")
    folder.mkdir(parents=True, exist_ok=True)
    mine = {"attempt": 1, "pid": os.getpid(), "home": process.home(), "host": "h", "job": None, "restarts": 0}
    (folder / "0001.json").write_text(json.dumps(mine | changes))


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_that_somebody_holds_is_waited_for_and_never_counts_as_done(
    run: JobRun, packed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    somebody(run)
    monkeypatch.setattr("slurm.job.payload.PATIENCE", 0.0)
    if packed:
        busy = {run.folder: TaskResult(error="held", busy=True)}
        monkeypatch.setattr("experiments.launch.pool.run_all", lambda *_: busy)
        assert ended(JobPayload((run, run), LIMITS, gpu=False)) == 1
        with pytest.raises(Busy):
            payload._packed(run, False, None)
    else:
        assert ended(JobPayload((run,), LIMITS, gpu=False)) == 2
        assert f"process {os.getpid()} on h is writing this run" in caplog.text
    assert not Path(run.folder, "result.json").exists()
    assert not Path(run.folder, "failure.json").exists()


def test_a_run_that_becomes_free_meanwhile_is_carried_out(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody(run)
    monkeypatch.setattr("experiments.rundir.waiting.time.sleep", lambda _: somebody(run, ended=1.0))
    assert ended(JobPayload((run,), LIMITS, gpu=False)) == 0
    assert Path(run.folder, "result.json").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(RunFailure("the loss is not a number"), 1), (LostRank("rank 1 is gone"), 70), (ZeroDivisionError(), 70)],
)
def test_failures_are_for_good_and_crashes_are_not(
    run: JobRun, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("experiments.run.runner.run", broken)
    assert ended(JobPayload((run,), LIMITS, gpu=False)) == code
    assert (tmp_path / "verdict").read_text() == f"{code}\n"


def restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, crashed: str) -> None:
    """This is not the first start of the job."""
    (tmp_path / "crashes").write_text(crashed)
    monkeypatch.setenv("HAM_CRASHES", str(tmp_path / "crashes"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))


def test_a_crash_loop_ends_with_the_reason(run: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(run.folder)
    folder.mkdir()
    (folder / "log.txt").write_text("first line\nillegal instruction in libfoo\n")
    restarted(tmp_path, monkeypatch, 3, "0\n1\n2\n2\n")
    monkeypatch.setattr("experiments.run.runner.run", lambda *_, **__: pytest.fail("was started again"))
    assert ended(JobPayload((run,), LIMITS, gpu=False)) == 1
    failure = json.loads((folder / "failure.json").read_text())
    assert "3 attempts of job 9 in a row crashed without progress" in failure["error"]
    assert "illegal instruction in libfoo" in failure["error"]


@pytest.mark.parametrize(("restarts", "crashed"), [(2, "0\n1\n"), (50, ""), (50, "7\n")])
def test_below_the_limit_a_crashed_run_goes_on(
    run: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, crashed: str
) -> None:
    """Preemptions, requeues and lost nodes are the scheduler's doing."""
    restarted(tmp_path, monkeypatch, restarts, crashed)
    assert ended(JobPayload((run,), LIMITS, gpu=False)) == 0
    assert json.loads(Path(run.folder, "result.json").read_text())["status"] == "done"


def test_even_the_schedulers_doing_has_an_end(run: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted(tmp_path, monkeypatch, 100, "7\n")
    assert ended(JobPayload((run,), LIMITS, gpu=False)) == 1
    failure = json.loads(Path(run.folder, "failure.json").read_text())["error"]
    assert "100 attempts of job 9 in a row ended without progress, 1 of them crashed" in failure


def test_a_restarted_job_leaves_out_what_has_failed_and_goes_on_with_the_others(
    run: JobRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = JobRun(str(tmp_path / "other"), run.identity, run.spec)
    Path(other.folder).mkdir()
    write_json(Path(other.folder, "failure.json"), {"status": "failed", "error": "a loss that is not a number"})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    started: list[str] = []

    def done(tasks: list[Task], *_: Any) -> dict[str, TaskResult]:
        started.extend(task.name for task in tasks)
        return {task.name: TaskResult() for task in tasks}

    monkeypatch.setattr("experiments.launch.pool.run_all", done)
    assert ended(JobPayload((run, other), LIMITS, gpu=False)) == 1  # not all have a result
    assert started == [run.folder]


@pytest.mark.parametrize(
    ("state", "reason", "again"),
    [
        ("COMPLETING", "JobLaunchFailure", True),
        ("COMPLETING", "RaisedSignal:9(Killed)", True),
        ("OUT_OF_MEMORY", "OutOfMemory", True),
        ("RUNNING", "None", False),  # preempted, with time to end: the batch script requeues
        ("COMPLETING", "None", False),  # cancelled
        ("COMPLETING", "TimeLimit", False),
        ("PENDING", "BeginTime", False),  # requeued by somebody
    ],
)
def test_a_task_requeues_its_job_if_the_batch_script_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, reason: str, again: bool
) -> None:
    fake = install(
        tmp_path / "bin", monkeypatch, scontrol=f"echo 'JobId=9 JobState={state} Reason={reason} Restarts=0'"
    )
    assert put_back(JobStart(id="9", name="8_1", restarts=1))  # of an earlier start, or a later one
    assert "requeue 8_1" not in calls(fake, "scontrol")
    assert put_back(JobStart(id="9", name="8_1")) == again
    assert ("requeue 8_1" in calls(fake, "scontrol")) == again


def test_a_task_asks_when_terminated_and_again_and_again_when_its_slurmstepd_has_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can terminate it then, and its batch script may be killed a little later than its slurmstepd."""
    parents, answers, asked = iter([7, 7, 1, 1, 1, 1]), iter([False, False, True]), []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(orphans.time, "sleep", lambda _: None)
    monkeypatch.setattr(orphans, "put_back", lambda start: asked.append(start) or next(answers))
    watch(Signals(), JobStart(id="9", name="8")).join(3)
    assert asked == [JobStart(id="9", name="8")] * 3
    monkeypatch.setattr(os, "getppid", lambda: 7)
    answers, signals = iter([False]), Signals()
    signals.terminated = True
    watch(signals, JobStart(id="9", name="8")).join(3)
    assert len(asked) == 4


def test_outside_a_job_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(tmp_path / "bin", monkeypatch, scontrol="")
    put_back(JobStart())
    assert calls(fake, "scontrol") == []


def test_staged_data_takes_the_place_of_the_root(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = {"/local/7/imagenet": "as submitted", "/local/8/imagenet": "something else"}
    monkeypatch.setattr("experiments.data.content_hash", lambda name, root: hashed[root])
    run = replace(run, identity=identity(prepared(run, False, None), "as submitted"))
    monkeypatch.setenv("NODE_LOCAL", "/local/7")
    assert prepared(run, False, "$NODE_LOCAL/imagenet").data.root == "/local/7/imagenet"
    assert prepared(run, False, None).data.root is None
    monkeypatch.setenv("NODE_LOCAL", "/local/8")
    with pytest.raises(RunFailure, match="not those that the run was submitted with"):
        prepared(run, False, "$NODE_LOCAL/imagenet")
    monkeypatch.delenv("NODE_LOCAL")
    with pytest.raises(RunFailure, match="NODE_LOCAL"):
        prepared(run, False, "$NODE_LOCAL/imagenet")


def test_a_gpu_job_does_not_quietly_train_on_the_cpu(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RunFailure, match="torch sees none"):
        prepared(run, True, None)


WAITING = """
import sys, time
from pathlib import Path
from slurm.job.signals import Signals
Path("loaded").touch()
time.sleep(1)
signals = Signals(interrupt=len(sys.argv) > 1)
signals.install()
try:
    Path("installed").touch()
    until = time.monotonic() + 120
    while time.monotonic() < until and not signals.received():
        time.sleep(0.05)
    time.sleep(0.5)
except KeyboardInterrupt:
    print("interrupted")
print(signals.code)
"""


@pytest.mark.parametrize(
    ("arguments", "number", "when", "says"),
    [
        ([], signal.SIGUSR2, "installed", ["75"]),
        ([], signal.SIGUSR1, "loaded", ["75"]),
        ([], signal.SIGTERM, "installed", ["76"]),
        ([], signal.SIGTERM, "loaded", ["76"]),
        (["packed"], signal.SIGUSR2, "installed", ["interrupted", "75"]),
        (["packed"], signal.SIGTERM, "installed", ["interrupted", "76"]),
    ],
)
def test_signals_are_kept_from_the_first_moment_on(
    arguments: list[str], number: int, when: str, says: list[str], tmp_path: Path
) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    line = f"exec {command(sys.executable)} waiting.py {' '.join(arguments)}"
    process = subprocess.Popen(["sh", "-c", line], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / when).exists():
        assert time.monotonic() < deadline, "the script did not start"
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=150)
    assert out.splitlines() == says
