"""Lines of a log about a sweep: what ended, after what time, and what is left."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.cli import lines
from experiments.cli.lines import SweepLines
from experiments.launch.pool import TaskResult


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(lines, "time", one)
    return one


def done(accuracy: float) -> TaskResult:
    return TaskResult(value={"accuracy": accuracy})


def test_each_end_is_one_line_with_what_is_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SweepLines(5)
    for name in ("a-s0", "a-s1"):
        shown.started(name)
    clock.now = 100.0
    shown.progress("a-s1", 10, 20)
    shown.finished("a-s0", done(0.842))  # half a run, and three whole ones, by two workers
    shown.started("b-s0")
    clock.now = 200.0
    shown.finished("a-s1", TaskResult(error="the loss\nis not finite\x1b[31m"))
    shown.started("b-s1")
    clock.now = 300.0
    shown.finished("b-s0", done(0.5))
    shown.finished("b-s1", done(1.0))
    shown.started("c-s0")
    clock.now = 400.0
    shown.finished("c-s0", done(0.1))
    assert capsys.readouterr().err.splitlines() == [
        "[1/5] a-s0: 84.2 % after 2 min; 3 min left",
        "[2/5] a-s1: failed after 3 min: the loss is not finite\\x1b[31m; 2 min left",
        "[3/5] b-s0: 50.0 % after 3 min; 2 min left",
        "[4/5] b-s1: 100.0 % after 2 min; 2 min left",
        "[5/5] c-s0: 10.0 % after 2 min",
    ]


def test_nothing_is_foretold_from_failures(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SweepLines(2)
    shown.started("a")
    shown.finished("a", TaskResult(error="no"))
    assert capsys.readouterr().err == "[1/2] a: failed after less than a second: no\n"


@pytest.mark.parametrize("how", [{"busy": True}, {"interrupted": True}])
def test_what_goes_on_later_has_not_ended(how: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SweepLines(1)
    shown.started("a")
    shown.finished("a", TaskResult(error="held", **how))
    assert capsys.readouterr().err == ""
    shown.started("a")
    shown.finished("a", TaskResult(value=(0.1, 5)))
    assert capsys.readouterr().err == "[1/1] a: done after less than a second\n"


def test_a_longer_run_that_is_under_way_counts_whole(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = SweepLines(2)
    for name in ("a", "b"):
        shown.started(name)
    clock.now = 60.0
    shown.finished("a", done(0.5))
    assert capsys.readouterr().err == "[1/2] a: 50.0 % after 60 s; 60 s left\n"
