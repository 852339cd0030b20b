"""The way in for files that a crash may have damaged or another person written: bounded in size, depth and numbers."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

MOST_BYTES = 256_000_000
MOST_DEPTH = 40
_MOST = 2**63  # whole numbers of 64 bits
M = TypeVar("M", bound=BaseModel)


class Unreadable(ValueError):
    """A file does not hold what it must; the message says why, without the file's name."""


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file that is a regular one; a pipe or a device is not waited for.

    Args:
        path: The file.
        most: Largest size in bytes.

    Raises:
        FileNotFoundError: if there is none.
        Unreadable: if it cannot be read, is something else, or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable(f"is {kind_of(found.st_mode)}, not a file")
            if found.st_size > most:
                raise Unreadable(f"has {found.st_size:,} bytes, and at most {most:,} are read")
            return b"".join(iter(lambda: os.read(descriptor, max(found.st_size, 1)), b""))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:  # a part of its path is a file
        raise FileNotFoundError(*error.args) from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error


def kind_of(mode: int) -> str:
    """Name what a file is that is no regular one."""
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return names.get(stat.S_IFMT(mode), "a device")


def parse_json(data: bytes) -> Any:
    """Parse JSON of at most `MOST_DEPTH` levels, whole numbers of 64 bits, finite numbers and text in UTF-8.

    Raises:
        Unreadable: if it is anything else.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_number)
        _check(value)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable(f"is nested more than {MOST_DEPTH} levels deep") from None
    except ValueError as error:
        raise Unreadable(f"is not JSON ({error})") from None
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        FileNotFoundError: if there is none.
        Unreadable: if it holds anything else.
    """
    value = parse_json(read_regular(path))
    if not isinstance(value, dict):
        raise Unreadable("does not hold an object")
    return value


def typed(model: type[M], value: Any) -> M:
    """Check a value of a file against the model of its kind.

    Raises:
        Unreadable: with the key, the value and what is allowed, for the first fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        raise Unreadable(f"has no {key}")
    said = str(fault.get("ctx", {})["error"]) if fault["type"] == "value_error" else fault["msg"]
    given = repr(fault["input"])
    shown = given if len(given) <= 60 else f"{given[:57]}..."
    raise Unreadable(f"has {key} {shown}: {said[0].lower()}{said[1:]}" if key else said)


def _no_number(text: str) -> float:
    raise Unreadable(f"holds {text}, which is no number of JSON")


def _check(root: Any) -> None:
    """Look at each value once: depth, size of numbers, and text that can be printed."""
    level, depth = [root], 0
    while level:
        if depth > MOST_DEPTH:
            raise Unreadable(f"is nested more than {MOST_DEPTH} levels deep")
        inner: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                inner += value
                inner += value.values()
            elif kind is list:
                inner += value
            elif kind is str:
                value.encode()  # no lone surrogates, which nothing can print
            elif (kind is int and not -_MOST < value < _MOST) or (kind is float and not math.isfinite(value)):
                raise Unreadable(f"holds the number {value if kind is float else hex(value)[:24]}, which is too large")
        level, depth = inner, depth + 1
