"""The command line as a fixture, and what keeps tests that call it apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("commands", "packages", "processes", "small_runs")

from arithmetic import float64  # noqa: E402
from commands import Called, Ham, command  # noqa: E402


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
def own_path_and_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands leave the folders of a user's modules on the search path, for workers; and W&B is not to be had."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
