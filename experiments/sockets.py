"""Where processes keep the sockets through which they speak: a path of which the kernel takes some hundred bytes."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import RunFailure

LONGEST = 60
"""Characters of the temporary folder; sockets in a folder below it may have 104 on some systems, 108 on others."""
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Let this process and its children keep their sockets in a folder whose path is short enough for them.

    Raises:
        RunFailure: if TMPDIR is too long, and no other folder can be written.
    """
    long = tempfile.gettempdir()
    if len(os.fsencode(long)) > LONGEST:
        short = next((folder for folder in _SHORT if Path(folder).is_dir() and os.access(folder, os.W_OK)), None)
        if short is None:
            raise RunFailure(
                f"TMPDIR is {long}, too long for the sockets of processes (at most {LONGEST} bytes), and none of "
                f"{', '.join(_SHORT)} can be written; set TMPDIR to a shorter folder"
            )
        tempfile.tempdir = short
    try:
        multiprocessing.util.get_temp_dir()  # made once, and inherited by all children
        yield
    finally:
        tempfile.tempdir = long
