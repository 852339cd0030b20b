"""The command line as a fixture, and what keeps tests that call it apart."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest
import torch

pytest.register_assert_rewrite("commands", "packages", "processes", "small_runs")

from commands import Called, Ham, command  # noqa: E402
from small_runs import float64  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Fixtures of a module train before those of a test; results are equal only at equal threads."""
    torch.set_num_threads(1)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Runs of this test, also those on several ranks, compute in float64."""
    with float64():
        yield


@pytest.fixture
def ham(capsys: pytest.CaptureFixture[str]) -> Ham:
    """``ham("run", config, ...)``; a traceback on its way fails the test, whatever the test looks for."""

    def call(*arguments: object) -> Called:
        capsys.readouterr()
        code = command(*arguments)
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
