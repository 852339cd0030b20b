"""The command line, called in this process: a new one would import torch for seconds."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch

from experiments import cli

pytest.register_assert_rewrite("small_runs", "processes")


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str


Ham = Callable[..., Called]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Fixtures of a module train before those of a test; results are equal only at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture
def ham(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ham:
    """``ham("run", config, ...)``; a traceback on its way fails the test, whatever the test looks for."""

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["ham", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Called(code, out, err)

    return call


@pytest.fixture(autouse=True)
def leaves_process_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands in this process change its search path, environment and logging; later tests start from the same."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    level = logging.getLogger("experiments").level
    handlers = list(logging.getLogger().handlers)
    yield
    assert logging.getLogger().handlers == handlers
    logging.getLogger("experiments").setLevel(level)
