"""A reader of pickles that hold plain data, which runs none of the code that a pickle can name.

A pickle is a program that names functions and calls them. This reader knows only the names that are needed to make
arrays of unsigned bytes, and refuses all others before anything is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np


class PickleError(ValueError):
    """The file is not a pickle of plain data; the message says why, without the file's name."""


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dictionaries, lists, tuples, text, bytes, numbers and arrays of unsigned bytes.

    Args:
        path: The file; strings of Python 2 become bytes.

    Raises:
        PickleError: if it is damaged or holds anything else.
        OSError: if it cannot be read.
    """
    content = path.read_bytes()
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except PickleError:
        raise
    except Exception as error:  # a damaged pickle can fail in any of its instructions
        raise PickleError(f"damaged ({type(error).__name__}: {str(error)[:80]})") from error


class _NdarrayType:
    """A placeholder for the class numpy.ndarray: only an argument of `_reconstruct`, and not callable."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Return an empty array, which the pickle then fills through `ndarray.__setstate__`."""
    if kind is not _NDARRAY:
        raise PickleError("an array of a class of its own")
    return np.ndarray(0, np.uint8)


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    """Return the only supported element type, uint8."""
    if code not in (b"u1", "u1"):
        raise PickleError(f"an array of {code!r}; only unsigned bytes (u1) are read")
    return np.dtype(np.uint8, copy=True)  # a copy, since the pickle sets its state


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes in the form in which Python 3 pickles them for Python 2."""
    if encoding not in ("latin1", b"latin1") or not isinstance(text, str):
        raise PickleError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


_NDARRAY = _NdarrayType()
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that resolves only the names in `_KNOWN`, and each to a replacement of the original."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        found = _KNOWN.get((module_name, global_name))
        if found is None:
            raise PickleError(f"it names {module_name}.{global_name}, and only arrays of unsigned bytes are read")
        return found
