"""The process that workers come from: its code, its sockets, its limits; and the signals that end a command."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from experiments import sockets
from experiments.errors import RunFailure
from experiments.launch import server, signals

ROOT = Path(__file__).resolve().parents[3]


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with the suite found as this process finds it."""
    path = os.pathsep.join(entry for entry in [str(ROOT), *sys.path] if entry)
    script = folder.parent / "program.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


WHERE = """
    import sys
    from pathlib import Path
    from experiments.launch.pool import Listener, Task, run_all

    def where(*, progress, stop):
        import experiments.run.runner, ham, sparsity
        return [module.__file__ for module in (experiments.run.runner, ham, sparsity)]

    if __name__ == "__main__":
        done = run_all([Task("t", where, (), Path(sys.argv[0]).with_name("log.txt"))], 1, Listener())["t"]
        print(*(done.value or [done.error]), sep="\\n")
"""


def test_workers_run_the_code_of_the_command_whatever_lies_in_the_current_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("experiments", "ham", "sparsity", "results"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    done = python(WHERE, folder)
    wanted = [str(ROOT / place) for place in ("experiments/run/runner.py", "ham/__init__.py", "sparsity/__init__.py")]
    assert done.stdout.splitlines() == wanted, done.stderr


def test_a_long_temporary_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    done = python(WHERE, folder, TMPDIR=str(folder))
    assert str(ROOT / "ham/__init__.py") in done.stdout, done.stderr


READERS = """
    import torch
    from torch.utils.data import DataLoader
    from experiments.sockets import short_temporary_folder

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.zeros(100, 100)

    if __name__ == "__main__":
        with short_temporary_folder():
            reading = iter(DataLoader(Images(), num_workers=1))
        print(len(list(reading)))
"""


def test_readers_of_images_under_a_long_temporary_folder(tmp_path: Path) -> None:
    """They wait for ever for a socket that cannot be made."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    assert python(READERS, folder, TMPDIR=str(folder)).stdout == "4\n"


def test_a_long_temporary_folder_and_no_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("d" * 100)))
    monkeypatch.setattr(sockets, "_SHORT", (str(tmp_path / "nowhere"),))
    with pytest.raises(RunFailure, match="^TMPDIR is .*, too long .* set TMPDIR to a shorter folder"):
        server.start(1)


def test_a_limit_of_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(server.forkserver, "ensure_running", refused)
    before = signal.getsignal(signal.SIGHUP), dict(os.environ)
    with pytest.raises(RunFailure, match=r"no process can be started \(.*\): a limit of processes \(ulimit -u\)"):
        server.start(1)
    assert (signal.getsignal(signal.SIGHUP), dict(os.environ)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ends_act_like_ctrl_c(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), signals.like_ctrl_c():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_what_is_ignored_or_handled_stays_so() -> None:
    seen: list[int] = []
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda n, _: seen.append(n))]
    try:
        with signals.like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        with signals.noted() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop()
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", signals.OF_A_RUN)
def test_every_signal_of_a_run_is_noted(number: signal.Signals) -> None:
    with signals.noted() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
