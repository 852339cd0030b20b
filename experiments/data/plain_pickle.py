"""A reader of pickles that hold plain data, which runs none of the code that a pickle can name.

A pickle is a program for a stack machine that names functions, calls them and sets states. This reader knows only the
instructions that plain data need, and hands the program no object but stand-ins that do nothing: what would be an array
is a record of shape and bytes until all of the file has been read, and is made and checked here.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 1_000_000_000
_INSTRUCTIONS = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
)


class PickleError(ValueError):
    """The file is not a pickle of plain data; the message says why, without the file's name."""


def read_plain_pickle(path: Path) -> dict[Any, Any]:
    """Read a pickle of one dictionary of text, bytes, numbers, lists, tuples and arrays of unsigned bytes.

    Args:
        path: The file; strings of Python 2 become bytes.

    Returns:
        The dictionary; arrays that are its values are arrays here.

    Raises:
        PickleError: if it is damaged, too large, or holds anything else.
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise PickleError(f"has {size:,} bytes, and at most {MOST_BYTES:,} are read")
    try:
        found = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except PickleError:
        raise
    except Exception as error:  # a damaged pickle can fail in any of its instructions
        raise PickleError(f"damaged ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise PickleError("it holds no dictionary")
    return {key: value.array() if isinstance(value, _Array) else value for key, value in found.items()}


class _Name:
    """A name that a pickle may call; not the object of that name."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]):
        self.make = make


class _Dtype:
    """The only element type, unsigned bytes; what a pickle sets as its state changes nothing."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        pass


class _Array:
    """What a pickle says of an array."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def build(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """Make the array.

        Raises:
            PickleError: if shape, type and bytes do not agree.
        """
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise PickleError("an array without shape, type and bytes")
        _, shape, kind, by_column, content = self.state
        whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not (whole and isinstance(kind, _Dtype) and isinstance(content, bytes)):
            raise PickleError("an array without shape, type and bytes")
        if len(shape) > 4 or math.prod(shape) != len(content):
            raise PickleError(f"an array of shape {list(shape[:5])} with {len(content):,} bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise PickleError("an array of a class of its own")
    return _Array()


def _dtype(code: Any, align: Any = False, copy: Any = False) -> _Dtype:
    if code not in (b"u1", "u1"):
        raise PickleError(f"an array of {code!r}; only unsigned bytes (u1) are read")
    return _Dtype()


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes in the form in which Python 3 pickles them for Python 2."""
    if encoding not in ("latin1", b"latin1") or not isinstance(text, str):
        raise PickleError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _no_call(*arguments: Any) -> None:
    raise PickleError("it calls numpy.ndarray")


_Unpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]
_NDARRAY = _Name(_no_call)
_KNOWN = {
    "numpy.core.multiarray._reconstruct": _Name(_reconstruct),
    "numpy._core.multiarray._reconstruct": _Name(_reconstruct),
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Name(_dtype),
    "_codecs.encode": _Name(_encode),
}


class _Plain(_Unpickler):
    """Python's own unpickler, in Python, with the instructions of plain data alone.

    The one in C would take a file's word for how much memory to reserve.
    """

    stack: list[Any]
    _copied = 0

    def find_class(self, module: str, name: str) -> _Name:
        found = _KNOWN.get(f"{module}.{name}")
        if found is None:
            raise PickleError(f"it names {module}.{name}, and only arrays of unsigned bytes are read")
        return found

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise PickleError("it calls what is no function")
        made = function.make(*arguments)
        self._copied += len(made) if isinstance(made, bytes) else 0
        if self._copied > MOST_BYTES:  # one text, encoded again and again
            raise PickleError(f"it makes more than {MOST_BYTES:,} bytes")
        self.stack.append(made)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise PickleError("it changes what is no array")
        self.stack[-1].build(state)

    def _set(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise PickleError("it sets an entry of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes, int):  # others could be nested without bound, and are hashed as deeply
                raise PickleError("a dictionary whose keys are not text")
            target[key] = value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def load_dict(self) -> None:
        items, made = self.pop_mark(), {}
        self._set(made, items)
        self.append(made)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._list().extend(items)

    def load_append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def _list(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise PickleError("it appends to what is no list")
        return self.stack[-1]


_OWN = {
    "REDUCE": _Plain.load_reduce,
    "BUILD": _Plain.load_build,
    "SETITEM": _Plain.load_setitem,
    "SETITEMS": _Plain.load_setitems,
    "DICT": _Plain.load_dict,
    "APPEND": _Plain.load_append,
    "APPENDS": _Plain.load_appends,
}
_Plain.dispatch = {
    getattr(pickle, name)[0]: _OWN.get(name) or _Plain.dispatch[getattr(pickle, name)[0]] for name in _INSTRUCTIONS
}
