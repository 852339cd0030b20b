"""The command line, called in this process: a new one would import torch for seconds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from experiments.cli import main


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Standard error without the next step, and without lines about tasks that ended, which a sweep logs."""
        usual = re.compile(r"next: |\[\d+/\d+.*?\] ")
        return "".join(line for line in self.err.splitlines(keepends=True) if not usual.match(line))


Ham = Callable[..., Called]


def one_message(called: Called, code: int, *parts: str) -> None:
    """Standard error holds this one message, in one line, and standard output nothing."""
    assert called.code == code, called
    assert called.out == ""
    assert called.err.count("error: ") == 1, called.err
    assert len(called.err.strip().splitlines()) == 1, called.err
    for part in parts:
        assert part in called.err


def command(*arguments: object) -> int:
    """Call the command line in this process; the exit code."""
    before = sys.argv
    sys.argv = ["ham", *map(str, arguments)]
    try:
        main.main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = before
    return 0
