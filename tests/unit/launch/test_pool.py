"""Worker processes: order, isolation, progress, interruption, and no survivors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from experiments.errors import Interrupted, RunFailure
from experiments.launch.pool import Listener, Task, TaskResult, run_all

# ---- what workers do; they import this module ------------------------------------------------------------------------


def give(value: Any, *, progress: Callable[[int, int], None], stop: Callable[[], bool]) -> Any:
    print("working")
    progress(1, 2)
    return value


def state(*, progress: Any, stop: Any) -> dict[str, Any]:
    import torch

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return {"threads": torch.get_num_threads(), "ignores SIGINT": ignored, "wandb": "wandb" in sys.modules}


def fail(kind: str, *, progress: Any, stop: Any) -> None:
    if kind == "suite":
        raise RunFailure("the loss is not finite [/red]", where="here")
    if kind == "system":
        raise NotADirectoryError(20, "Not a directory", "there")
    if kind == "defect":
        raise ZeroDivisionError("a defect")
    if kind == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def until_stopped(folder: Path, *, progress: Callable[[int, int], None], stop: Callable[[], bool]) -> None:
    (folder / str(os.getpid())).touch()
    step = 0
    while not stop():
        step += 1
        progress(step, 1000)
        time.sleep(0.01)
    (folder / f"{os.getpid()}.stopped").touch()
    raise Interrupted(f"stopped at step {step}")


class Slow:
    """Takes its time to arrive in a worker, which has not begun to work then."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.folder,)


def arrive(folder: Path) -> Path:
    (folder / "arriving").touch()
    time.sleep(1)
    return folder


# ---- tests -----------------------------------------------------------------------------------------------------------


class Record(Listener):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.running = self.most = 0

    def started(self, name: str) -> None:
        self.calls.append(("started", name))
        self.running += 1
        self.most = max(self.most, self.running)

    def progress(self, name: str, done: int, total: int) -> None:
        self.calls.append(("progress", name, done, total))

    def finished(self, name: str, outcome: TaskResult) -> None:
        self.calls.append(("finished", name))
        self.running -= 1


def task(folder: Path, name: str, function: Callable[..., Any], *arguments: Any) -> Task:
    return Task(name, function, arguments, folder / name / "log.txt")


def test_values_progress_and_order(tmp_path: Path) -> None:
    record = Record()
    tasks = [task(tmp_path, f"t{number}", give, {"n": number}) for number in range(5)]
    outcomes = run_all(tasks, 2, record)
    assert outcomes == {f"t{number}": TaskResult({"n": number}) for number in range(5)}
    assert [call[1] for call in record.calls if call[0] == "started"] == [f"t{number}" for number in range(5)]
    assert record.calls.count(("progress", "t3", 1, 2)) == 1
    assert record.most == 2
    assert (tmp_path / "t0/log.txt").read_text() == "working\n"


def test_no_tasks_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_all([], 2, Listener()) == {}


def test_a_worker_has_its_threads_and_ignores_ctrl_c(tmp_path: Path) -> None:
    value = run_all([task(tmp_path, "t", state)], 1, Listener(), threads=1)["t"].value
    assert value["threads"] == 1
    assert value["ignores SIGINT"]


def test_a_failure_takes_nothing_else_along(tmp_path: Path) -> None:
    kinds = ["suite", "system", "defect", "exit", "kill"]
    (tmp_path / "blocked").touch()  # a file where the log's folder should be
    tasks = [task(tmp_path, kind, fail, kind) for kind in kinds]
    outcomes = run_all([*tasks, task(tmp_path, "blocked", give, 1), task(tmp_path, "good", give, 1)], 2, Record())
    errors = {name: outcome.error for name, outcome in outcomes.items()}
    assert errors.pop("good") is None
    assert outcomes["good"].value == 1
    assert errors["suite"] == "here: the loss is not finite [/red]"
    assert errors["system"] == "there: Not a directory; a part of its path is a file; give another path"
    assert errors["defect"] == f"ZeroDivisionError: a defect (traceback in {tmp_path / 'defect/log.txt'})"
    assert errors["exit"] == "the worker process ended with code 3"
    assert errors["kill"] == "the worker process was killed by SIGKILL"
    assert str(tmp_path / "blocked") in str(errors["blocked"])
    assert not any(outcome.interrupted for outcome in outcomes.values())
    logs = {name: (tmp_path / name / "log.txt").read_text() for name in kinds}
    assert [name for name, text in logs.items() if "Traceback" in text] == ["defect"]


def test_an_interrupt_stops_every_worker_at_a_checkpoint_and_starts_none(tmp_path: Path) -> None:
    main = os.getpid()

    def interrupt_when_running() -> None:
        while len(list(tmp_path.glob("*[0-9]"))) < 2:
            time.sleep(0.01)
        time.sleep(0.4)
        os.kill(main, signal.SIGINT)

    Thread(target=interrupt_when_running, daemon=True).start()
    tasks = [task(tmp_path, name, until_stopped, tmp_path) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        run_all(tasks, 2, Listener())
    assert len(list(tmp_path.glob("*.stopped"))) == 2
    logs = [path.read_text() for path in sorted(tmp_path.glob("*/log.txt"))]
    assert logs == ["", ""]
    for path in tmp_path.glob("*.stopped"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


COMMAND = """
import json
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_pool import Listener, Slow, run_all, state, task, until_stopped

if __name__ == "__main__":
    folder = Path({folder!r})
    value = run_all([task(folder, "state", state)], 1, Listener())["state"].value
    (folder / "state.json").write_text(json.dumps(value))
    tasks = [task(folder, "at work", until_stopped, folder), task(folder, "on its way", until_stopped, Slow(folder))]
    run_all(tasks, 2, Listener())
"""


@pytest.mark.robust
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is signalled on Linux")
def test_workers_die_with_a_killed_command_even_while_they_start(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    with subprocess.Popen([sys.executable, script], start_new_session=True) as command:
        while not (list(tmp_path.glob("*[0-9]")) and (tmp_path / "arriving").exists()):
            assert command.poll() is None
            time.sleep(0.002)
        command.kill()
    begun = list(tmp_path.glob("*[0-9]"))
    deadline = time.monotonic() + 100
    while (left := in_session(command.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []
    assert list(tmp_path.glob("*[0-9]")) == begun
    # what nobody asked for is not imported: no tracker in a worker of a command of its own
    assert json.loads((tmp_path / "state.json").read_text()) == {"threads": 1, "ignores SIGINT": True, "wandb": False}


def in_session(session: int) -> list[int]:
    """Live processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own, *_ = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(own) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found
