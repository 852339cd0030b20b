"""A reader of the idx format of MNIST and similar data sets, plain or gzipped.

A file holds two zero bytes, a type byte (8 = uint8), the number of dimensions, the dimensions as big-endian uint32,
and the data.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UINT8 = 8
MOST_BYTES = 500_000_000


class IdxError(ValueError):
    """The file is not a complete idx file of unsigned bytes; the message says why, without the file's name."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes.

    Args:
        path: The file; decompressed if its name ends in ``.gz``.

    Returns:
        A uint8 array with the dimensions that the file states.

    Raises:
        IdxError: if the file cannot be read, is damaged, truncated, longer than its header says, or of another format.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # a small archive may unpack to any size
        if len(content) > MOST_BYTES:
            raise IdxError(f"has more than {MOST_BYTES:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise IdxError(f"cannot be read ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise IdxError("is not an idx file")
    if content[2] != _UINT8:
        raise IdxError(f"has idx type {content[2]:#04x}; only 0x08 (unsigned bytes) is read")
    header = 4 + 4 * content[3]
    if content[3] == 0 or len(content) < header:
        raise IdxError("has an incomplete idx header")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    if len(content) - header != math.prod(shape):
        raise IdxError(f"holds {len(content) - header:,} bytes of data where its header says {math.prod(shape):,}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
