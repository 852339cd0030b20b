"""Files that are written atomically, and append-only logs."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from experiments.errors import UserError

from .reading import Unreadable, kind_of, parse_json, read_regular

log = logging.getLogger(__name__)


@contextmanager
def atomic(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` only once all of it is on the disk.

    The bytes go to a temporary file beside `path`, which is flushed to the disk and renamed. On an error, such as a
    full disk, the temporary file is removed and `path` keeps its content. The folder must exist: whoever writes into
    a folder that somebody has removed must learn of it. The umask and the folder decide who may read and write.

    Args:
        path: The file.
        check: Called when all is on the disk; an error from it keeps the old content.

    Raises:
        UserError: if `path` is a device, a pipe, a folder or a symbolic link, none of which a file may replace.
    """
    check_regular(path)
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


def check_regular(path: Path) -> None:
    """Refuse to write where something stands that is no regular file; a link in a shared folder may lead anywhere.

    Raises:
        UserError: naming what is there.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"is {kind_of(mode)}, and only a regular file is written over; remove it", str(path))


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


def write_text(path: Path, text: str, check: Callable[[], None] = lambda: None) -> None:
    """Write a text file atomically, see `atomic`."""
    with atomic(path, check) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, check: Callable[[], None] = lambda: None) -> None:
    """Write readable JSON atomically, see `atomic`; NaN becomes null, since JSON has none."""
    with atomic(path, check) as file:
        file.write(json.dumps(finite(value), indent=1).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is absent or damaged."""
    try:
        return parse_json(read_regular(path))
    except (FileNotFoundError, Unreadable):
        return None


def finite(value: Any) -> Any:
    """Return a value as JSON can hold it: lists for tuples, and None for what is no finite number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


class JsonLines:
    """An append-only log with one JSON object per line, held in memory too, so that damage to the file costs nothing.

    Args:
        path: The file.
        good: What a checkpoint counts on. A file that does not begin with it is damaged, is said to be, and is written
            anew; what a killed process wrote beyond it is cut off.
        check: Called before anything is written; an error from it keeps what is there.
    """

    def __init__(self, path: Path, good: bytes = b"", check: Callable[[], None] = lambda: None):
        check_regular(path)
        self._path, self._content, self._check = path, bytearray(good), check
        self._tell_damage()
        with atomic(path, check) as file:  # a new one: an earlier writer has the old one, which nobody reads
            file.write(good)
        self._file = path.open("ab")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        line = (json.dumps(finite(record)) + "\n").encode()
        self._check()
        self._file.write(line)
        self._file.flush()
        self._content += line

    def sync(self) -> bytes:
        """Flush all records to the disk and return the content of the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return bytes(self._content)

    def records(self) -> list[dict[str, Any]]:
        """Return all records."""
        return [json.loads(line) for line in self._content.splitlines()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def seal(self) -> None:
        """Close the file, whole: what was damaged meanwhile is written anew."""
        self._file.close()
        self._check()
        if self._tell_damage():
            with atomic(self._path, self._check) as file:
                file.write(self._content)

    def _tell_damage(self) -> bool:
        try:
            found = self._path.read_bytes()[: len(self._content)]
        except OSError:
            found = b""
        if found == self._content:
            return False
        log.error(
            "%s: is damaged or was changed from outside (%d bytes where the run counts on %d others); written anew",
            *(self._path, len(found), len(self._content)),
        )
        return True
