"""`ham status`, `ham logs` and `ham cancel` with a scheduler that is a few lines of shell."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import Ham, one_message
from fake_sweep import finished_sweep

HAM = Path(sys.executable).with_name("ham")
WIDTHS = (48, 24, 256, 24, 96, 12, 256, 24, 24, 24, 24, 12)
Says = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of nine runs, four of them unfinished and submitted: two rows, packed by two in task 1."""
    folder = finished_sweep(tmp_path / "runs" / "fake")
    unfinished = [f"rigl-ham-0000000a-s{seed}" for seed in range(3)] + ["rigl-00000004-s0"]
    for name in unfinished:
        (folder / name / "result.json").unlink()
        (folder / name / "log.txt").unlink()
    array = {"name": "ham-fake-ab12cd34-0", "job": "12", "tasks": [unfinished[:1], unfinished[1:3], unfinished[3:]]}
    record = {"id": "ab12cd34", "time": 900.0, "profile": "main", "snapshot": "code", "arrays": [array]}
    (folder / "submissions" / "ab12cd34").mkdir(parents=True)
    (folder / "submissions" / "ab12cd34.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Set what the scheduler's commands do; the file of their calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cat", "sleep"):
        (folder / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(folder))
    (tmp_path / "calls").touch()

    def write(**bodies: str) -> Path:
        for name, body in bodies.items():
            (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{body}\n')
            (folder / name).chmod(0o755)
        return tmp_path / "calls"

    return write


def squeue(folder: Path, *states: str) -> str:
    """A body for squeue: the state of each task of array 12, "" for none."""
    lines = []
    for task, state in enumerate(states):
        values = (f"12_{task}", "12", "ham-fake-ab12cd34-0", state, "Priority", "1", "n0", "1:00", "1", "2", "3", "0")
        lines += ["".join(map(str.ljust, values, WIDTHS))] if state else []
    (folder.parent / "queue").write_text("\n".join(lines) + "\n")
    return f"exec cat {folder.parent}/queue"


def test_text_and_json(sweep: Path, says: Says, ham: Ham) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), sacct="echo '12_2|3|ham-fake-ab12cd34-0|TIMEOUT|0:0|n1|1|2|3'")
    called = ham("status", sweep)
    assert (called.code, called.err) == (1, ""), "one is lost"
    assert called.out.splitlines()[0] == "fake: 9 runs, 5 done, 1 running, 2 pending, 1 lost (3 requeued)"
    assert "  RiGL, seed 0: TIMEOUT: it reached its time limit and was not requeued; job 12_2 on n1" in called.out
    assert "\x1b" not in called.out
    value = json.loads(ham("status", sweep, "--json").out)
    assert value["counts"] == {"done": 5, "running": 1, "pending": 2, "lost": 1}
    assert value["scheduler"] == {"asked": True, "problem": None}


def test_a_silent_scheduler_is_said_once(sweep: Path, says: Says, ham: Ham, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm.scheduler.queue.queue.__defaults__", ((), (), 0.2))
    says(squeue="echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1")
    called = ham("status", sweep)
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith("The scheduler could not be asked (Unable to contact slurm controller): ")
    assert "fake: 9 runs, 5 done, 4 unknown" in called.out
    assert " lost" not in called.out
    one_message(ham("status", sweep, "--resubmit", "lost"), 1, "nothing was submitted", "Unable to contact slurm")
    one_message(ham("cancel", sweep), 1, "nothing was cancelled", "Unable to contact slurm controller")


def test_without_a_scheduler_here(sweep: Path, says: Says, ham: Ham) -> None:
    called = ham("status", sweep)
    assert called.out.startswith("The scheduler could not be asked (there is no squeue on this machine): ")


def test_options_that_exclude_each_other(sweep: Path, ham: Ham) -> None:
    one_message(ham("status", sweep, "--json", "--watch"), 2, "exclude each other")


def test_a_folder_that_is_not_there(sweep: Path, ham: Ham) -> None:
    for name in ("status", "logs", "cancel"):
        one_message(ham(name, sweep.with_name("fkae")), 2, "no such folder; did you mean 'fake'?")


def test_resubmit(sweep: Path, says: Says, ham: Ham, monkeypatch: pytest.MonkeyPatch) -> None:
    says(squeue=squeue(sweep, "RUNNING", "", ""), sacct="exit 1")
    asked = []
    monkeypatch.setattr(
        "slurm.submit.resubmit", lambda *arguments, limit: asked.append(arguments) or "3 runs submitted"
    )
    called = ham("status", sweep, "--resubmit", "lost")
    assert called.out == "3 runs submitted\n", called.err
    paths = ["rigl-00000004-s0", "rigl-ham-0000000a-s1", "rigl-ham-0000000a-s2"]
    assert asked == [(sweep, paths)]
    assert ham("status", sweep, "--resubmit", "failed").out == "no run is failed; nothing was submitted\n"
    assert ham("status", sweep, "RiGL + HAM", "--resubmit", "lost").out == "3 runs submitted\n"
    assert ham("status", sweep, "RiGL", "s0", "--resubmit", "lost").out == "3 runs submitted\n"
    assert asked[1:] == [(sweep, paths[1:]), (sweep, paths[:1])]
    assert ham("status", sweep, "Dense", "--resubmit", "lost").out == (
        "no run of those that Dense fits is lost; nothing was submitted\n"
    )
    one_message(ham("status", sweep, "Rigel", "--resubmit", "lost"), 2, "no run fits 'Rigel'; did you mean 'rigl'?")
    one_message(ham("status", sweep, "RiGL"), 2, "RiGL: no such folder; words that select runs belong to --resubmit")
    dense = sweep / "dense-00000005-s0"
    (dense / "result.json").unlink()
    (dense / "failure.json").write_text('{"status": "failed", "error": "no"}')
    one_message(
        ham("status", sweep, "--resubmit", "failed"), 2, "1 runs are failed, but none was submitted: `ham sweep`"
    )


def test_logs_of_one_run(sweep: Path, says: Says, ham: Ham) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), sacct="exit 1")
    run, logs = sweep / "rigl-ham-0000000a-s0", sweep / "submissions" / "ab12cd34"
    one_message(ham("logs", run), 2, "has no log yet")
    (run / "log.txt").write_text("epoch 1\nepoch 2\n")
    (logs / "12_0_0_log.out").write_text("rank 0\n")
    (logs / "12_0_1_log.out").write_text("rank 1\n")
    (logs / "12_1_0_log.out").write_text("another\n")
    text = f"==> {run}/log.txt <==\nepoch 1\nepoch 2\n==> {logs}/12_0_0_log.out <==\nrank 0\n"
    for words in ([run], [sweep, "RiGL + HAM", "s0"], [sweep, "12_0"], [sweep, "0000000a-s0"], [sweep, "running"]):
        assert ham("logs", *words).out == text, words
    assert ham("logs", run, "--lines", "1").out == text.replace("epoch 1\n", "")
    assert "rank 1" in ham("logs", run, "--rank", "1").out


def test_logs_of_several_runs_are_a_choice(sweep: Path, says: Says, ham: Ham) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), sacct="exit 1")
    lines = ham("logs", sweep, "rigl", "--follow").out.splitlines()
    assert lines[0] == "lost             rigl-00000004-s0"
    assert lines[-1] == f"these are 3 runs: say which, as in `ham logs {sweep} WORD`"
    assert len(ham("logs", sweep).out.splitlines()) == 10
    one_message(ham("logs", sweep, "rigel"), 2, "no run fits 'rigel'; did you mean 'rigl'?")
    one_message(ham("logs", sweep, "failed"), 2, "no run is failed")
    one_message(ham("logs", sweep, "rigl", "s7"), 2, "no run fits 's7'")


def test_logs_of_all_runs_that_the_words_fit_are_shown(sweep: Path, says: Says, ham: Ham) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), sacct="exit 1")
    rigl = sorted(path for path in sweep.glob("rigl-*") if not path.name.startswith("rigl-ham"))
    for path in rigl[1:]:
        (path / "log.txt").write_text(f"of {path.name}\n")
    (rigl[0] / "log.txt").unlink(missing_ok=True)
    called = ham("logs", sweep, "rigl")
    assert called.out == "".join(f"==> {path}/log.txt <==\nof {path.name}\n" for path in rigl[1:])
    assert called.err == f"no log yet: {rigl[0].name}\n"


def test_logs_are_followed_to_the_end_of_the_run(sweep: Path, says: Says, ham: Ham) -> None:
    run = sweep / "rigl-ham-0000000a-s0"
    (run / "log.txt").write_text("epoch 1\n")

    def go_on() -> None:
        time.sleep(1.5)
        with (run / "log.txt").open("a") as file:
            file.write("epoch 2\n")
        (run / "result.json").write_text("{}")

    writer = threading.Thread(target=go_on)
    writer.start()
    called = ham("logs", run, "--follow")
    writer.join()
    assert called.out == f"==> {run}/log.txt <==\nepoch 1\nepoch 2\n"


def test_cancel(sweep: Path, says: Says, ham: Ham) -> None:
    calls = says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), scancel="exit 0", sacct="exit 1")
    assert ham("cancel", sweep, "rigl").out == "nothing to cancel: no job of these runs waits or runs\n"
    assert "scancel" not in calls.read_text()
    called = ham("cancel", sweep, "RiGL + HAM", "s1")
    assert called.out == (
        "cancelled 1 job of 2 runs: 12_1\nalso stopped, since they shared a job: rigl-ham-0000000a-s2\n"
    ), called.err
    assert ham("cancel", sweep).out == "cancelled 2 jobs of 3 runs: 12_[0-1]; 1 that ran stops at a checkpoint\n"
    assert [line for line in calls.read_text().splitlines() if "scancel" in line] == [
        "scancel 12_1",
        "scancel 12_[0-1]",
    ]
    records = sorted((sweep / "submissions" / "cancelled").iterdir())
    said = [json.loads(path.read_text()) for path in records]
    assert sorted((one["jobs"], len(one["runs"])) for one in said) == [(["12_0", "12_1"], 3), (["12_1"], 2)]
    says(scancel="echo scancel: error: Access/permission denied >&2; exit 1")
    one_message(ham("cancel", sweep), 1, "not all was cancelled; the scheduler says: Access/permission denied")
    assert sorted((sweep / "submissions" / "cancelled").iterdir()) == records, "what is refused is not recorded"


def test_what_was_cancelled_stays_cancelled_and_apart_from_lost(
    sweep: Path, says: Says, ham: Ham, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", ""), scancel="exit 0", sacct="exit 1")
    ham("cancel", sweep, "RiGL + HAM", "s0")
    squeue(sweep, "", "PENDING", "")
    called = ham("status", sweep)
    assert called.out.splitlines()[0] == "fake: 9 runs, 5 done, 2 pending, 1 lost, 1 cancelled (2 requeued)"
    assert "cancelled:\n  RiGL + HAM, seed 0: CANCELLED by `ham cancel`, " in called.out
    asked = []
    monkeypatch.setattr("slurm.submit.resubmit", lambda *arguments, limit: asked.append(arguments[1]) or "submitted")
    ham("status", sweep, "--resubmit", "lost")
    ham("status", sweep, "--resubmit", "cancelled")
    assert asked == [["rigl-00000004-s0"], ["rigl-ham-0000000a-s0"]]
    assert "these are" not in ham("logs", sweep, "cancelled").err


@pytest.mark.parametrize(
    ("state", "code"),
    [("RUNNING", 0), ("PENDING", 0), ("SUSPENDED", 0), ("CANCELLED", 0), ("OUT_OF_MEMORY", 1), ("FAILED", 1), ("", 1)],
)
def test_the_exit_code_is_for_scripts(sweep: Path, says: Says, ham: Ham, state: str, code: int) -> None:
    says(squeue=squeue(sweep, *[state] * 3), sacct="exit 1")
    assert ham("status", sweep).code == ham("status", sweep, "--json").code == code
    (sweep / "rigl-00000004-s0" / "failure.json").write_text('{"error": "a loss that is not a number"}')
    squeue(sweep, "PENDING", "PENDING", "")
    assert ham("status", sweep).code == 1, "failed"
    assert ham("status", finished_sweep(sweep.with_name("other"))).code == 0


def test_several_sweeps_in_one_look(sweep: Path, says: Says, ham: Ham, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = says(squeue=squeue(sweep, "RUNNING", "PENDING", "PENDING"), sacct="exit 1")
    other = finished_sweep(sweep.with_name("other"))
    monkeypatch.chdir(sweep.parent.parent)
    lines = ["runs/fake: 9 runs, 5 done, 1 running, 3 pending (4 requeued)", "runs/other: 9 runs, 9 done"]
    for arguments in ([sweep, other], ["runs"], ["runs", "runs/other", "runs/fake/"]):
        called = ham("status", *arguments)
        assert (called.code, called.err) == (0, "")
        assert called.out.splitlines() == [*lines, "", "`ham status DIR` with one of them shows its runs"]
    assert calls.read_text().count("squeue") == 3, "one question for all sweeps"
    values = json.loads(ham("status", "runs", "--json").out)
    assert [value["counts"] for value in values] == [{"done": 5, "running": 1, "pending": 3}, {"done": 9}]
    (other / "dense-00000005-s0").rename("runs/dense-00000005-s0")
    assert ham("status", "runs").out.splitlines()[0] == "runs: 1 run, 1 done"
    one_message(ham("status", "runs", "rnus"), 2, "rnus: no such folder")


def test_wait(sweep: Path, says: Says, ham: Ham, monkeypatch: pytest.MonkeyPatch) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", "PENDING"), sacct="exit 1")
    monkeypatch.chdir(sweep.parent.parent)
    called = ham("wait", "runs", "--timeout", "0.1", "--every", "1")
    said = [line.partition(" ")[2] for line in called.out.splitlines()]
    assert (called.code, called.err) == (124, "")
    assert said == [
        "runs/fake: 5 done, 1 running, 3 pending",
        "under way after 0.1 s; the same command goes on waiting",
    ]

    gap = ("", "", "")  # between two jobs nothing is under way for a moment
    looks = iter([("SUSPENDED", "", ""), gap, ("", "", "CONFIGURING"), gap, gap])
    clock = {"monotonic": time.monotonic, "strftime": time.strftime}  # the module's own: subprocess sleeps, too
    clock["sleep"] = lambda seconds: squeue(sweep, *next(looks))
    monkeypatch.setattr("experiments.cli.watch.time", SimpleNamespace(**clock))
    called = ham("wait", "runs/fake")
    assert called.code == 1
    assert [line.partition("runs/fake: 5 done, ")[2] for line in called.out.splitlines()] == [
        *("1 running, 3 pending", "1 suspended, 3 lost", "4 lost", "1 pending, 3 lost", "4 lost")
    ]
    assert next(looks, None) is None, "two looks in a row decide"
    finished = finished_sweep(sweep.parent.parent / "elsewhere")
    for run in sweep.glob("rigl-*"):
        if not (run / "result.json").exists():
            (finished / run.name / "result.json").rename(run / "result.json")
    called = ham("wait", sweep, finished.parent / "runs")
    assert (called.code, called.out.count("\n")) == (0, 1)


def test_wait_refuses_what_is_no_time(ham: Ham, sweep: Path) -> None:
    one_message(ham("wait", sweep, "--every", "nan"), 2, "--every", "must be 1 to 86400 seconds")
    one_message(ham("wait", sweep.with_name("fkae")), 2, "no such folder; did you mean 'fake'?")


def test_watch_ends_when_nothing_is_under_way_or_on_ctrl_c(sweep: Path, says: Says, tmp_path: Path) -> None:
    says(squeue=squeue(sweep, "RUNNING", "PENDING", "PENDING"), sacct="exit 1")
    command = [str(HAM), "status", str(sweep), "--watch", "--every", "1"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert "5 done, 1 running, 3 pending" in watching.stdout.readline()
    squeue(sweep, "RUNNING", "PENDING", "RUNNING")
    while "5 done, 2 running, 2 pending" not in (line := watching.stdout.readline()):
        assert line, "it has ended"
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=150)
    assert (watching.returncode, errors) == (0, "")
    squeue(sweep, "", "", "")
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert done.stdout.count("5 done, 4 lost") == 1


@pytest.mark.parametrize("every", ["inf", "1e300", "100000"])
def test_a_time_between_looks_is_one(ham: Ham, tmp_path: Path, every: str) -> None:
    one_message(ham("status", tmp_path, "--watch", "--every", every), 2, "--every", "must be 1 to 86400 seconds")
