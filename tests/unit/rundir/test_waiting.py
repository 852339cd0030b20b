"""Who may write next, and what is waited for before: a sign of life, a living holder, a holder that was given up."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from claims import owned_by, untouched

from experiments.errors import Busy, ClaimLost, Interrupted
from experiments.rundir import attempts, holder, waiting
from experiments.rundir.attempts import Attempt, claim, held, newest
from experiments.rundir.waiting import for_earlier, for_holder


def never() -> bool:
    return False


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen]:
    """Another live process."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens in each second of waiting; a second in which nothing was planned fails the test."""
    acts: list[Callable[[], object]] = []
    monkeypatch.setattr(waiting.time, "sleep", lambda _: acts.pop(0)())
    return acts


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process belongs to the second start of job 5."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for name in ("ARRAY_JOB_ID", "ARRAY_TASK_ID"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)


FORMER: dict[str, Any] = {"job": "5", "job_id": "5", "restarts": 0, "token": "former"}


# ---- before a claim --------------------------------------------------------------------------------------------------


def test_a_sign_of_life_is_waited_for(tmp_path: Path, seconds: list[Callable[[], object]]) -> None:
    """It ends with a sign, with the end of the lease, or when asked to; nobody waits for what can be seen."""
    path = owned_by(tmp_path, os.getpid(), home=None)
    seconds += [lambda: None, lambda: os.utime(path, (1e9, 1e9)) or os.utime(path)]
    assert len(list(for_holder(tmp_path, never))) == 2
    with pytest.raises(Busy):
        claim(tmp_path)
    seconds += [lambda: untouched(tmp_path)]
    assert len(list(for_holder(tmp_path, never))) == 1
    os.utime(path)
    stops = iter([False, False, True, True])
    seconds += [lambda: None]
    with pytest.raises(Interrupted, match="stopped while it waited; the same command goes on"):
        list(for_holder(tmp_path, lambda: next(stops)))
    owned_by(tmp_path, os.getpid())
    assert list(for_holder(tmp_path, never)) == []


@pytest.mark.parametrize("ended", [False, True])
def test_a_living_holder_is_waited_for_as_long_as_patience_lasts(
    tmp_path: Path,
    seconds: list[Callable[[], object]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    ended: bool,
) -> None:
    path = owned_by(tmp_path, os.getpid())
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[-1])
    last = end_of(path) if ended else lambda: now.append(90.1)
    seconds += [lambda: now.append(30.0), lambda: now.append(60.0), last]
    assert len(list(for_holder(tmp_path, never, patience=90))) == 3
    assert caplog.text.count("waiting, since process") == 1
    if ended:
        assert claim(tmp_path).number == 2
    else:
        with pytest.raises(Busy, match="is writing this run since .*; wait for it or stop it"):
            claim(tmp_path)


# ---- after a claim: one that the scheduler has given up may live -----------------------------------------------------


def end_of(path: Path) -> Callable[[], object]:
    return lambda: path.write_text(json.dumps({**json.loads(path.read_text()), "ended": 7.0, "reason": "lost"}))


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("place", [{}, {"home": None}, {"home": "another boot pid:[1]"}])
@pytest.mark.parametrize("way", ["ended", "silent"])
def test_a_start_that_the_scheduler_gave_up_is_waited_for(
    tmp_path: Path,
    place: dict[str, Any],
    way: str,
    seconds: list[Callable[[], object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = owned_by(tmp_path, os.getpid(), **FORMER, **place)
    attempt = claim(tmp_path)
    assert attempt.number == 2
    begun = attempt.owner["time"]
    seconds += [lambda: os.utime(path)] * 3 + [end_of(path) if way == "ended" else lambda: untouched(tmp_path, path)]
    assert len(list(for_earlier(attempt))) == 4
    assert caplog.text.count("may still live; it is told, and has 90 s from its last sign of life to end") == 1
    assert "goes on, since no other process can write this run any more" in caplog.text
    former = json.loads(path.read_text())
    assert former["reason"] == "lost"
    assert attempt.owner["time"] >= begun, "it begins when it has waited"
    assert newest(tmp_path) == attempt.owner
    untouched(tmp_path)
    assert attempt.beat()
    assert holder.silent_for(tmp_path, attempt.owner) < 5, "the file that was written anew is the one that is touched"


@pytest.mark.usefixtures("restarted")
def test_what_has_ended_or_is_seen_dead_costs_no_wait(tmp_path: Path, neighbour: subprocess.Popen) -> None:
    owned_by(tmp_path, neighbour.pid, 1, **FORMER)
    owned_by(tmp_path, neighbour.pid, 2, **FORMER, home=None, ended=1.0, reason="stopped")
    neighbour.kill()
    neighbour.wait()
    attempt = claim(tmp_path)
    before = (tmp_path / "attempts/0003.json").read_bytes()
    assert list(for_earlier(attempt)) == []
    assert (tmp_path / "attempts/0003.json").read_bytes() == before


@pytest.mark.usefixtures("restarted")
def test_a_start_that_died_while_it_waited_leaves_the_wait_to_the_next(
    tmp_path: Path, neighbour: subprocess.Popen, seconds: list[Callable[[], object]]
) -> None:
    first = owned_by(tmp_path, os.getpid(), 1, **FORMER)
    owned_by(tmp_path, neighbour.pid, 2, **FORMER | {"token": "second"})
    neighbour.kill()
    neighbour.wait()
    seconds += [lambda: os.utime(first), end_of(first)]
    assert len(list(for_earlier(claim(tmp_path)))) == 2


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("content", [b"", b"{", b'{"host": 3}', b"\xff\xfe"])
def test_an_earlier_claim_that_is_damaged_is_over_once_nobody_touches_it(
    tmp_path: Path, content: bytes, seconds: list[Callable[[], object]]
) -> None:
    path = owned_by(tmp_path, os.getpid(), 1)
    path.write_bytes(content)
    owned_by(tmp_path, os.getpid(), 2, **FORMER, ended=1.0)
    seconds += [lambda: os.utime(path), lambda: untouched(tmp_path, path)]
    assert len(list(for_earlier(claim(tmp_path)))) == 2
    assert path.read_bytes() == content
    path.unlink()
    assert list(for_earlier(Attempt(tmp_path, 3, newest(tmp_path) or {}))) == []


@pytest.mark.usefixtures("restarted")
def test_what_lies_before_an_attempt_that_had_begun_is_not_waited_for(
    tmp_path: Path, seconds: list[Callable[[], object]]
) -> None:
    """It had waited itself, so a claim that was damaged since holds nobody up."""
    owned_by(tmp_path, os.getpid(), 1).write_bytes(b"{")
    owned_by(tmp_path, os.getpid(), 2, **FORMER, ended=1.0)
    begun = {"attempt": 2, "event": "start", "step": 0, "checkpoint": None, "ranks": 1, "host": "n0", "time": 1.0}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(begun) + "\n")
    assert list(for_earlier(claim(tmp_path))) == []


@pytest.mark.usefixtures("restarted")
def test_a_wait_ends_when_asked_to_or_when_somebody_else_takes_over(
    tmp_path: Path, seconds: list[Callable[[], object]]
) -> None:
    owned_by(tmp_path, os.getpid(), **FORMER)
    attempt = claim(tmp_path)
    with pytest.raises(Interrupted, match="stopped while it waited"):
        list(for_earlier(attempt, lambda: True))
    third = {**attempt.owner, "attempt": 3, "token": "third"}
    seconds += [lambda: (tmp_path / "attempts/0003.json").write_text(json.dumps(third))]
    with pytest.raises(ClaimLost):
        list(for_earlier(attempt))


@pytest.mark.usefixtures("restarted")
def test_a_process_that_was_given_up_for_silent_adds_nothing_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: list[Callable[[], object]]
) -> None:
    """It is not even the one to say when it ended."""
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    first = claim(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(attempts, "BEAT", 1e6)
    with held(first):
        second = claim(tmp_path)
        seconds += [lambda: untouched(tmp_path, tmp_path / "attempts/0001.json")]
        list(for_earlier(second))
        closed = (tmp_path / "attempts/0001.json").read_bytes()
    assert (tmp_path / "attempts/0001.json").read_bytes() == closed
    second.check()


@pytest.mark.parametrize("answer", [True, False, None])
@pytest.mark.parametrize("visible", [True, False])
def test_another_job_counts_as_given_up_only_if_the_scheduler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool | None, visible: bool
) -> None:
    """It may have forgotten a job, or be that of another cluster: then signs of life decide."""
    monkeypatch.setattr("slurm.scheduler.queue.is_running", lambda job, restarts: answer)
    owned_by(tmp_path, os.getpid(), **FORMER, **({} if visible else {"home": None}))
    if answer is False:
        attempt = claim(tmp_path)
        assert next(for_earlier(attempt), "no wait") is None
    else:
        with pytest.raises(Busy):
            claim(tmp_path)
