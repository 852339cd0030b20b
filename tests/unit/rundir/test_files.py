"""Files are whole or not there, whatever stops the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.errors import ClaimLost, SuiteError, UserError
from experiments.rundir import files
from experiments.rundir.files import JsonLines, atomic, remove_leftovers, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_json_come_back(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "μ = 1\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "μ = 1\n"
    value = {"loss": float("nan"), "list": [1, float("inf"), (2.5, -float("inf"))], "text": "nan"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "loss": None,
        "list": [1, None, [2.5, None]],
        "text": "nan",
    }


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o000, 0o666)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / "a", "x")
        finally:
            os.umask(before)
        assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "gone/a", "x")
    assert caught.value.filename == str(tmp_path / "gone/a")
    assert names(tmp_path) == []


def test_the_last_question_before_the_file_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def no() -> None:
        raise SuiteError("not any more")

    with pytest.raises(SuiteError, match="not any more"), atomic(tmp_path / "a", no) as file:
        file.write(b"new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_system_that_syncs_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_text(tmp_path / "a", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if call != "write":
            patch.setattr(files.os, call, full)
        with pytest.raises(OSError, match="No space left"):
            rewrite(tmp_path / "a", full if call == "write" else None)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def rewrite(path: Path, fault: Callable[[], None] | None) -> None:
    with atomic(path) as file:
        file.write(b"new")
        if fault:
            fault()


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with atomic(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "checkpoint.pt", "old")
    child = os.fork()
    if child == 0:
        with atomic(tmp_path / "checkpoint.pt") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / ".hidden").touch()
    (tmp_path / "notes.tmp").touch()
    assert len(names(tmp_path)) == 4
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "checkpoint.pt", "notes.tmp"]
    assert (tmp_path / "checkpoint.pt").read_text() == "old"


def test_a_log_grows_and_is_cut_back_to_what_is_known_good(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    log = JsonLines(path)
    log.write({"step": 1})
    good = log.sync()
    log.write({"step": 2, "loss": float("nan")})
    assert log.records() == [{"step": 1}, {"step": 2, "loss": None}]
    log.close()
    with path.open("a") as file:
        file.write('{"step": 3')  # torn by a kill
    log = JsonLines(path, good)
    log.write({"step": 4})
    log.close()
    assert path.read_text() == '{"step": 1}\n{"step": 4}\n'


def test_who_has_lost_the_run_writes_nothing_into_a_log(tmp_path: Path) -> None:
    """Not when it opens, not when it adds, not when it closes: also where the file is still its own."""

    def lost() -> None:
        raise ClaimLost("gone")

    checks = [lambda: None]
    log = JsonLines(tmp_path / "m.jsonl", check=lambda: checks[0]())
    log.write({"step": 1})
    checks[:] = [lost]
    for write in (lambda: log.write({"step": 2}), log.seal, lambda: JsonLines(tmp_path / "m.jsonl", check=lost)):
        with pytest.raises(ClaimLost):
            write()
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1}\n'


def test_a_writer_that_was_replaced_writes_into_no_log(tmp_path: Path) -> None:
    first = JsonLines(tmp_path / "m.jsonl")
    first.write({"step": 1})
    second = JsonLines(tmp_path / "m.jsonl", first.sync())
    first.write({"step": 2})
    first.close()
    second.write({"step": 3})
    second.close()
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("content", [None, b"", b'{"step":', b'{"step": 7}\n{"step": 2}\n', b"\xff" * 40])
@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
def test_a_damaged_log_is_named_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, when: str
) -> None:
    path, good = tmp_path / "m.jsonl", b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(good)
    opened = JsonLines(path, good) if when == "while it is open" else None
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    log = opened or JsonLines(path, good)
    assert opened or path.read_bytes() == good
    assert log.records() == [{"step": 1}, {"step": 2}]
    log.seal()
    assert path.read_bytes() == good
    assert f"{path}: is damaged or was changed from outside" in caplog.text


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a symbolic link": lambda path: path.symlink_to(path.with_name("target")),
    "a device": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_a_regular_file_is_written_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    (tmp_path / "target").write_text("old")
    try:
        SPECIAL[kind](path)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = path.lstat()
    for write in (lambda: write_text(path, "new"), lambda: JsonLines(path)):
        with pytest.raises(UserError, match=f"is {kind}, and only a regular file is written over; remove it"):
            write()
    assert path.lstat() == before
    assert (tmp_path / "target").read_text() == "old"
    assert names(tmp_path) == ["a", "target"]
