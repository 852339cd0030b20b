"""The log file of one run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a line that cannot be written: if the disk is full, the run itself fails with a message."""


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append this process's log records to a file: warnings of all libraries, and the suite's own at level INFO."""
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    own = logging.getLogger("experiments")
    level = own.level
    logging.getLogger().addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        own.setLevel(level)
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # the same full disk
            handler.close()
