"""The two ways a command ends badly that are not a defect of the suite."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SuiteError(Exception):
    """Shown as one message without a traceback.

    Args:
        message: What is wrong and what is allowed.
        where: File and line, key path or command-line argument it is about, or None.

    Attributes:
        exit_code: What the command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, where: str | None = None):
        # both go to args, so that the exception survives a trip between processes
        super().__init__(message, where)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UserError(SuiteError):
    """Something in the user's hands is wrong."""

    exit_code = 2


class Busy(UserError):
    """Another live process is writing this run."""


class RunFailure(SuiteError):
    """A run could not be carried out as specified: a loss that is not a number, a sparsity that was missed."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed name, or an empty string.

    The same as `sparsity.options.nearest`, which stands behind the import of torch.
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class Interrupted(SuiteError):
    """A run was asked to stop and left a checkpoint to go on from."""

    exit_code = 130


class LostRank(SuiteError):
    """Another rank died or no longer answers; the run goes on from its last checkpoint when it is started again."""

    exit_code = 70
