"""What a run's folder remembers of the lines that W&B was given: a digest of each, in order.

The number of lines that W&B has is the server's to say. The journal tells whether one that W&B has already is the same
now: a run that resumes from a checkpoint writes the lines after it again, equal on a CPU, perhaps not on a GPU. Its
file is also the lock that keeps two processes of one machine from mirroring one run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from experiments.rundir import names
from experiments.rundir.files import check_regular

from .metrics import CLOCKS

DIGITS = 16
_RECORD = DIGITS + 1  # a digest and the end of its line
_UNKNOWN = "-" * DIGITS  # of a row that W&B has from elsewhere


class Journal:
    """The journal of one run, held by this process until `close`.

    Args:
        folder: The run's folder.
        patience: Seconds to wait for a process that holds it.

    Raises:
        BlockingIOError: if another process still holds it then.
    """

    def __init__(self, folder: Path, patience: float):
        check_regular(folder / names.MIRRORED)
        self._file = (folder / names.MIRRORED).open("a+b")
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.close()
                    raise
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        self._file.seek(0)
        self._known = self._file.read().decode(errors="replace").split("\n")[:-1]

    def given(self, index: int, row: Mapping[str, float]) -> None:
        """Note a row before W&B gets it."""
        if self.same(index, row):
            return
        before = [*self._known[:index], *[_UNKNOWN] * (index - len(self._known))]
        new = [*before[len(self._known) :], digest(row)]
        self._known = [*before, digest(row)]
        self._file.truncate(_RECORD * (len(self._known) - len(new)))
        self._file.write("".join(f"{one}\n" for one in new).encode())
        self._file.flush()

    def same(self, index: int, row: Mapping[str, float]) -> bool:
        """Return whether a row that W&B has is known to be this one."""
        return self._known[index : index + 1] == [digest(row)]

    def close(self) -> None:
        """Let others have it."""
        with suppress(OSError):
            self._file.close()


def digest(row: Mapping[str, float]) -> str:
    """Hash what of a row does not depend on the clock."""
    kept = {key: value for key, value in row.items() if not key.startswith(CLOCKS)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:DIGITS]
