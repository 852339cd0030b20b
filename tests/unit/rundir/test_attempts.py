"""One writer a run directory, and no claim that outlives its owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import Busy, Interrupted, LostRank, RunFailure
from experiments.rundir import attempts as module
from experiments.rundir.attempts import alive, claim, ending, newest


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


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def owned_by(folder: Path, pid: int, **changes: Any) -> Path:
    """A first attempt of another process."""
    owner = {"attempt": 1, "pid": pid, "host": socket.gethostname(), "started": started(pid), "job": None}
    (folder / "attempts").mkdir(exist_ok=True)
    path = folder / "attempts/0001.json"
    path.write_text(json.dumps(owner | {"job_id": None, "restarts": 0} | changes))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "attempts").iterdir())


def test_numbers_go_up_and_each_says_how_it_ended(tmp_path: Path) -> None:
    for number, reason in enumerate(("stopped", "failed", "done"), 1):
        attempt = claim(tmp_path, ranks=3)
        assert attempt.number == number
        owner = newest(tmp_path)
        assert owner == attempt.owner
        assert (owner["pid"], owner["host"], owner["ranks"]) == (os.getpid(), socket.gethostname(), 3)
        assert alive(owner)
        attempt.end(reason)
        owner = newest(tmp_path)
        assert owner is not None
        assert (owner["attempt"], owner["reason"]) == (number, reason)
        assert owner["ended"] >= owner["time"]
        assert not alive(owner)
    assert names(tmp_path) == ["0001.json", "0002.json", "0003.json"]


def test_a_live_owner_is_named(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    path = owned_by(tmp_path, neighbour.pid)
    before = path.read_bytes()
    with pytest.raises(Busy, match=f"process {neighbour.pid} on .* is writing this run") as caught:
        claim(tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["0001.json"]


def test_a_second_claim_of_this_process_is_refused(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(Busy, match="is writing this run"):
        claim(tmp_path)
    assert names(tmp_path) == ["0001.json"]


def test_another_machine_is_not_ours_to_judge(tmp_path: Path) -> None:
    owned_by(tmp_path, os.getpid(), host="elsewhere")
    with pytest.raises(Busy, match="on elsewhere"):
        claim(tmp_path)


def test_another_machine_is_judged_by_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def may_be_running(job: str, restarts: int) -> bool:
        asked.append((job, restarts))
        return job == "77"

    monkeypatch.setattr("slurm.scheduler.queue.may_be_running", may_be_running)
    owned_by(tmp_path, os.getpid(), host="elsewhere", job="77", job_id="77", restarts=2)
    with pytest.raises(Busy, match=r"on elsewhere \(job 77\)"):
        claim(tmp_path)
    owned_by(tmp_path, os.getpid(), host="elsewhere", job="78", job_id="78")
    assert claim(tmp_path).number == 2
    assert asked == [("77", 2), ("78", 0)]


def test_a_restart_of_the_same_job_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm starts a job again only when it has given up its former nodes."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    owned_by(tmp_path, os.getpid(), host="elsewhere", job="5", job_id="5", restarts=0)
    with pytest.raises(Busy):
        claim(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    attempt = claim(tmp_path)
    assert (attempt.number, attempt.job, attempt.owner["restarts"]) == (2, "5", 1)


def test_a_task_of_an_array_goes_by_the_schedulers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "12", "ARRAY_JOB_ID": "10", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    attempt = claim(tmp_path)
    assert (attempt.job, attempt.owner["job_id"], attempt.owner["node"]) == ("10_2", "12", "n7")


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", b"[1]", b'{"host": 3}', b"\xff\xfe"])
def test_a_damaged_claim_is_passed_over(tmp_path: Path, content: bytes) -> None:
    owned_by(tmp_path, os.getpid()).write_bytes(content)
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

    def slowly(owner: dict[str, Any]) -> bool:
        verdict = judge(owner)
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
