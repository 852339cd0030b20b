"""Real ``ham`` processes, and every process that comes of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

HAM = Path(sys.executable).with_name("ham")
PATIENCE = 120.0  # seconds: imports take long on a busy machine


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Ask again and again, or fail the test."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.002)


class Command:
    """A ``ham`` command under way, the head of a process group of its own; whatever is left of it dies on leaving.

    Args:
        folder: Its working directory; standard output and error go to files in it.
        arguments: Of the command.
    """

    def __init__(self, folder: Path, *arguments: object):
        self._mark = f"HAM_TEST_MARK={uuid.uuid4()}"
        name, value = self._mark.split("=")
        self._out, self._err = (folder / f"{value}.{stream}" for stream in ("out", "err"))
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [HAM, *map(str, arguments)],
                cwd=folder,
                env={**os.environ, name: value, "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def members(self, word: str = "") -> list[int]:
        """Live processes of this command, by a variable that all inherit; with a word in their command line."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
                marked = self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
                named = word.encode() in (folder / "cmdline").read_bytes()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if marked and named and state not in "ZX":
                found.append(int(folder.name))
        return found

    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL for the command alone; those it started have to end by themselves."""
        self.process.kill()
        self.process.wait()

    def ctrl_c(self) -> int:
        """SIGINT for the whole group, as a terminal sends it; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE)
