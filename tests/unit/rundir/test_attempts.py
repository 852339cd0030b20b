"""One writer a run directory, and no claim that outlives its owner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from claims import owned_by, untouched

from experiments.errors import Busy, ClaimLost, Interrupted, LostRank, RunFailure
from experiments.rundir import attempts as module
from experiments.rundir import holder, process, waiting
from experiments.rundir.attempts import alive, claim, ending, held, newest


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen]:
    """Another live process."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "attempts").iterdir())


def test_numbers_go_up_and_each_says_how_it_ended(tmp_path: Path) -> None:
    for number, reason in enumerate(("stopped", "failed", "done"), 1):
        attempt = claim(tmp_path, ranks=3)
        assert attempt.number == number
        owner = newest(tmp_path)
        assert owner == attempt.owner
        assert (owner["pid"], owner["home"], owner["ranks"]) == (os.getpid(), process.home(), 3)
        assert alive(tmp_path, owner)
        attempt.end(reason)
        owner = newest(tmp_path)
        assert owner is not None
        assert (owner["attempt"], owner["reason"]) == (number, reason)
        assert owner["ended"] >= owner["time"]
        assert not alive(tmp_path, owner)
    assert names(tmp_path) == ["0001.json", "0002.json", "0003.json"]


def test_a_live_owner_is_named(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    path = owned_by(tmp_path, neighbour.pid)
    before = path.read_bytes()
    with pytest.raises(Busy, match=f"process {neighbour.pid} on h is writing this run since .*; wait for it or stop"):
        claim(tmp_path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["0001.json"]


def test_a_second_claim_of_this_process_is_refused(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(Busy, match="is writing this run"):
        claim(tmp_path)
    assert names(tmp_path) == ["0001.json"]


ELSEWHERE: list[dict[str, Any]] = [
    {"home": None},  # a system without /proc, or an earlier version
    {"home": f"{process.home()}0"},  # another container of this machine
    {"home": "another boot pid:[4026531836]"},
]


@pytest.mark.parametrize("owner", ELSEWHERE)
def test_a_process_that_cannot_be_seen_holds_its_claim_while_it_gives_signs_of_life(
    tmp_path: Path, owner: dict[str, Any], neighbour: subprocess.Popen
) -> None:
    """Whatever the host is called, and whether a process of that number lives here or not."""
    for number in (neighbour.pid, 2**22 + 1):
        owned_by(tmp_path, neighbour.pid, **owner, pid=number, host=socket.gethostname())
        with pytest.raises(Busy, match="its last sign of life is 0 s old, and after 90 s the run is taken over"):
            claim(tmp_path)
    untouched(tmp_path)
    assert claim(tmp_path).number == 2


def test_a_claim_is_touched_while_its_process_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    attempt = claim(tmp_path)
    with held(attempt):
        for _ in range(3):
            untouched(tmp_path)
            wait_until(lambda: holder.silent_for(tmp_path, attempt.owner) < 1)
    assert newest(tmp_path) == {**attempt.owner, "ended": ANY, "reason": "done"}


def test_the_clock_is_that_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned_by(tmp_path, os.getpid(), home=None)
    monkeypatch.setattr(time, "time", lambda: 5e9)
    with pytest.raises(Busy):
        claim(tmp_path)
    path = tmp_path / "attempts/0001.json"
    os.utime(path, (8e9, 8e9))  # a clock that went wrong keeps no claim for ever
    assert claim(tmp_path).number == 2


def test_who_was_taken_over_is_told_and_writes_nothing_more(tmp_path: Path) -> None:
    first = claim(tmp_path)
    first.check()
    owner = first.owner | {"home": None}
    (tmp_path / "attempts/0001.json").write_text(json.dumps(owner))
    untouched(tmp_path)
    second = claim(tmp_path)
    with pytest.raises(ClaimLost, match=f"process {os.getpid()} on .* has taken this run over"):
        first.check()
    first.beat()
    first.end("done")
    second.check()
    assert newest(tmp_path) == second.owner


@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_vanished_is_not_ones_own_any_more(tmp_path: Path, anew: bool) -> None:
    """Also if another process has made it again and claimed it, under the same number."""
    folder = tmp_path / "run"
    folder.mkdir()
    first = claim(folder)
    shutil.rmtree(folder)
    if anew:
        folder.mkdir()
        claim(folder)
    with pytest.raises(ClaimLost, match="has taken this run over" if anew else "has been removed or moved away"):
        first.check()
    first.end("failed")
    assert names(folder) == ["0001.json"] if anew else not folder.exists()


def test_claims_need_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "link")
    assert claim(tmp_path).number == 1


@pytest.mark.parametrize(
    "fault",
    [{"pid": pid} for pid in ("x", None, 1.5, [], 0, -1, True, 2**70)]
    + [{"restarts": "1"}, {"started": 5}, {"home": []}, {"job_id": 7}],
)
def test_a_claim_of_wrong_types_is_named_and_judged_by_its_age(
    tmp_path: Path, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (key,) = fault
    path = owned_by(tmp_path, os.getpid(), **fault)
    with pytest.raises(Busy, match=rf"0001\.json does not say who writes this run \({key} must be "):
        claim(tmp_path)
    untouched(tmp_path)
    assert claim(tmp_path).number == 2
    assert f"{path}: {key} must be " in caplog.text


def test_a_number_given_to_a_process_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start times are compared before the kernel's refusal says anything."""

    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    owned_by(tmp_path, os.getpid(), started="1")
    assert claim(tmp_path).number == 2


def test_a_process_that_proc_hides_is_judged_by_its_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned_by(tmp_path, os.getpid())
    monkeypatch.setattr(process, "_stat", lambda pid: None)
    with pytest.raises(Busy, match="last sign of life"):
        claim(tmp_path)
    untouched(tmp_path)
    assert claim(tmp_path).number == 2


@pytest.mark.skipif(sys.platform != "linux", reason="boots and namespaces are Linux's")
def test_a_process_number_is_unique_in_a_namespace_of_a_boot() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert process.home() == f"{boot} {os.readlink('/proc/self/ns/pid')}"


def test_a_proc_of_another_namespace_shows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    process.home.cache_clear()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert process.home() is None
    process.home.cache_clear()


def test_another_machine_is_judged_by_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_running(job: str, restarts: int) -> bool | None:
        asked.append((job, restarts))
        return {"77": True, "78": False}.get(job)

    monkeypatch.setattr("slurm.scheduler.queue.is_running", is_running)
    owned_by(tmp_path, os.getpid(), home=None, job="77", job_id="77", restarts=2)
    untouched(tmp_path)
    with pytest.raises(Busy, match=r"on h \(job 77\)"):
        claim(tmp_path)
    owned_by(tmp_path, os.getpid(), home=None, job="78", job_id="78")
    assert claim(tmp_path).number == 2
    assert set(asked) == {("77", 2), ("78", 0)}


def test_a_scheduler_that_does_not_answer_keeps_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm.scheduler.queue.is_running", lambda job, restarts: None)
    owned_by(tmp_path, os.getpid(), home=None, job="77", job_id="77")
    with pytest.raises(Busy, match="last sign of life"):
        claim(tmp_path)
    untouched(tmp_path)
    assert claim(tmp_path).number == 2


@pytest.mark.parametrize("place", [{}, {"home": None}])
def test_a_restart_of_the_same_job_claims_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    """Also if the process of the former start lives: it must learn that the run is no longer its own."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    owned_by(tmp_path, os.getpid(), **place, job="5", job_id="5", restarts=0)
    with pytest.raises(Busy):
        claim(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    attempt = claim(tmp_path)
    assert (attempt.number, attempt.job, attempt.owner["restarts"]) == (2, "5", 1)


@pytest.mark.parametrize("place", [{}, {"home": None}])
def test_a_start_that_the_scheduler_gave_up_takes_nothing_from_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    """Nor does it wait; a lost node may have lived on while its job was started again elsewhere."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    owned_by(tmp_path, os.getpid(), **place, job="5", job_id="5", restarts=2)
    untouched(tmp_path)
    assert next(waiting.for_holder(tmp_path, lambda: False, patience=180), "no wait") == "no wait"
    with pytest.raises(Busy):
        claim(tmp_path)


def test_a_beat_finds_that_the_claim_is_lost_and_is_the_last(tmp_path: Path) -> None:
    attempt = claim(tmp_path)
    assert attempt.beat()
    attempt.check_last_beat()
    path = tmp_path / "attempts/0001.json"
    (tmp_path / "attempts/0002.json").write_text(json.dumps(attempt.owner | {"attempt": 2, "token": "t"}))
    untouched(tmp_path, path)
    attempt.check_last_beat()  # no beat yet
    assert not attempt.beat()
    assert holder.silent_for(tmp_path, attempt.owner) > holder.LEASE
    with pytest.raises(ClaimLost, match="has taken this run over"):
        attempt.check_last_beat()


def test_a_claim_that_cannot_be_read_for_a_moment_is_not_lost(tmp_path: Path) -> None:
    attempt = claim(tmp_path)
    (tmp_path / "attempts/0001.json").write_text("{")
    attempt.check()
    assert attempt.beat()


def test_a_task_of_an_array_goes_by_the_schedulers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "12", "ARRAY_JOB_ID": "10", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    attempt = claim(tmp_path)
    assert (attempt.job, attempt.owner["job_id"], attempt.owner["node"]) == ("10_2", "12", "n7")


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", b"[1]", b'{"host": 3}', b"\xff\xfe"])
def test_a_damaged_claim_is_passed_over_once_nobody_touches_it(tmp_path: Path, content: bytes) -> None:
    owned_by(tmp_path, os.getpid()).write_bytes(content)
    with pytest.raises(Busy, match="does not say who writes this run"):
        claim(tmp_path)
    untouched(tmp_path)
    assert claim(tmp_path).number == 2


def test_a_dead_owner_is_followed(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    owned_by(tmp_path, neighbour.pid)
    neighbour.kill()
    neighbour.wait()
    assert claim(tmp_path).number == 2


@pytest.mark.skipif(sys.platform != "linux", reason="start times come from /proc")
def test_a_recycled_process_number_is_not_the_owner(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    owned_by(tmp_path, neighbour.pid, started="1")
    assert claim(tmp_path).number == 2


@pytest.mark.skipif(sys.platform != "linux", reason="states come from /proc")
def test_a_dead_owner_that_nobody_has_reaped_is_followed(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    """In a container whose first process reaps nobody, the killed stay as zombies for ever."""
    owned_by(tmp_path, neighbour.pid)
    os.kill(neighbour.pid, signal.SIGKILL)
    deadline = time.monotonic() + 100
    while Path(f"/proc/{neighbour.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
    assert claim(tmp_path).number == 2


def test_an_end_that_the_disk_refuses_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = claim(tmp_path)
    fsync, calls = os.fsync, []

    def full_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("experiments.rundir.files.os.fsync", full_once)
    attempt.end("stopped")
    owner = newest(tmp_path)
    assert owner is not None
    assert owner["reason"] == "stopped"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Interrupted("x"), "stopped"), (LostRank("x"), "crashed"), (RunFailure("x"), "failed"), (OSError("x"), "failed")],
)
def test_reasons(error: Exception, reason: str) -> None:
    said: list[str] = []
    with pytest.raises(type(error)), ending(said.append):
        raise error
    with ending(said.append):
        pass
    assert said == [reason, "done"]


def test_many_processes_behind_a_dead_one_never_hold_it_together(
    tmp_path: Path, neighbour: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All judge the same dead attempt; the slow ones must not take the place of the quick one."""
    judge = module.alive

    def slowly(folder: Path, owner: dict[str, Any]) -> bool:
        verdict = judge(folder, owner)
        time.sleep(0.01 * (os.getpid() % 3))
        return verdict

    monkeypatch.setattr(module, "alive", slowly)
    owned_by(tmp_path, neighbour.pid, started="1")
    wait, go = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)  # returns when the parent closes its end
            os._exit(_hold_once(tmp_path))
        children.append(child)
    os.close(wait)
    os.close(go)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    assert names(tmp_path) == [f"{number:04}.json" for number in range(1, 8)]


def _hold_once(folder: Path) -> int:
    """0 if this process got the directory and was alone in it."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        try:
            attempt = claim(folder)
            os.close(os.open(folder / "held", os.O_CREAT | os.O_EXCL))
            time.sleep(0.03)
            os.unlink(folder / "held")
            attempt.end("done")
            return 0
        except Busy:
            time.sleep(0.001)
        except OSError:
            return 1
    return 2
