"""Damaged files, foreign claims, full disks, diverging runs: one message, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Ham, one_message
from small_runs import (
    assert_same_run,
    contents,
    records,
    result,
    resumptions,
    tiny_spec,
    train,
    train_until,
    write_config,
)

from experiments.config.identity import folder_suffix, identity_with_data
from experiments.errors import RunFailure
from experiments.run import runner
from experiments.rundir import checkpoint, files, process

# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A run that was stopped at step 10."""
    spec = tiny_spec(tmp_path)
    folder = tmp_path / "runs" / f"tiny{folder_suffix(identity_with_data(spec), 0)}"
    train_until(spec, folder, 10)
    return folder


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["foreign", "of another run", "pickle", "zipped pickle"])
def test_a_checkpoint_that_is_none(ham: Ham, tmp_path: Path, half: Path, kind: str) -> None:
    mark, (older, path) = tmp_path / "exploded", sorted((half / "checkpoints").iterdir())
    older.unlink()
    metrics, good = (half / "metrics.jsonl").read_bytes(), path.read_bytes()
    path.unlink()
    new = half / "checkpoints/new.pt"
    if kind == "foreign":
        torch.save({"model": {"weight": torch.zeros(3)}}, new)
    elif kind == "of another run":
        checkpoint.write(new, "00000000", 3, {})
    elif kind == "pickle":
        new.write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "state": Bomb(mark)}))
    else:
        torch.save({"format": checkpoint.FORMAT, "state": Bomb(mark)}, new)
    bad = new.read_bytes()
    new = new.rename(new.with_name(f"step-00000010-{hashlib.sha256(bad).hexdigest()[:16]}.pt"))
    called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    one_message(called, 1, str(new), "remove the folder checkpoints to start this run anew")
    assert not mark.exists()
    assert new.read_bytes() == bad
    assert (half / "metrics.jsonl").read_bytes() == metrics
    failure = json.loads((half / "failure.json").read_text())
    assert "remove the folder checkpoints" in failure["error"]
    # with the good one back it goes on, and the failure is forgotten
    new.unlink()
    path.write_bytes(good)
    assert ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs").code == 0
    assert resumptions(half) == [10]
    assert not (half / "failure.json").exists()


def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(ham: Ham, tmp_path: Path, half: Path) -> None:
    """One at each epoch's end and one where the run was stopped; the metrics are cut back with the state."""
    spec = tiny_spec(tmp_path)
    train(spec, tmp_path / "whole")
    train_until(spec, half, 16)
    older, newest = sorted((half / "checkpoints").iterdir())
    assert (newest.name[:13], older.name[:13]) == ("step-00000016", "step-00000012")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs").code == 0
    assert resumptions(half) == [10, 12]
    assert "falling back to the checkpoint before it" in (half / "log.txt").read_text()
    assert differing_but_identity(half, tmp_path / "whole") == []
    assert records(half) == records(tmp_path / "whole")


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(ham: Ham, tmp_path: Path, half: Path, keep: int) -> None:
    train(tiny_spec(tmp_path), tmp_path / "whole")
    paths = list((half / "checkpoints").iterdir())
    for path in paths:
        path.write_bytes(path.read_bytes()[:keep])
    called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    assert called.code == 0
    assert all(f"{path}: this checkpoint is damaged" in called.err for path in paths)
    assert resumptions(half) == []
    assert records(half) == records(tmp_path / "whole")
    assert differing_but_identity(half, tmp_path / "whole") == []


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "lost": lambda content: b"",
    "cut": lambda content: content[:-1],
    "no JSON": lambda content: b"\xff" + content[1:],
    "another digit": lambda content: content.replace(b'"loss": 0.', b'"loss": 9.', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metrics_are_named_and_cost_nothing(ham: Ham, tmp_path: Path, half: Path, damage: str) -> None:
    """The checkpoint has what it counts on; figures of the result come from it, not from the damaged file."""
    train(tiny_spec(tmp_path), tmp_path / "whole")
    path, good = half / "metrics.jsonl", (half / "metrics.jsonl").read_bytes()
    path.write_bytes(DAMAGES[damage](good))
    assert path.read_bytes() != good
    called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    assert called.code == 0
    assert f"{path}: is damaged or was changed from outside" in called.err
    assert resumptions(half) == [10]
    assert records(half) == records(tmp_path / "whole")
    assert differing_but_identity(half, tmp_path / "whole") == []


FOREIGN = ["{}", "[]", "7", "null", '{"attempt": "x", "event": "start", "step": 1}', '{"evnt": "end"}', "[" * 9000]


@pytest.mark.parametrize("line", FOREIGN)
def test_a_foreign_line_in_the_ledger_is_named_and_left_out(ham: Ham, tmp_path: Path, half: Path, line: str) -> None:
    path = half / "ledger.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    assert (called.code, resumptions(half)) == (0, [10])
    assert f"{path}:1: " in called.err
    assert "line left out" in called.err


def test_a_damaged_result_is_made_again(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", schedule__epochs=1)
    assert ham("run", config, "--out", tmp_path / "runs").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    whole = result(folder)
    for damage in (b"", b'{"status": "done"', b"\xff\xfe\x00", b"[]"):
        (folder / "result.json").write_bytes(damage)
        assert ham("run", config, "--out", tmp_path / "runs").code == 0
        assert result(folder) == whole


# ---- claims ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_run_that_another_process_writes(ham: Ham, tmp_path: Path, half: Path, neighbour: subprocess.Popen) -> None:
    claimed = {"pid": neighbour.pid, "home": process.home(), "host": "h", "job": None, "restarts": 0}
    (half / "attempts/0002.json").write_text(json.dumps(claimed))
    before = contents(half)
    called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    one_message(called, 2, half.name, f"process {neighbour.pid}", "is writing this run")
    assert contents(half) == before
    neighbour.kill()
    neighbour.wait()
    assert ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs").code == 0
    assert resumptions(half) == [10]
    assert sorted(path.name for path in (half / "attempts").iterdir()) == ["0001.json", "0002.json", "0003.json"]


# ---- disks and numbers -----------------------------------------------------------------------------------------------


def test_a_file_size_limit(ham: Ham, tmp_path: Path, half: Path) -> None:
    """The kernel's own refusal: the checkpoint does not fit, the metrics do."""
    whole = tmp_path / "whole"
    train(tiny_spec(tmp_path), whole)
    path = max((half / "checkpoints").iterdir())
    good = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, limits[1]))
    try:
        called = ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_message(called, 1, half.name, "File too large", "what was finished is kept")
    assert path.read_bytes() == good
    assert not list(half.glob("*.tmp")) + list(half.glob(".*"))
    assert "File too large" in json.loads((half / "failure.json").read_text())["error"]
    assert ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs").code == 0
    assert differing_but_identity(half, whole) == []


def differing_but_identity(folder: Path, whole: Path) -> list[str]:
    one, other = result(folder), result(whole)
    return [key for key in one if one[key] != other[key] and key != "identity"]


@pytest.mark.robust
def test_a_disk_that_is_full_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write and flush fails once, each in its own run; what follows is equal to a run that never failed."""
    spec = tiny_spec(tmp_path, "schedule.epochs=2", "data.batch_size=100", "topology={name: acdc, sparsity: 0.5}")
    calls, broken = 0, -1

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == broken:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return call

    monkeypatch.setattr(files.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(files.JsonLines, "write", failing(files.JsonLines.write))
    train(spec, tmp_path / "whole")
    number = calls
    assert number > 15
    complaints = []
    for broken in range(1, number + 1):
        calls, folder = 0, tmp_path / str(broken)
        complaints += complained(lambda folder=folder: train(spec, folder))
        assert not list(folder.rglob(".*.tmp"))
        train(spec, folder)
        assert not (folder / "failure.json").exists()
        assert_same_run(folder, tmp_path / "whole")
    # what only says how an attempt ended is not worth a run: the last lines of the ledger and of the claim, each in its
    # file and then, for the claim, in its folder
    assert len(complaints) >= number - 3
    assert all("No space left on device; free some space" in text for text in complaints)


def complained(call: Callable[[], Any]) -> list[str]:
    """The failure a call ended with, if it did."""
    try:
        call()
    except RunFailure as failure:
        return [str(failure)]
    return []


def test_a_log_on_a_full_disk_costs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full takes no byte: logging would print a traceback for every line."""
    monkeypatch.setattr("experiments.rundir.log_file._LogFile._open", lambda self: Path("/dev/full").open("a"))  # noqa: SIM115
    spec = tiny_spec(tmp_path)
    runner.run(spec, half, identity_with_data(spec))
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_is_no_number(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", optimizer={"lr": 1.0e30})
    called = ham("run", config, "--out", tmp_path / "runs")
    one_message(called, 1, "the loss is not finite at step 1", "epoch 1", "clip_grad_norm")
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists()
    assert "the loss is not finite" in json.loads((folder / "failure.json").read_text())["error"]
    called = ham("status", tmp_path / "runs")
    assert called.code == 1
    assert "1 failed" in called.out
    assert "the loss is not finite" in called.out


def test_folders_that_cannot_be_written(ham: Ham, tmp_path: Path) -> None:
    """A file stands in the place of the runs folder, of the sweep's and of a run's."""
    single = write_config(tmp_path / "single.yaml", schedule__epochs=1)
    table = write_config(tmp_path / "table.yaml", schedule__epochs=1, sweep={"seeds": [0, 1]})
    (tmp_path / "file").touch()
    one_message(ham("run", single, "--out", tmp_path / "file"), 1, str(tmp_path / "file"), "Not a directory")
    one_message(ham("sweep", table, "--out", tmp_path / "file"), 1, str(tmp_path / "file"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/table").touch()
    one_message(ham("sweep", table, "--out", tmp_path / "runs"), 1, str(tmp_path / "runs/table"))
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_in_the_place_of_one_run_stops_no_other(ham: Ham, tmp_path: Path) -> None:
    table = write_config(tmp_path / "table.yaml", schedule__epochs=1, sweep={"seeds": [0, 1]})
    paths = ham("sweep", table, "--out", tmp_path / "runs", "--dry-run").out.splitlines()
    blocked, free = (Path(path) for path in paths[:2])
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    called = ham("sweep", table, "--out", tmp_path / "runs", "--jobs", 1)
    assert called.code == 1
    assert f"failed {blocked.name}: {blocked}" in called.err
    assert "[Errno" not in called.err
    assert f"1 of 2 runs failed ({blocked.name})" in called.err
    assert result(free)["status"] == "done"
    blocked.unlink()
    assert ham("sweep", table, "--out", tmp_path / "runs", "--jobs", 1).code == 0
    assert result(blocked)["status"] == "done"


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "result.json", "ledger.jsonl", "heartbeat", "spec.yaml"])
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(ham: Ham, tmp_path: Path, name: str, command: str) -> None:
    """Opening it would wait for ever; a link in a shared folder would be written through."""
    config = write_config(
        tmp_path / "a.yaml", schedule__epochs=1, **({"sweep": {"seeds": [0]}} if command == "sweep" else {})
    )
    if command == "sweep":
        (planned,) = ham("sweep", config, "--out", tmp_path / "runs", "--dry-run").out.splitlines()[:1]
        folder = Path(planned)
    else:
        spec = tiny_spec(tmp_path, "schedule.epochs=1")
        folder = tmp_path / "runs" / f"a{folder_suffix(identity_with_data(spec), 0)}"
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    jobs = ["--jobs", 1] if command == "sweep" else []
    called = ham(command, config, "--out", tmp_path / "runs", *jobs)
    assert called.code == (1 if command == "sweep" else 2)
    assert f"{folder / name}: is a pipe, and only a regular file is written over; remove it" in called.err
    (folder / name).unlink()
    assert ham(command, config, "--out", tmp_path / "runs", *jobs).code == 0


@pytest.mark.parametrize("name", ["attempts", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_refused_at_once(ham: Ham, tmp_path: Path, half: Path, name: str) -> None:
    shutil.rmtree(half / name)
    (half / name).touch()
    one_message(ham("run", tmp_path / "tiny.yaml", "--out", tmp_path / "runs"), 2, str(half / name), "is a file where")
