"""Errors that a command reports in one message: mistakes of the user's, and runs that could not be completed."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class SuiteError(Exception):
    """Base of all errors that are shown as one message without a traceback.

    Args:
        message: What is wrong and what is allowed.
        where: File and line, key path or command-line argument that the message is about, or None.

    Attributes:
        exit_code: Exit code of the command.
    """

    exit_code = 1

    def __init__(self, message: str, where: str | None = None):
        # both go to args, so that the exception can be pickled and sent between processes
        super().__init__(message, where)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UserError(SuiteError):
    """The configuration, a command-line argument or a file of the user's is wrong."""

    exit_code = 2


class Busy(UserError):
    """Another live process holds this run directory."""


class ClaimLost(SuiteError):
    """This process no longer holds its run directory, which was removed or taken over; it must write nothing more."""


class RunFailure(SuiteError):
    """A run could not be completed as specified, because of a NaN loss or a missed sparsity, for instance."""


_SYNONYMS = {
    "gpu": "cuda",
    "learningrate": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "arch": "model",
    "network": "model",
    "dataset": "data",
    "tex": "latex",
    "md": "markdown",
    "halfprecision": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "fp32": "none",
    "float32": "none",
    "mnist": "fashion_mnist",
}
"""What people write, without punctuation and in lower case, to the suite's word for it."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for what an allowed name also goes by, or the closest one; else an empty string.

    `sparsity.options.nearest` is the same without other words, since importing that one imports torch.
    """
    known = list(allowed)
    meant = _SYNONYMS.get(bare(name), name)
    same = [one for one in known if bare(one) == bare(meant)]
    close = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def bare(name: str) -> str:
    """Return the letters and digits of a name in lower case, so that AC/DC is acdc."""
    return "".join(char for char in name.lower() if char.isalnum())


def synonym(name: str) -> str:
    """Return the suite's word for a name, or the name itself with ``_`` for ``-``."""
    return _SYNONYMS.get(bare(name), name.replace("-", "_"))


def printable(text: str) -> str:
    """Return a text without what steers a terminal, which a name of a file may hold."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def words_of(error: BaseException) -> str:
    """Return the text of an exception that code of the user's raised; making it may raise itself."""
    try:
        return str(error)
    except Exception as fault:
        return f"its text cannot be made, {type(fault).__name__}"


_WAYS_OUT = {
    errno.ENOSPC: "free some space, and give the same command again",
    errno.EDQUOT: "free some of your quota, and give the same command again",
    errno.EACCES: "look at the permissions of it and of its folder",
    errno.EPERM: "look at the permissions of it and of its folder",
    errno.EROFS: "choose a folder that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close other programs or raise the limit (ulimit -n)",
    errno.EIO: "the disk or the network may be at fault; give the same command again later",
    errno.EEXIST: "something else has this name; move it away or give another place",
    errno.ENOENT: "look whether the name is right and its folder exists",
    errno.ENOTDIR: "a part of its path is a file; give another path",
    errno.EISDIR: "a folder stands there; remove it or give another path",
}


def way_out(error: OSError) -> str:
    """Return what to do about an error of the system, as ``"; do this"``, or an empty string."""
    advice = _WAYS_OUT.get(error.errno or 0)
    return f"; {advice}" if advice else ""


class Interrupted(SuiteError):
    """A run was asked to stop and left a checkpoint to resume from."""

    exit_code = 130


class Unfinished(SuiteError):
    """A run is not finished, and nothing is wrong with it: a scheduler should give the same command again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class LostRank(SuiteError):
    """Another rank died or no longer answers; the run resumes from its last checkpoint when it is started again."""

    exit_code = 70
