"""`ham clean`: what it removes, and that no result, no resubmission and no job under way misses it."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from fake_runs import fail, forget, interrupt, write_attempt, write_checkpoint, write_submission, write_sweep
from typer.testing import CliRunner

from experiments.cli.main import app
from experiments.cli.tidy import size
from experiments.rundir import process
from results.progress.report import to_json
from results.progress.status import status
from results.runs.store import read
from results.table.formats import render
from slurm import clean
from slurm.scheduler import queue
from slurm.scheduler.parse import Job
from slurm.scheduler.queue import Answer

HERE = process.home()
SNAPSHOTS = {number: f"{number:016x}" for number in range(4)}


class Scheduler:
    """Answers of squeue."""

    jobs: dict[str, Job]


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    fake = Scheduler()
    fake.jobs = {}
    monkeypatch.setattr(queue, "queue", lambda ids=(), names=(): Answer(fake.jobs))
    monkeypatch.setattr(queue, "history", lambda ids=(), names=(): Answer(problem="no accounting"))
    return fake


def put(path: Path, content: str = "x" * 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def submit(sweep: Path, runs: list[Path], number: int) -> Path:
    """A submission of these runs as job 10 + number with snapshot ``number``; the folder of its pickles."""
    identifier = f"{number:08x}"
    snapshot = sweep.parent / ".snapshots" / SNAPSHOTS[number]
    put(snapshot / "ham" / "__init__.py")
    tasks = [[run.name] for run in runs]
    folder = write_submission(sweep, tasks, str(10 + number), identifier, snapshot=str(snapshot), time=900.0 + number)
    for name in ("ab_submitted.pkl", "12_0_0_log.out", "runs.json", "profile.yaml", "99.verdict"):
        put(folder / name)
    return folder


def names(found: clean.Tidying, root: Path) -> set[str]:
    return {str(path.relative_to(root)) for one in found.leftovers for path in one.paths}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "runs" / "demo", {"RiGL": [0.8] * 4}, seeds=range(4))


@pytest.fixture
def paths(sweep: Path) -> list[Path]:
    return [run.path for run in read(sweep).runs]


@pytest.mark.usefixtures("scheduler")
def test_what_a_finished_sweep_leaves(sweep, paths):
    root = sweep.parent
    submit(sweep, paths, 0)
    write_checkpoint(paths[1], 31)
    put(paths[0] / ".result.json.ab12.tmp")
    put(root / ".snapshots" / ".0000000000000009.ab.tmp" / "ham.py")
    put(root / ".snapshots" / "notes" / "mine.txt")
    (root / ".doctor" / "aa").mkdir(parents=True)
    (root / ".doctor" / "bb").mkdir()
    os.utime(root / ".doctor" / "aa", (1e9, 1e9))
    expected = {
        ".snapshots/0000000000000000",
        ".snapshots/.0000000000000009.ab.tmp",
        ".doctor/aa",
        "demo/submissions/00000000/ab_submitted.pkl",
        "demo/submissions/00000000/99.verdict",
        f"demo/{paths[0].name}/.result.json.ab12.tmp",
        f"demo/{paths[1].name}/checkpoints/step-00000031-0000000000000000.pt",
    }
    for arguments in ([sweep], [root], [root, sweep]):
        found = clean.look(arguments)
        assert (names(found, root), found.kept) == (expected, ())
    freed, problems = clean.remove(found, [root])
    assert (freed, problems) == (found.size, [])
    assert clean.look([root]).leftovers == ()
    assert (root / ".snapshots" / "notes" / "mine.txt").exists()
    assert (sweep / "submissions" / "00000000" / "runs.json").exists()


def test_a_snapshot_stays_while_any_sweep_of_the_folder_has_an_unfinished_run_of_it(sweep, paths, scheduler):
    other = write_sweep(sweep.parent / "other", {"RiGL": [0.8] * 2}, seeds=range(2))
    first, second = (run.path for run in read(other).runs)
    submit(sweep, paths, 0)
    submit(other, [first, second], 0)
    fail(first, "a loss that is not a number")
    assert SNAPSHOTS[0] not in str(names(clean.look([sweep]), sweep.parent))
    put(other / "submissions" / "ffffffff.json", "{")
    shutil.rmtree(first)
    assert "ffffffff.json" in clean.look([sweep]).kept[0]


def test_a_submission_in_progress_keeps_the_snapshots(sweep, paths, scheduler):
    submit(sweep, paths, 0)
    found = clean.look([sweep])
    assert f".snapshots/{SNAPSHOTS[0]}" in names(found, sweep.parent)
    snapshot = sweep.parent / ".snapshots" / SNAPSHOTS[0]
    write_attempt(sweep, pid=os.getpid(), home=HERE)
    assert SNAPSHOTS[0] not in str(names(clean.look([sweep]), sweep.parent))
    assert clean.look([sweep]).kept[0].endswith("is being submitted")
    clean._remove(snapshot)
    assert (snapshot / "ham" / "__init__.py").exists(), "put back: the submission may have chosen it"
    assert len(list(snapshot.parent.iterdir())) == 1


def test_the_pickle_of_a_job_that_waits_stays_also_when_its_run_is_done(sweep, paths, scheduler):
    folder = submit(sweep, paths[:1], 0)
    scheduler.jobs = {"10": Job("10", "10", "ham-demo-00000000-0", "PENDING")}
    assert str(folder) not in str(clean.look([sweep]).leftovers)
    scheduler.jobs = {}
    assert str(folder) in str(clean.look([sweep]).leftovers)


@pytest.mark.usefixtures("scheduler")
def test_what_begins_after_the_question_stays(sweep, paths):
    folder = submit(sweep, paths[:1], 0)
    found = clean.look([sweep])
    interrupt(paths[0])
    write_attempt(paths[0], 2, pid=os.getpid(), home=HERE)
    clean.remove(found, [sweep])
    assert (folder / "ab_submitted.pkl").exists()
    assert (sweep.parent / ".snapshots" / SNAPSHOTS[0]).exists()


@pytest.mark.usefixtures("scheduler")
def test_links_are_not_followed(sweep, paths, tmp_path):
    precious = put(tmp_path / "elsewhere" / "step-00000001-0000000000000000.pt")
    (paths[0] / "checkpoints").symlink_to(precious.parent)
    (sweep.parent / ".snapshots").mkdir()
    (sweep.parent / ".snapshots" / SNAPSHOTS[1]).symlink_to(precious.parent)
    assert clean.look([sweep.parent]).leftovers == ()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def build(root: Path, seed: int) -> dict[str, Job]:
    """Sweeps whose runs are in states drawn at random, with submissions, checkpoints and leftovers; the queue."""
    draw = random.Random(seed)
    jobs: dict[str, Job] = {}
    for name in ("one", "two"):
        sweep = write_sweep(root / name, {"RiGL": [0.8] * 5, "Dense": [0.9] * 5}, seeds=range(5))
        runs = [run.path for run in read(sweep).runs]
        for number in range(2):
            some = draw.sample(runs, draw.randint(1, 6))
            submit(sweep, some, draw.randint(0, 3) if name == "one" else number)
        for run in runs:
            kind = draw.choice(["done", "done", "failed", "forgotten", "stopped", "running", "leftover"])
            if kind == "failed":
                fail(run, "no")
            elif kind == "forgotten":
                forget(run)
            elif kind == "stopped":
                interrupt(run)
                write_checkpoint(run, 12)
            elif kind == "running":
                interrupt(run)
                write_attempt(run, 2, pid=os.getpid(), home=HERE)
                put(run / "checkpoints" / ".step.ab.tmp")
            elif kind == "leftover":
                write_checkpoint(run, 31)
                put(run / ".ledger.jsonl.ab.tmp")
        for number in range(4):
            if draw.random() < 0.3:
                job = Job(f"{10 + number}_0", str(10 + number), f"ham-{name}-{number:08x}-0", "PENDING")
                jobs[job.id] = job
    return jobs


@pytest.mark.parametrize("seed", range(8))
def test_nothing_that_is_shown_resumed_or_submitted_again_changes(tmp_path, scheduler, seed, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.8e9)
    root = tmp_path / "runs"
    scheduler.jobs = build(root, seed)
    sweeps = [root / "one", root / "two"]
    shown = [(render(one, "csv"), {**to_json(status(one)), "time": 0}) for one in sweeps]
    before = tree(root)
    called = CliRunner().invoke(app, ["clean", str(root), "--yes"])
    assert called.exit_code == 0, called.output
    after = tree(root)
    assert shown == [(render(one, "csv"), {**to_json(status(one)), "time": 0}) for one in sweeps]
    gone = before.keys() - after.keys()
    assert after == {name: content for name, content in before.items() if name not in gone}
    for one in sweeps:
        for run in status(one).runs:
            if run.state != "done":
                kept = {name for name in before if name.startswith(f"{one.name}/{run.path.name}/")}
                assert not {name for name in kept & gone if not name.endswith(".tmp")}, "a run goes on from these"
            if run.state in clean.UNDER_WAY:
                assert not any(name.startswith(f"{one.name}/{run.path.name}/") for name in gone)
    needed = {
        task.logs.name for one in sweeps for task in clean.submissions(one).tasks if task in clean._queued([task])
    }
    assert not any(name.split("/")[2:3] == [logs] for name in gone for logs in needed)
    assert CliRunner().invoke(app, ["clean", str(root), "--yes"]).output.endswith("nothing to remove\n")


@pytest.mark.usefixtures("scheduler")
def test_it_asks_and_without_a_terminal_it_refuses(sweep, paths, monkeypatch):
    submit(sweep, paths, 0)
    before = tree(sweep.parent)
    called = CliRunner().invoke(app, ["clean", str(sweep)])
    assert (called.exit_code, str(called.exception)) == (
        1,
        "ham clean: nothing was removed, since nobody can be asked here; --yes removes it",
    )
    assert "1.0 kB" in called.output
    assert "no unfinished run was submitted with it" in called.output
    assert "2.0 kB" in called.output
    monkeypatch.setattr("experiments.cli.tidy.sys", type("sys", (), {"stdin": Terminal()}))
    called = CliRunner().invoke(app, ["clean", str(sweep)], input="n\n")
    assert "remove these, 3.0 kB in all? [y/N]: n\nnothing was removed\n" in called.output
    assert tree(sweep.parent) == before
    called = CliRunner().invoke(app, ["clean", str(sweep)], input="y\n")
    assert called.output.endswith("3.0 kB removed\n")


class Terminal:
    """A standard input that somebody sits at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("scheduler")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_said(sweep, paths):
    folder = submit(sweep, paths, 0)
    folder.chmod(0o555)
    called = CliRunner().invoke(app, ["clean", str(sweep), "--yes"])
    folder.chmod(0o755)
    assert "not all could be removed: " in str(called.exception)


def test_sizes():
    assert [size(number) for number in (0, 999, 7.9e6, 2e9, 3e12)] == ["0 B", "999 B", "7.9 MB", "2.0 GB", "3.0 TB"]
