"""One writer a run directory, and no lock that outlives its owner."""

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

from experiments import lock as module
from experiments.errors import UserError
from experiments.lock import RunLock


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen]:
    """Another live process."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def owned_by(folder: Path, pid: int, **changes: Any) -> Path:
    owner = {"pid": pid, "host": socket.gethostname(), "started": started(pid)} | changes
    (folder / "lock").write_text(json.dumps(owner))
    return folder / "lock"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_there_while_held_and_gone_after(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        assert names(tmp_path) == ["lock"]
        owner = json.loads((tmp_path / "lock").read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    assert names(tmp_path) == []
    with pytest.raises(RuntimeError, match="inside"), RunLock(tmp_path):
        raise RuntimeError("inside")
    assert names(tmp_path) == []


def test_a_live_owner_is_named(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    path = owned_by(tmp_path, neighbour.pid)
    before = path.read_bytes()
    with (
        pytest.raises(UserError, match=f"process {neighbour.pid} on .* is writing this run") as caught,
        RunLock(tmp_path),
    ):
        pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["lock"]


def test_a_second_lock_of_this_process_is_refused(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with pytest.raises(UserError, match="is writing this run"), RunLock(tmp_path):
            pass
        assert names(tmp_path) == ["lock"]


def test_another_machine_is_not_ours_to_judge(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    with pytest.raises(UserError, match="on elsewhere"), RunLock(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", b"[1]", b'{"host": 3}', b"\xff\xfe"])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with RunLock(tmp_path):
        assert names(tmp_path) == ["lock"]
    assert names(tmp_path) == []


def test_a_dead_owner_is_replaced(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    owned_by(tmp_path, neighbour.pid)
    neighbour.kill()
    neighbour.wait()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="start times come from /proc")
def test_a_recycled_process_number_is_not_the_owner(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    owned_by(tmp_path, neighbour.pid, started="1")
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="states come from /proc")
def test_a_dead_owner_that_nobody_has_reaped_is_replaced(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    """In a container whose first process reaps nobody, the killed stay as zombies for ever."""
    owned_by(tmp_path, neighbour.pid)
    os.kill(neighbour.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{neighbour.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_many_processes_at_a_stale_lock_never_hold_it_together(
    tmp_path: Path, neighbour: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All judge the same stale lock; the slow ones must not remove what the quick one has put in its place."""
    alive = module._alive

    def slowly(owner: dict[str, Any]) -> bool:
        verdict = alive(owner)
        time.sleep(0.01 * (os.getpid() % 3))
        return verdict

    monkeypatch.setattr(module, "_alive", slowly)
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
    assert names(tmp_path) == []


def _hold_once(folder: Path) -> int:
    """0 if this process got the lock and was alone in it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with RunLock(folder):
                os.close(os.open(folder / "held", os.O_CREAT | os.O_EXCL))
                time.sleep(0.03)
                os.unlink(folder / "held")
                return 0
        except UserError:
            time.sleep(0.001)
        except OSError:
            return 1
    return 2
