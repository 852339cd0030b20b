"""The log of one run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Do without a line that cannot be written: if the disk is full, the run itself fails, with a message."""


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append what this process logs to a file: warnings of all libraries, and what the suite tells of its own work."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("experiments").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # the same full disk
            handler.close()
