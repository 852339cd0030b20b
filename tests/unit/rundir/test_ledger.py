"""The ledger is only ever added to and says who died and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import ClaimLost
from experiments.rundir.attempts import Attempt, claim
from experiments.rundir.ledger import Ledger, last_beat, read


def begun(folder: Path, step: int, digest: str | None = None) -> Ledger:
    """An attempt under way in this process."""
    ledger = Ledger(claim(folder))
    ledger.start(step, digest)
    return ledger


def died(ledger: Ledger) -> None:
    """As after SIGKILL: nothing more is written, and the claim's process is gone."""
    ledger.close()
    path = ledger.attempt.folder / f"attempts/{ledger.attempt.number:04}.json"
    path.write_text(json.dumps(ledger.attempt.owner | {"started": "0"}))


def test_a_heartbeat_notices_who_has_taken_over_and_a_folder_that_is_gone(tmp_path: Path) -> None:
    first = begun(tmp_path, 0)
    first.beat(1, 9)
    died(first)
    first = begun(tmp_path, 0)
    (tmp_path / "heartbeat").unlink()
    first.beat(2, 9)  # nobody has taken over: the file alone is made anew
    assert last_beat(tmp_path) is not None
    died_silently = first.attempt.owner | {"started": "0"}
    (tmp_path / "attempts/0002.json").write_text(json.dumps(died_silently))
    second = begun(tmp_path, 0)
    with pytest.raises(ClaimLost, match="has taken this run over"):
        first.beat(3, 9)
    first.close()
    shutil.rmtree(tmp_path)
    with pytest.raises(ClaimLost, match="has been removed"):
        second.beat(1, 9)
    assert not tmp_path.exists()
    second.end(1, "failed", None)
    second.close()
    tmp_path.mkdir()


def test_what_an_earlier_writer_adds_reaches_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been stopped at the last moment, between its look at the claim and its write."""
    first, later = begun(tmp_path, 0), []
    look = type(first.attempt).check

    def stopped_after_its_look(attempt: Attempt) -> None:
        look(attempt)
        if attempt is first.attempt and not later:
            path = tmp_path / "attempts/0001.json"
            path.write_text(json.dumps(attempt.owner | {"started": "0"}))  # as if dead: it is not seen while stopped
            later.append(begun(tmp_path, 3))
            later.append(contents(tmp_path))

    monkeypatch.setattr(type(first.attempt), "check", stopped_after_its_look)
    first.checkpoint(5, "aa")
    second, before = later
    assert contents(tmp_path) == before
    first.end(5, "stopped", "aa")
    assert contents(tmp_path) == before
    second.checkpoint(6, "bb")
    assert read(tmp_path)[-1]["step"] == 6
    (tmp_path / "ledger.jsonl").unlink()
    second.checkpoint(7, "cc")  # somebody has removed the file alone: it is made anew
    assert [record["step"] for record in read(tmp_path)] == [7]
    first.close()
    second.close()


def contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "ledger.jsonl").read_bytes(), (folder / "heartbeat").read_bytes()


def essence(folder: Path) -> list[dict[str, Any]]:
    extra = ("time", "node", "job", "ranks")
    return [{key: value for key, value in record.items() if key not in extra} for record in read(folder)]


def test_a_life_and_a_death(tmp_path: Path) -> None:
    first = begun(tmp_path, 0)
    first.checkpoint(5, "aa")
    for step in (6, 7):
        first.beat(step, 30)
    died(first)
    second = begun(tmp_path, 5, "aa")
    second.beat(6, 30)
    second.end(6, "stopped", "bb")
    second.close()
    second.attempt.end("stopped")
    assert essence(tmp_path) == [
        {"attempt": 1, "event": "start", "step": 0, "checkpoint": None},
        {"attempt": 1, "event": "checkpoint", "step": 5, "checkpoint": "aa"},
        {"attempt": 1, "event": "lost", "step": 7},
        {"attempt": 2, "event": "start", "step": 5, "checkpoint": "aa"},
        {"attempt": 2, "event": "end", "step": 6, "reason": "stopped", "checkpoint": "bb"},
    ]
    times = [record["time"] for record in read(tmp_path)]
    assert times == sorted(times)


def test_the_heartbeat_of_one_attempt_says_nothing_about_another(tmp_path: Path) -> None:
    lines = [{"attempt": number, "event": "start", "step": 3 * number, "time": 0.0} for number in (1, 2)]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "heartbeat").write_text("2 7 9 0.0\n")
    begun(tmp_path, 3).close()
    lost = [(record["attempt"], record["step"]) for record in read(tmp_path) if record["event"] == "lost"]
    assert lost == [(1, 3), (2, 7)]


def test_a_death_before_the_first_step(tmp_path: Path) -> None:
    first = begun(tmp_path, 0)
    first.beat(4, 9)
    died(first)
    died(begun(tmp_path, 3, "aa"))
    begun(tmp_path, 3, "aa").close()
    lost = [(record["attempt"], record["step"]) for record in read(tmp_path) if record["event"] == "lost"]
    assert lost == [(1, 4), (2, 3)], "the heartbeat of the first says nothing about the second"


def test_what_is_written_is_never_changed(tmp_path: Path) -> None:
    content = b""
    for step in range(3):
        ledger = begun(tmp_path, step)
        ledger.checkpoint(step + 1, "aa")
        died(ledger)
        now = (tmp_path / "ledger.jsonl").read_bytes()
        assert now.startswith(content)
        assert len(now) > len(content)
        content = now


def test_a_torn_line_spoils_nothing(tmp_path: Path) -> None:
    died(begun(tmp_path, 0))
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"attempt": 1, "event": "check')
    begun(tmp_path, 0).close()
    assert [record["event"] for record in read(tmp_path)] == ["start", "lost", "start"]


def test_the_heartbeat_is_one_line_whatever_its_length(tmp_path: Path) -> None:
    assert last_beat(tmp_path) is None
    ledger = begun(tmp_path, 0)
    ledger.beat(450_000_000, 450_000_000)
    ledger.beat(7, 30)
    beat = last_beat(tmp_path)
    assert beat is not None
    assert beat[:3] == (1, 7, 30)
    assert (tmp_path / "heartbeat").stat().st_size == 80
    (tmp_path / "heartbeat").write_bytes(b"\0" * 80)
    assert last_beat(tmp_path) is None
