"""One process writes a run: whoever lost it ends at once, and whoever waits for it learns whose it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Ham
from processes import HAM, Command, wait_for
from small_runs import (
    assert_same_run,
    contents,
    result,
    resumptions,
    tiny_spec,
    train,
    train_until,
    write_config,
)

from experiments.errors import ClaimLost
from experiments.launch import local
from experiments.rundir import attempts, holder, process, waiting


def at_step(number: int, act: Callable[[], object]) -> Callable[[int, int], None]:
    return lambda done, total: act() and None if done == number else None


def test_a_run_whose_folder_is_removed_ends_at_once(tmp_path: Path) -> None:
    folder, steps = tmp_path / "run", []

    def progress(done: int, total: int) -> None:
        steps.append(done)
        if done == 8:
            shutil.rmtree(folder)

    with pytest.raises(ClaimLost, match=r"run: the folder of this run has been removed .* writes nothing more"):
        train(tiny_spec(tmp_path), folder, progress=progress)
    assert steps == list(range(1, 9))
    assert not folder.exists()


def test_a_run_whose_folder_is_moved_writes_no_checkpoint_anywhere(tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    seen: dict[str, bytes] = {}

    def move() -> None:
        folder.rename(moved)
        seen.update(contents(moved, lambda path: "checkpoints" in path.parts))

    with pytest.raises(ClaimLost, match="removed or moved away"):
        train(tiny_spec(tmp_path), folder, progress=at_step(8, move))
    assert not folder.exists()
    assert contents(moved, lambda path: "checkpoints" in path.parts) == seen
    assert not list(moved.glob("*.json")) or not (moved / "result.json").exists()


def test_a_run_that_was_taken_over_ends_at_once_and_leaves_it_alone(tmp_path: Path) -> None:
    """It slept for long, and another process, on another machine, has gone on from its checkpoint meanwhile."""
    spec, folder, whole = tiny_spec(tmp_path), tmp_path / "run", tmp_path / "whole"
    train(spec, whole)
    left: dict[str, bytes] = {}

    def take_over() -> None:
        path = folder / "attempts/0001.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"home": "another boot pid:[1]"}))
        os.utime(path, (path.stat().st_mtime - holder.LEASE - 1,) * 2)
        train(spec, folder)
        left.update(contents(folder))

    with pytest.raises(ClaimLost, match="has taken this run over"):
        train(spec, folder, progress=at_step(8, take_over))
    kept = contents(folder)
    for own in ("log.txt", "attempts/0001.json"):  # of the first process alone, or of both
        del left[own], kept[own]
    assert kept == left
    assert result(folder) == result(whole)
    assert json.loads(kept["attempts/0002.json"])["reason"] == "done"


# ---- a start that the scheduler has given up, and that lives ---------------------------------------------------------

ORPHAN = """
import sys, time
from pathlib import Path
from small_runs import tiny_spec, train
from experiments.rundir import attempts

attempts.BEAT = 0.1
folder = Path(sys.argv[1])

def hold(done, total):
    if done == 8:
        (folder / "held").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)

train(tiny_spec(folder, "checkpoint.every_steps=5"), folder / "run", progress=hold)
"""


@pytest.mark.robust
@pytest.mark.skipif(process.home() is None, reason="needs /proc")
@pytest.mark.parametrize("asleep", [False, True])
def test_a_restarted_job_and_the_living_process_of_its_former_start(
    tmp_path: Path, asleep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start tells the first one and waits for its end, or for the end of its signs of life."""
    spec, folder, whole = tiny_spec(tmp_path, "checkpoint.every_steps=5"), tmp_path / "run", tmp_path / "whole"
    train(spec, whole)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    job = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "0", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = {**os.environ, "PYTHONPATH": paths, **job}
    orphan = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, tmp_path], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for((tmp_path / "held").exists, "step 8")
        monkeypatch.setenv("SLURM_JOB_ID", "5")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        if asleep:
            monkeypatch.setattr(holder, "LEASE", 1.0)
            orphan.send_signal(signal.SIGSTOP)
            train(spec, folder)
            left = contents(folder)
            orphan.send_signal(signal.SIGCONT)
            (tmp_path / "go").touch()
        else:
            sleep = waiting.time.sleep
            monkeypatch.setattr(waiting.time, "sleep", lambda seconds: (tmp_path / "go").touch() or sleep(seconds))
            train(spec, folder)
            left = contents(folder)
        said = orphan.communicate(timeout=60)[1]
    finally:
        orphan.kill()
    assert f"process {os.getpid()} on " in said
    assert "has taken this run over; this process ends and writes nothing more" in said
    assert contents(folder) == left
    assert_same_run(folder, whole)
    steps = [json.loads(line) for line in left["ledger.jsonl"].splitlines()]
    told = [(one["attempt"], one["event"], one["step"]) for one in steps]
    assert told[:3] == [(1, "start", 0), (1, "checkpoint", 5), (1, "checkpoint", 6)]
    assert told[3][:2] == (1, "lost")
    assert 8 <= told[3][2] <= 10, "at the latest at the next checkpoint"
    assert {attempt for attempt, _, _ in told[4:]} == {2}
    first, second = (json.loads(left[f"attempts/000{number}.json"]) for number in (1, 2))
    assert first["reason"] == "lost"
    assert first["ended"] <= second["time"]


# ---- containers: namespaces of their own for process numbers and host names ------------------------------------------

CAN_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "-u", "true"], capture_output=True).returncode
    == 0
)
in_containers = pytest.mark.skipif(not CAN_UNSHARE, reason="namespaces need root")
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
LONG = {"model": {"name": "resnet8"}, "schedule__epochs": 30, "checkpoint": {"every_steps": 20}}


def started(folder: Path, *arguments: object, inside: tuple[str, ...] = CONTAINER) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*inside, HAM, *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.robust
@in_containers
def test_a_living_process_of_another_container_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Two pid namespaces under one host name: neither sees the other's processes."""
    config = write_config(tmp_path / "one.yaml", **LONG | {"schedule__epochs": 4000})
    arguments = ("run", config, "--out", tmp_path / "runs")
    first = started(tmp_path, *arguments)
    try:
        wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/*.pt")), "a checkpoint")
        (folder,) = (tmp_path / "runs").iterdir()
        # the second one waits for a sign of life, which comes within a beat
        said, _ = started(tmp_path, *arguments).communicate(timeout=3 * attempts.BEAT + 60)
        assert "is writing this run since" in said
        assert "the run is taken over" in said
        assert sorted(path.name for path in (folder / "attempts").iterdir()) == ["0001.json"]
    finally:
        first.kill()  # and with it the first process of its namespace, which ends all others of it
        first.wait(60)


@pytest.mark.robust
@in_containers
@pytest.mark.timeout(400)
def test_a_container_that_is_killed_and_comes_back_under_another_name_goes_on(tmp_path: Path) -> None:
    arguments = ("run", write_config(tmp_path / "one.yaml", **LONG), "--out", tmp_path / "runs")
    with Command(tmp_path, *arguments) as command:
        wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/*.pt")), "a checkpoint")
        command.kill()
    (folder,) = (tmp_path / "runs").iterdir()
    begun = time.monotonic()
    renamed = (*CONTAINER, "-u", "sh", "-c", 'hostname pod-2; exec "$@"', "sh")
    said, _ = started(tmp_path, *arguments, inside=renamed).communicate(timeout=300)
    assert "accuracy" in said, said
    assert time.monotonic() - begun > holder.LEASE / 2
    assert len(resumptions(folder)) == 1
    events = Counter(json.loads(line)["event"] for line in (folder / "ledger.jsonl").read_text().splitlines())
    assert (events["start"], events["lost"], events["end"]) == (2, 1, 1)


# ---- one folder, several commands ------------------------------------------------------------------------------------


def table(folder: Path) -> tuple[object, ...]:
    sweep = {"rows": {"A": {}, "B": {"optimizer.lr": 0.05}}, "seeds": [0, 1]}
    return ("sweep", write_config(folder / "t.yaml", sweep=sweep), "--out", folder / "runs", "--jobs", 1)


@pytest.mark.robust
def test_two_sweeps_of_one_folder_share_the_work_and_both_end_well(tmp_path: Path) -> None:
    with Command(tmp_path, *table(tmp_path)) as one, Command(tmp_path, *table(tmp_path)) as two:
        codes = [command.process.wait(200) for command in (one, two)]
    assert codes == [0, 0], one.err + two.err
    assert "failed" not in one.err + two.err
    assert len(list(tmp_path.glob("runs/t/*/result.json"))) == 4
    trained = [path for path in tmp_path.glob("runs/t/*/ledger.jsonl") if path.read_text().count('"start"') != 1]
    assert trained == []


def test_a_sweep_waits_for_a_run_of_another_process_and_takes_it_over_if_that_one_dies(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ham(*table(tmp_path)).code == 0
    (folder,) = (tmp_path / "runs/t").glob("b-*-s1")
    (folder / "result.json").unlink()
    with subprocess.Popen(["sleep", "60"]) as neighbour:
        owner = attempts.newest(folder) or {}
        del owner["ended"], owner["reason"]
        started_at = process.started(neighbour.pid)
        (folder / "attempts/0002.json").write_text(
            json.dumps({**owner, "attempt": 2, "pid": neighbour.pid, "started": started_at})
        )
        waited = []

        def sleep(_: float) -> None:
            waited.append(len(list(folder.glob("attempts/*"))))
            neighbour.kill()
            neighbour.wait()

        monkeypatch.setattr(local.time, "sleep", sleep)
        called = ham(*table(tmp_path))
    assert waited == [2]
    assert called.code == 0
    assert f"waiting for {folder}: process {neighbour.pid} on " in " ".join(called.err.split())
    assert (attempts.newest(folder) or {})["attempt"] == 3


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param("sweep", signal.SIGTERM, marks=pytest.mark.robust),
        pytest.param("sweep", signal.SIGHUP, marks=pytest.mark.robust),
        pytest.param("run", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("run", signal.SIGHUP, marks=pytest.mark.robust),
    ],
)
def test_signals_save_and_end_like_ctrl_c(ham: Ham, tmp_path: Path, number: signal.Signals, kind: str) -> None:
    sweep = {"sweep": {"rows": {"A": {}}, "seeds": [0]}} if kind == "sweep" else {}
    config = write_config(tmp_path / "t.yaml", **LONG | {"schedule__epochs": 4000}, **sweep)
    with Command(tmp_path, kind, config, "--out", tmp_path / "runs") as command:
        wait_for(lambda: list(tmp_path.rglob("runs/**/checkpoints/*.pt")), "a checkpoint")
        command.process.send_signal(number)
        assert command.process.wait(60) == 130
        assert "the same command" in command.err
        wait_for(lambda: not command.members(), "the end of all its processes")
    (folder,) = (path.parent for path in tmp_path.rglob("ledger.jsonl"))
    assert (attempts.newest(folder) or {})["reason"] == "stopped"


def test_a_group_may_go_on_with_the_files_of_a_member(tmp_path: Path) -> None:
    """Every file and folder of a run is open to the group where the umask says so."""
    before = os.umask(0o002)
    try:
        train_until(tiny_spec(tmp_path), tmp_path / "run", 8)
        half = closed(tmp_path / "run")
        train(tiny_spec(tmp_path), tmp_path / "run")
    finally:
        os.umask(before)
    assert half + closed(tmp_path / "run") == []


def closed(folder: Path) -> list[str]:
    return [path.name for path in [folder, *folder.rglob("*")] if not path.stat().st_mode & stat.S_IWGRP]


def test_the_log_of_a_lost_run_comes_to_an_end(ham: Ham, tmp_path: Path) -> None:
    config = write_config(tmp_path / "one.yaml", **LONG | {"schedule__epochs": 4000})
    with Command(tmp_path, "run", config, "--out", tmp_path / "runs") as command:
        wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/*.pt")), "a checkpoint")
        command.kill()
    called = ham("logs", tmp_path / "runs", "--follow")
    (folder,) = (tmp_path / "runs").iterdir()
    assert called.code == 0
    assert "started" in called.out
    assert re.fullmatch(rf"{folder.name} is lost: process \d+ on .* died\n", called.err)
