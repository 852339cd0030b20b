"""Files that are written atomically, and append-only logs."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from experiments.errors import RunFailure


@contextmanager
def atomic(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` only once all of it is on the disk.

    The bytes go to a temporary file beside `path`, which is flushed to the disk and renamed. On an error, such as a
    full disk, the temporary file is removed and `path` keeps its content. The folder must exist: whoever writes into
    a folder that somebody has removed must learn of it. The umask and the folder decide who may read and write.

    Args:
        path: The file.
        check: Called when all is on the disk; an error from it keeps the old content.
    """
    draft = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check()
        os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError) and error.filename == str(draft):
            error.filename = str(path)  # messages name what the user knows
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed writers left behind; no process may be writing into the folder."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


_NO_SUCH_CALL = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)
"""What file systems answer that cannot sync a folder; the content of the renamed file is on the disk anyway."""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, check: Callable[[], None] = lambda: None) -> None:
    """Write readable JSON atomically, see `atomic`; NaN becomes null, since JSON has none."""
    with atomic(path, check) as file:
        file.write(json.dumps(_finite(value), indent=1).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is absent or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


class JsonLines:
    """An append-only log with one JSON object per line.

    Args:
        path: The file.
        keep: Length in bytes that is known to be good; anything that a killed process wrote beyond it is cut off.

    Raises:
        RunFailure: if the file is shorter than `keep`.
    """

    def __init__(self, path: Path, keep: int = 0):
        size = path.stat().st_size if path.exists() else 0
        if size < keep:
            raise RunFailure(
                f"this log has {size} bytes where the checkpoint beside it counts on {keep}; "
                "remove the checkpoint to start this run anew",
                where=str(path),
            )
        good = path.read_bytes()[:keep] if keep else b""
        with atomic(path) as file:  # a new file: an earlier writer that still lives has the old one, which nobody reads
            file.write(good)
        self._file = path.open("ab")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self._file.write((json.dumps(_finite(record)) + "\n").encode())
        self._file.flush()

    def sync(self) -> int:
        """Flush all records to the disk and return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records in all complete lines of a log."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]
