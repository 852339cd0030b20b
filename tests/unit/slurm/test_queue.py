"""What squeue and sacct print (recorded from Slurm 22.05), and what is made of their silence."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from slurm.scheduler import partitions, queue, words
from slurm.scheduler.parse import Job, fold, parse_history, parse_queue, unfold

RECORDED = Path(__file__).parent / "recorded"
ARRAY = "55625866"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Write a command of the scheduler's: a line of shell; the calls of all are kept."""
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing of a Slurm that is installed here
    for name in ("cat", "sleep", "touch"):
        (tmp_path / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or name)
    (tmp_path / "calls").touch()

    def write(name, body):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{body}\n')
        (tmp_path / name).chmod(0o755)
        return tmp_path / "calls"

    return write


def recorded(name):
    return (RECORDED / f"{name}-22.05.txt").read_text()


def test_squeue():
    jobs = parse_queue(recorded("squeue"))
    assert {name: job.state for name, job in jobs.items()} == {
        f"{ARRAY}_0": "RUNNING",
        f"{ARRAY}_1": "FAILED",
        f"{ARRAY}_2": "FAILED",
        f"{ARRAY}_3": "RUNNING",
        f"{ARRAY}_4": "CANCELLED",
        f"{ARRAY}_5": "RUNNING",
        f"{ARRAY}_6": "PENDING",
        "55625867": "RUNNING",
        "55625868": "COMPLETED",
        "55625869": "PENDING",
        "55625870": "NODE_FAIL",
    }
    assert jobs[f"{ARRAY}_6"] == Job(
        f"{ARRAY}_6", ARRAY, "ham-demo-ab12cd34-0", "PENDING", "JobArrayTaskLimit", submitted=1795615868
    )
    assert jobs["55625867"].restarts == 1
    assert jobs[f"{ARRAY}_0"] == Job(
        id=f"{ARRAY}_0",
        raw="55625871",
        name="ham-demo-ab12cd34-0",
        state="RUNNING",
        node="n0",
        left=364 * 86400 + 86400 - 21,
        submitted=1795615868,
        started=1795615870,
    )
    assert [jobs[name].code for name in (f"{ARRAY}_1", f"{ARRAY}_2", f"{ARRAY}_4", "55625868")] == [3, -9, -15, 0]
    said = [str(jobs[name]) for name in (f"{ARRAY}_1", f"{ARRAY}_2", f"{ARRAY}_4", "55625870")]
    assert said == ["FAILED, exit code 3", "FAILED, signal 9", "CANCELLED", "NODE_FAIL"]
    assert [job.id for job in jobs.values() if job.pending] == [f"{ARRAY}_6", "55625869"]
    assert sum(job.active for job in jobs.values()) == 6


def test_sacct():
    jobs = parse_history(recorded("sacct"))
    assert jobs[f"{ARRAY}_4"].state == "CANCELLED"
    assert str(jobs[f"{ARRAY}_4"]) == "CANCELLED by 0"
    assert str(jobs[f"{ARRAY}_2"]) == "FAILED, signal 9"
    assert (jobs["55625870"].state, jobs["55625870"].node, jobs["55625870"].ended) == ("NODE_FAIL", "n1", 1795615878)
    assert jobs[f"{ARRAY}_6"].state == "PENDING"
    assert jobs[f"{ARRAY}_6"].started is None
    assert len(jobs) == 11


def test_foreign_lines_are_passed_over():
    assert parse_queue("CLUSTER: somewhere\n\nx\n") == {}
    assert parse_history("12.batch|12.batch|batch|COMPLETED|0:0|n0|1|2|3\nno accounting\n") == {}


def test_times():
    line = parse_queue(recorded("squeue"))[f"{ARRAY}_0"]
    text = recorded("squeue").replace("364-23:59:39", "      59:01 ")
    assert line.left != parse_queue(text)[f"{ARRAY}_0"].left == 3541
    assert parse_queue(recorded("squeue").replace("364-23:59:39", "UNLIMITED   "))[f"{ARRAY}_0"].left is None


def test_folded_arrays():
    assert unfold("12") == ["12"]
    assert unfold("12_3") == ["12_3"]
    assert unfold("12_[3-5,9%2]") == ["12_3", "12_4", "12_5", "12_9"]
    assert unfold("12.batch") == unfold("12+0") == unfold("") == []
    assert unfold("12_[3-,]") == unfold("12_[,]") == unfold("12_[-]") == unfold("12_[0-99999999999]") == []
    assert fold(["12_5", "13", "12_3", "12_4", "12_9", "14_2"]) == ["12_[3-5,9]", "13", "14_2"]


ODD = (
    "[,]",
    "_[-]",
    "12_[3-,]|",
    "|||",
    "-",
    "²",
    "٣",
    "\0",
    "é",
    "UNKNOWN+",
    "9" * 30,
    "_[0-99999999999]|",
    "\n",
    "slurm: x",
)


def test_what_cannot_be_read_is_left_out():
    """A site's wrapper, a plugin or a broken database may print anything among the lines."""
    dice = random.Random(0)
    sinfo = "gpu*|up|1-12:00:00|40|96+|1031000|gpu:a100:4(S:0-1)\nold|down|infinite|1|8|16000|gpu:2\n"
    kinds = ((recorded("squeue"), parse_queue), (recorded("sacct"), parse_history), (sinfo, partitions.parse))
    for text, parse in kinds:
        for _ in range(400):
            odd = text
            for _ in range(dice.randint(1, 6)):
                at = dice.randrange(len(odd) + 1)
                odd = odd[:at] + dice.choice(ODD) + odd[at + dice.choice((0, 0, 1, 5)) :]
            found = parse(odd)
            for job in found.values() if isinstance(found, dict) else ():
                assert isinstance(words.waiting(job) + words.ended(job), str)


def test_one_call_for_all_jobs(commands, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    commands("squeue", f'[ -z "$SQUEUE_STATES" ] && [ "$SLURM_TIME_FORMAT" = %s ] && cat {RECORDED}/squeue-22.05.txt')
    calls = commands("sacct", f"cat {RECORDED}/sacct-22.05.txt")
    assert len(queue.queue([f"{ARRAY}_1", f"{ARRAY}_2", "55625867"]).jobs) == 11
    assert len(queue.history([ARRAY]).jobs) == 11
    first, second = calls.read_text().splitlines()
    assert first.startswith(f"squeue -h -r -t all -j {ARRAY},55625867 -O JobArrayID:48,")
    assert second.startswith(f"sacct -n -P -X -j {ARRAY} -o JobID,")
    queue.queue(names=["b", "a"])
    queue.history(names=["a"], since=0)
    assert " --name a,b -O " in calls.read_text()
    assert " --name a -S 19" in calls.read_text()
    assert queue.queue().jobs == queue.history().jobs == {}
    assert len(calls.read_text().splitlines()) == 4


def test_tasks_of_arrays():
    answer = queue.Answer(parse_queue(recorded("squeue")))
    name = "ham-demo-ab12cd34-0"
    found = answer.task(ARRAY, 3, name)
    assert found is not None
    assert found == answer.task(None, 3, name)
    assert found.id == f"{ARRAY}_3"
    assert answer.task(ARRAY, 3, "another") is answer.task(ARRAY, 9, name) is answer.task(None, 9, name) is None
    single = answer.task("55625867", 0, "ham-demo-ab12cd34-1")
    assert single is not None
    assert single == answer.task(None, 0, "ham-demo-ab12cd34-1")
    assert answer.task("55625867", 1, "ham-demo-ab12cd34-1") is None


def test_jobs_long_over_are_no_problem(commands):
    commands("squeue", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert queue.queue(["7"]) == queue.Answer()
    assert queue.is_running("7", 0) is None


def test_no_scheduler(commands):
    answer = queue.queue(["7"])
    assert (answer.jobs, answer.problem, answer.absent) == ({}, "there is no squeue on this machine", True)
    assert queue.history(["7"]).absent
    assert queue.cancel(["7"]) == "there is no scancel on this machine"
    assert queue.is_running("7", 0) is None


def test_no_accounting(commands):
    commands("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    answer = queue.history(["7"])
    assert (answer.problem, answer.absent) == ("Slurm accounting storage is disabled", False)


def test_a_silent_scheduler_costs_a_bounded_time(commands):
    commands("squeue", "exec sleep 600")  # longer than a test may take
    assert queue.queue(["7"], patience=0.3).problem == "squeue did not answer within 0 s"


def test_a_scheduler_that_comes_back_is_waited_for(commands, tmp_path):
    body = f"[ -e {tmp_path}/up ] && exec cat {RECORDED}/squeue-22.05.txt\ntouch {tmp_path}/up\n"
    commands("squeue", body + "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1")
    assert len(queue.queue(["7"], patience=10).jobs) == 11
    (tmp_path / "up").unlink()
    assert queue.queue(["7"], patience=0.5).problem == "Unable to contact slurm controller"


def test_cancel_says_what_the_scheduler_says(commands):
    calls = commands("scancel", "true")
    assert queue.cancel(["12_4", "12_3", "13"]) is None
    assert queue.cancel([]) is None
    assert calls.read_text() == "scancel 12_[3-4] 13\n"
    commands("scancel", "echo scancel: error: Kill job error on job id 12: Access/permission denied >&2; exit 1")
    assert queue.cancel(["12"]) == "Kill job error on job id 12: Access/permission denied"


def test_slurm_without_a_configuration_is_not_waited_for(commands):
    lines = ("error: fetch_config: DNS SRV lookup failed", "fatal: Could not establish a configuration source")
    calls = commands("squeue", "".join(f"echo squeue: {line} >&2; " for line in lines) + "exit 1")
    assert queue.queue(["7"]).problem == "Could not establish a configuration source"
    assert len(calls.read_text().splitlines()) == 1


def test_a_start_of_a_job(commands):
    commands("squeue", f"cat {RECORDED}/squeue-22.05.txt")
    assert queue.is_running("55625867", 1)
    assert queue.is_running("55625867", 0) is False
    assert queue.is_running("55625874", 0)
    assert queue.is_running("55625873", 0) is False
    assert not queue.is_running(ARRAY, 0)
