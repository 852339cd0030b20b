"""The journal of what W&B was given, and the tail of the metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.rundir.reading import Unreadable
from experiments.tracking.journal import Journal
from experiments.tracking.tail import Tail


def rows(*values: float) -> list[dict[str, float]]:
    return [{"train/loss": value, "cost/seconds_so_far": 7 * value} for value in values]


def test_the_journal_knows_what_was_given(tmp_path: Path) -> None:
    first = Journal(tmp_path, 0)
    for index, row in enumerate(rows(1, 2, 3)):
        first.given(index, row)
    first.close()
    second = Journal(tmp_path, 0)
    slower = [{**row, "cost/seconds_so_far": 99.0} for row in rows(1, 2, 3)]
    assert [second.same(index, row) for index, row in enumerate(slower)] == [True, True, True]
    assert not second.same(1, rows(5)[0])
    assert not second.same(3, rows(1)[0])
    second.given(1, rows(5)[0])  # W&B had one row only, so the rest is given anew
    assert [second.same(index, row) for index, row in enumerate(rows(1, 5, 3))] == [True, True, False]
    second.given(4, rows(9)[0])  # W&B has rows from elsewhere
    second.close()
    third = Journal(tmp_path, 0)
    assert [third.same(index, row) for index, row in enumerate(rows(1, 5, 3, 4, 9))] == [True, True, False, False, True]
    third.close()


@pytest.mark.parametrize("left", [b"", b"torn", b"\xff\n\n0123", b"0123456789abcdef"])
def test_a_damaged_journal_knows_less_and_goes_on(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "mirrored.txt").write_bytes(left)
    journal = Journal(tmp_path, 0)
    assert not journal.same(0, rows(1)[0])
    for index, row in enumerate(rows(1, 2)):
        journal.given(index, row)
    journal.close()
    again = Journal(tmp_path, 0)
    assert [again.same(index, row) for index, row in enumerate(rows(1, 2))] == [True, True]
    again.close()


def test_one_at_a_time(tmp_path: Path) -> None:
    first = Journal(tmp_path, 0)
    with pytest.raises(BlockingIOError):
        Journal(tmp_path, 0)
    first.close()
    Journal(tmp_path, 0).close()


def test_a_tail_takes_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert list(tail.read()) == []
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert list(tail.read()) == [(0, {"a": 1}), (1, {"a": 2})]
    assert list(tail.read()) == []
    with path.open("ab") as file:
        file.write(b": 3}\n")
    assert list(tail.read()) == [(2, {"a": 3})]
    assert tail.count == 3


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"a": NaN}', b"\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(Unreadable, match=r"metrics.jsonl, line 2: "):
        list(Tail(tmp_path / "metrics.jsonl").read())
