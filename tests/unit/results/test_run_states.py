"""States of runs, from files and from what the scheduler says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from fake_runs import (
    fail,
    forget,
    interrupt,
    overridden,
    result,
    write_attempt,
    write_checkpoint,
    write_heartbeat,
    write_json,
    write_run,
    write_submission,
    write_sweep,
)

from experiments.rundir import process
from results.progress.report import to_json
from results.progress.status import status
from results.progress.status_text import render, summary
from results.runs.store import read
from slurm.scheduler import queue
from slurm.scheduler.parse import Job
from slurm.scheduler.queue import Answer

HERE = process.home()
NAME = "ham-demo-ab12cd34-0"


@pytest.fixture
def sweep(tmp_path):
    rows = {"RiGL": {"topology.name": "rigl"}}
    return write_sweep(tmp_path / "demo", {"RiGL": [0.8] * 4}, rows, [{"topology.sparsity": 0.9}], seeds=range(4))


@pytest.fixture
def paths(sweep):
    return [run.path for run in read(sweep).runs]


def untouched(path, number=2):
    """The claim of an attempt that nobody has touched for long."""
    os.utime(path / f"attempts/{number:04}.json", (1e9, 1e9))


@pytest.fixture
def scheduler(monkeypatch):
    """Answers for squeue and sacct, and what they were asked for."""

    class Scheduler:
        queue = Answer()
        history = Answer(problem="Slurm accounting storage is disabled")
        asked: list[tuple[str, list[str], list[str]]] = []

        def says(self, *jobs):
            self.queue = Answer({job.id: job for job in jobs})

        def remembers(self, *jobs):
            self.history = Answer({job.id: job for job in jobs})

    fake = Scheduler()
    fake.asked = []
    for which in ("queue", "history"):

        def ask(ids=(), names=(), which=which):
            fake.asked.append((which, sorted(ids), sorted(names)))
            return getattr(fake, which)

        monkeypatch.setattr(queue, which, ask)
    return fake


def job(index=0, state="RUNNING", **more):
    return Job(**({"id": f"12_{index}", "raw": str(20 + index), "name": NAME, "state": state} | more))


def submit(sweep, *runs, packed=False, **more):
    tasks = [[path.name for path in runs]] if packed else [[path.name] for path in runs]
    return write_submission(sweep, tasks, **more)


def states(directory):
    return [run.state for run in status(directory).runs]


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def started(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[19]


def test_without_a_scheduler(sweep, paths, scheduler):
    interrupt(paths[1])
    fail(paths[2], "loss is nan\nat step 12")
    forget(paths[3])
    found = status(sweep).runs
    assert [run.state for run in found] == ["done", "resumable", "failed", "not started"]
    assert [(run.step, run.total) for run in found] == [(124, 124), (31, 124), (None, None), (None, None)]
    assert [run.note for run in found] == [None, None, "loss is nan / at step 12", None]
    assert scheduler.asked == []


def test_a_live_process_means_running(sweep, paths):
    interrupt(paths[0], 93)
    write_attempt(paths[0], 2, pid=os.getpid(), home=HERE)
    assert states(sweep)[0] == "running"
    write_attempt(paths[0], 2, pid=os.getpid(), home=HERE, started=started(os.getpid()))
    run = status(sweep).runs[0]
    assert (run.state, run.step, run.total, run.attempts, run.node) == ("running", 93, 124, 2, "n0")


def test_a_process_that_died_without_a_word_is_lost(sweep, paths):
    interrupt(paths[0])
    write_attempt(paths[0], 2, pid=dead_process(), home=HERE)
    run = status(sweep).runs[0]
    assert (run.state, run.checkpoint) == ("lost", 31)
    assert run.note == f"process {json.loads((paths[0] / 'attempts/0002.json').read_text())['pid']} on login died"


def test_a_later_process_of_the_same_number_is_another_one(sweep, paths):
    interrupt(paths[0])
    write_attempt(paths[0], 2, pid=os.getpid(), home=HERE, started="1")
    assert states(sweep)[0] == "lost"


@pytest.mark.parametrize("pid", [None, "12", True, 0, -1, 2**60])
def test_a_damaged_claim_is_nobodys_once_nobody_touches_it(sweep, paths, pid):
    interrupt(paths[0])
    write_attempt(paths[0], 2, pid=pid, home=HERE)
    for content in (None, "{", "[]"):
        if content:
            (paths[0] / "attempts/0002.json").write_text(content)
        assert states(sweep)[0] == "elsewhere"
        untouched(paths[0])
        run = status(sweep).runs[0]
        assert (run.state, run.note) == ("lost", "a process whose claim is damaged died")


def test_a_process_of_another_host_is_said_to_be_one(sweep, paths):
    interrupt(paths[0])
    write_attempt(paths[0], 2, host="node-17")
    run = status(sweep).runs[0]
    assert (run.state, run.note) == ("elsewhere", "held by process 1 on node-17")


def test_a_process_of_another_host_or_container_that_gives_no_sign_of_life_is_lost(sweep, paths):
    interrupt(paths[0])
    for number, home in enumerate((None, "another boot pid:[1]", f"{HERE}0"), 2):
        write_attempt(paths[0], number, pid=os.getpid(), home=home)
        assert states(sweep)[0] == "elsewhere"
        untouched(paths[0], number)
        assert states(sweep)[0] == "lost"


def test_a_retry_in_progress_is_running_and_not_failed(sweep, paths):
    fail(paths[0], "out of memory")
    write_attempt(paths[0], pid=os.getpid(), home=HERE)
    assert states(sweep)[0] == "running"


def test_stopped_without_a_checkpoint_has_nothing_to_resume(sweep, paths):
    interrupt(paths[0])
    next((paths[0] / "checkpoints").iterdir()).unlink()
    assert states(sweep)[0] == "not started"


def test_an_end_between_two_looks_is_done(sweep, paths, monkeypatch):
    """The result appears after the attempt was seen to live and before the results are read."""
    (paths[0] / "result.json").rename(paths[0] / "result")
    write_attempt(paths[0], pid=os.getpid(), home=HERE)
    from results.progress import status

    real = status.outcomes

    def late(plan):
        (paths[0] / "result").rename(paths[0] / "result.json")
        write_attempt(paths[0], ended=1.0, reason="done")
        return real(plan)

    monkeypatch.setattr(status, "outcomes", late)
    assert states(sweep)[0] == "done"


def test_jobs_that_wait_run_and_were_requeued(sweep, paths, scheduler):
    for path in paths:
        forget(path)
    submit(sweep, *paths)
    interrupt(paths[2], job="12_2", job_id="22", restarts=1)
    interrupt(paths[3], job="12_3", job_id="23")
    now = time.time()
    write_attempt(paths[3], 2, job="12_3", job_id="23", restarts=1, node="n1", time=now - 100, step=31)
    write_heartbeat(paths[3], 81, attempt=2, seconds=now)
    scheduler.says(
        job(0, "PENDING", reason="Priority", started=int(now) + 3600),
        job(1, "RUNNING", node="n3"),
        job(2, "PENDING", reason="BeginTime", restarts=2),
        job(3, "RUNNING", restarts=1, node="n1"),
    )
    report = status(sweep)
    found = report.runs
    assert [run.state for run in found] == ["pending", "running", "pending", "running"]
    assert [run.restarts for run in found] == [0, 0, 2, 1]
    first, _, third, _ = notes = [run.note for run in found]
    assert notes == [first, "starting", third, None]
    assert first == "Priority: jobs of a higher priority come first"
    assert third == "BeginTime: its earliest start has not come, as after a requeue"
    assert [run.node for run in found] == [None, "n3", "n0", "n1"]
    assert [run.job for run in found] == ["12_0", "12_1", "12_2", "12_3"]
    assert [run.step for run in found] == [None, None, 31, 81]
    assert found[0].starts == int(now) + 3600
    assert found[2].left is None
    assert found[3].left == pytest.approx((124 - 81) * 100 / 50, abs=3)
    assert scheduler.asked == [("queue", ["12"] + [f"12_{task}" for task in (2, 3)], [])]
    assert report.problem is None


def test_a_job_that_is_gone_is_lost_and_sacct_says_why(sweep, paths, scheduler):
    forget(paths[0])
    interrupt(paths[1], job="12_1", job_id="21")
    forget(paths[2])
    interrupt(paths[3], job="12_3", job_id="23", ended=None)
    submit(sweep, *paths)
    scheduler.says(job(3, "COMPLETING"))
    assert [run.note for run in status(sweep).runs][:2] == [
        "its job is gone from the queue; sacct: Slurm accounting storage is disabled"
    ] * 2
    scheduler.remembers(job(0, "CANCELLED", reason="by 0"), job(1, "TIMEOUT"))
    found = status(sweep).runs
    assert [run.state for run in found] == ["cancelled", "lost", "lost", "completing"]
    assert [run.note for run in found][:3] == [
        "CANCELLED by 0",
        "TIMEOUT: it reached its time limit and was not requeued",
        "its job is gone from the queue, and sacct does not know it, as if it was cancelled while it waited",
    ]
    assert scheduler.asked[-1] == ("history", ["12_0", "12_1", "12_2"], [])


ENDED = "slurmstepd-n0: error: *** JOB 21 ON n0 CANCELLED AT 2026-11-30T23:57:13"


@pytest.mark.parametrize(
    ("said", "begun", "state"),
    [
        (f"{ENDED} ***", -60, "cancelled"),
        (f"{ENDED} ***\nsrun: forcing job termination\nreceived SIGTERM", -60, "cancelled"),
        (f"{ENDED} DUE TO JOB REQUEUE ***\nresumed\n{ENDED} ***", -60, "cancelled"),
        (f"{ENDED} ***", 60, "lost"),  # it was started again since
        (f"{ENDED} ***\nresumed\n{ENDED} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", -60, "lost"),
        (f"{ENDED} DUE TO PREEMPTION ***", -60, "lost"),
        (f"{ENDED} DUE TO TIME LIMIT ***", -60, "lost"),
        (f"{ENDED.replace('JOB 21', 'STEP 21.0')} ***", -60, "lost"),  # another rank had failed
        (f"{ENDED.replace('2026', 'then')} ***", -60, "lost"),
        ("nothing of the kind", -60, "lost"),
    ],
)
def test_what_slurm_wrote_into_the_output_stays_known(sweep, paths, scheduler, said, begun, state):
    at = time.mktime((2026, 11, 30, 23, 57, 13, 0, 0, -1))
    interrupt(paths[1], job="12_0", job_id="21")
    write_attempt(paths[1], 2, job="12_0", job_id="21", time=at + begun, ended=at + max(begun, 0), reason="stopped")
    folder = submit(sweep, paths[1], time=at - 100)
    (folder / "12_0_0_log.err").write_text(f"started\n{said}\n")
    run = status(sweep).runs[1]
    assert run.state == state
    if state == "cancelled":
        assert run.note == "CANCELLED 2026-11-30 23:57, as its output says"
    scheduler.remembers(job(0, "NODE_FAIL"))  # sacct knows better
    assert status(sweep).runs[1].state == "lost"


def test_squeue_still_knows_jobs_that_have_just_ended(sweep, paths, scheduler):
    forget(paths[0])
    folder = submit(sweep, *paths)
    (folder / "12_0_0_log.err").write_text("Traceback\n\x1b[31mImportError\x1b[0m: no torch\n\n")
    scheduler.says(job(0, "FAILED", reason="NonZeroExitCode", code=3))
    run = status(sweep).runs[0]
    assert (run.state, run.note) == ("lost", "FAILED, exit code 3: ImportError: no torch")
    assert run.log == folder / "12_0_0_log.err"


def test_a_failed_run_of_a_job_names_its_own_log(sweep, paths, scheduler):
    fail(paths[0], "loss is nan at step 12")
    (paths[0] / "log.txt").write_text("loss is nan\n")
    write_attempt(paths[0], job="12_0", ended=1.0, reason="failed")
    submit(sweep, *paths)
    scheduler.says(job(0, "COMPLETING"))
    run = status(sweep).runs[0]
    assert (run.state, run.note, run.log) == ("failed", "loss is nan at step 12", paths[0] / "log.txt")
    scheduler.says(job(0, "PENDING"))
    assert states(sweep)[0] == "pending"


def test_a_job_that_has_not_begun_its_attempt_tells_no_time(sweep, paths, scheduler):
    fail(paths[0], "loss is nan")
    write_attempt(paths[0], job="12_0", ended=1.0, reason="failed")
    write_heartbeat(paths[0], 31, seconds=time.time())
    submit(sweep, paths[0], job="14")
    scheduler.says(job(id="14"))
    run = status(sweep).runs[0]
    assert (run.state, run.note, run.step, run.left) == ("running", "starting", 31, None)


def test_a_job_of_another_name_is_another_clusters(sweep, paths, scheduler):
    forget(paths[0])
    submit(sweep, *paths)
    scheduler.says(job(0, "RUNNING", name="somebody"))
    assert states(sweep)[0] == "lost"


def test_a_single_job_is_its_own_task(sweep, paths, scheduler):
    forget(paths[0])
    submit(sweep, paths[0])
    scheduler.says(job(id="12"))
    run = status(sweep).runs[0]
    assert (run.state, run.job) == ("running", "12")


def test_packed_runs_wait_for_their_turn(sweep, paths, scheduler):
    for path in paths[:3]:
        forget(path)
    fail(paths[1], "loss is nan")
    write_attempt(paths[1], job="12_0", ended=1.0, reason="failed")
    write_attempt(paths[2], job="12_0")
    submit(sweep, *paths, packed=True)
    scheduler.says(job(0))
    assert states(sweep) == ["pending", "failed", "running", "done"]
    assert status(sweep).runs[0].note == "waits for its turn in its job"


def test_the_newest_submission_counts(sweep, paths, scheduler):
    forget(paths[0])
    submit(sweep, *paths)
    submit(sweep, paths[0], job="14", identifier="00000001", time=950.0)
    scheduler.says(job(0, "CANCELLED"), job(id="14", name="ham-demo-00000001-0", state="PENDING"))
    run = status(sweep).runs[0]
    assert (run.state, run.job) == ("pending", "14")
    scheduler.says(job(0, "PENDING"))
    assert status(sweep).runs[0].job == "12_0"


def test_a_submission_whose_number_was_not_noted_is_found_by_name(sweep, paths, scheduler):
    forget(paths[0])
    forget(paths[1])
    submit(sweep, *paths[:2], job=None)
    scheduler.says(job(1, "PENDING", reason="Priority"))
    found = status(sweep).runs
    assert [run.state for run in found][:2] == ["never submitted", "pending"]
    assert found[0].note == f"the scheduler knows no job named {NAME}"
    assert scheduler.asked == [("queue", [], [NAME])]
    submit(sweep, *paths[:2], job=None, time=time.time())
    assert status(sweep).runs[0].note == "is being submitted"


def test_runs_that_were_left_out_of_a_submission(sweep, paths, scheduler):
    forget(paths[0])
    submit(sweep, *paths[1:])
    assert states(sweep) == ["never submitted", "done", "done", "done"]
    assert scheduler.asked == []


def test_nothing_is_lost_while_the_scheduler_is_silent(sweep, paths, scheduler):
    forget(paths[0])
    interrupt(paths[1], job="12_1")
    fail(paths[2], "loss is nan")
    submit(sweep, *paths)
    write_attempt(paths[3], pid=os.getpid(), home=HERE, job="12_3")
    (paths[3] / "result.json").unlink()
    scheduler.queue = Answer(problem="Unable to contact slurm controller")
    report = status(sweep)
    assert [run.state for run in report.runs] == ["unknown", "unknown", "failed", "running"]
    assert report.problem == "Unable to contact slurm controller"
    assert scheduler.asked == [("queue", ["12", "12_1", "12_3"], [])]
    first = (
        "The scheduler could not be asked (Unable to contact slurm controller): what only it can tell is unknown here."
    )
    assert render(report).splitlines()[0] == first
    submit(sweep, *paths, identifier="00000001", time=time.time() + 10)
    assert states(sweep)[2] == "unknown"


def test_a_job_of_no_submission_is_asked_for_too(sweep, paths, scheduler):
    interrupt(paths[0], job="77", job_id="77")
    write_attempt(paths[0], 2, job="77", job_id="77", restarts=1)
    scheduler.says(job(id="77", name="mine", restarts=1, node="n9"))
    assert states(sweep)[0] == "running"
    scheduler.says()
    assert states(sweep)[0] == "lost"


def test_a_run_taken_up_without_the_scheduler_is_judged_without_it(sweep, paths, scheduler):
    interrupt(paths[0], time=1000.0)
    submit(sweep, *paths)
    assert states(sweep)[0] == "resumable"


def test_a_run_in_several_columns_is_one_run(tmp_path):
    columns = [{"topology.sparsity": value} for value in (0.8, 0.9)]
    write_sweep(tmp_path, {"Dense": [0.9, 0.9]}, {"Dense": {}}, columns, seeds=(0, 1))
    assert states(tmp_path) == ["done", "done"]


def test_a_single_run_of_a_submitted_sweep(tmp_path, scheduler):
    path = write_run(tmp_path / "demo" / "r", overridden({"label": "RiGL"}))
    write_submission(tmp_path / "demo", [["r"]])
    scheduler.says(job(0))
    assert states(path) == ["running"]
    write_json(path / "result.json", result(0.8))
    assert render(status(path)).startswith("r: 1 run, 1 done\n")


def test_a_damaged_submission_is_reported_and_left_out(sweep, paths, caplog):
    forget(paths[0])
    submit(sweep, *paths)
    (sweep / "submissions" / "ab12cd34.json").write_text("{}")
    assert states(sweep)[0] == "not started"
    assert "ab12cd34.json: has no id" in caplog.text


def test_text(sweep, paths):
    interrupt(paths[1])
    fail(paths[2], "loss is nan\nat step 12")
    forget(paths[3])
    assert render(status(sweep)) == (
        "demo: 4 runs, 1 done, 1 resumable, 1 failed, 1 not started\n"
        "\n"
        "Row   done  resumable  failed  not started  of\n"
        "RiGL     1          1       1            1   4\n"
        "\n"
        "resumable:\n"
        "  RiGL, seed 1: step 31 of 124 (25 %)\n"
        "\n"
        "failed:\n"
        "  RiGL, seed 2: loss is nan / at step 12"
    )


def test_text_of_jobs(sweep, paths, scheduler, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    for path in paths:
        forget(path)
    folder = submit(sweep, *paths)
    (folder / "12_2_0_log.err").write_text("slurmstepd: error: *** STEP CANCELLED ***\n")
    now = time.time()
    write_attempt(paths[1], job="12_1", restarts=2, time=now - 100)
    write_heartbeat(paths[1], 62, seconds=now)
    write_checkpoint(paths[2], 31)
    write_heartbeat(paths[2], 40)
    write_attempt(paths[2], job="12_2")
    scheduler.says(job(0, "PENDING", reason="Priority"), job(1, restarts=2), job(3, "PENDING", reason="Priority"))
    scheduler.remembers(job(2, "CANCELLED", reason="by 0"))
    text = render(status(sweep))
    assert text.startswith(
        "demo: 4 runs, 0 done, 1 running, 2 pending, 1 cancelled (1 requeued); those that run end within"
    )
    assert "\n  RiGL, seed 1: step 62 of 124 (50 %); 2 min left; requeued 2 times; job 12_1 on n0\n" in text
    assert "\n  RiGL, seed 0: Priority: jobs of a higher priority come first; job 12_0\n" in text
    lost = "\n  RiGL, seed 2: CANCELLED by 0; step 40 of 124 (32 %); goes on from step 31; job 12_2 on n0\n"
    assert f"{lost}    demo/submissions/ab12cd34/12_2_0_log.err" in text
    text = render(status(sweep), listed=1)
    assert "pending:\n  RiGL, seed 0: Priority: " in text
    assert "; job 12_0\n  and 1 more: 1 Priority: jobs of a higher priority come first\n" in text


def test_a_run_that_does_not_move_is_pointed_out(sweep, paths, scheduler):
    forget(paths[0])
    now = time.time()
    write_attempt(paths[0], pid=os.getpid(), home=HERE, time=now - 3610)
    write_heartbeat(paths[0], 5, seconds=now - 3600)
    assert ": step 5 of 124 (4 %); no step for 1 h 0 min; on n0" in render(status(sweep))


def test_narrow_terminals(sweep, paths):
    interrupt(paths[1])
    fail(paths[2], "a loss that is not a number, at a step that is rather late in training")
    (paths[2] / "log.txt").write_text("x\n")
    text = render(status(sweep), width=30)
    assert "RiGL: 2 done, 1 resumable, 1\n  failed of 4" in text
    assert str(paths[2] / "log.txt") in text
    assert all(len(line) <= 30 for line in text.splitlines() if "log.txt" not in line)


def test_long_lists_are_cut(tmp_path):
    write_sweep(tmp_path, {"RiGL": [0.8] * 25}, {"RiGL": {"topology.name": "rigl"}}, seeds=range(25))
    for run in read(tmp_path).runs:
        fail(run.path, "no")
    assert render(status(tmp_path)).endswith("RiGL, seed 19: no\n  and 5 more")


def test_runs_that_no_row_names_are_counted(sweep, paths):
    alone = status(sweep)
    assert to_json(alone)["strays"] == []
    assert "in no row" not in render(alone)
    for seed in (7, 8):
        (sweep / f"old-0123abcd-s{seed}").mkdir()
    found = status(sweep)
    assert to_json(found)["strays"] == ["old-0123abcd-s7", "old-0123abcd-s8"]
    for text in (render(found), summary([found])):
        assert "; 2 further runs lie in the folder and in no row" in text
    assert render(found).splitlines()[1:] == render(alone).splitlines()[1:]


def test_json(sweep, paths, scheduler):
    fail(paths[2], "loss is nan")
    (paths[2] / "log.txt").write_text("x\n")
    value = json.loads(json.dumps(to_json(status(sweep))))
    assert list(value) == ["name", "directory", "time", "scheduler", "counts", "strays", "runs"]
    assert value["scheduler"] == {"asked": False, "problem": None}
    assert value["counts"] == {"done": 3, "failed": 1}
    assert value["runs"][2] == {
        "row": "RiGL",
        "column": {"topology.sparsity": 0.9},
        "seed": 2,
        "path": str(paths[2]),
        "state": "failed",
        "note": "loss is nan",
        "log": str(paths[2] / "log.txt"),
        "attempts": 0,
        "restarts": 0,
        **dict.fromkeys(("step", "total", "left", "beat", "node", "job", "starts", "checkpoint", "mask_updates")),
    }
