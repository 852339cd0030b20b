"""Parts of a sweep, runs that another sweep has finished, and the log of a sweep without a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, command, one_message
from small_runs import contents, write_config

import results
from experiments.launch import elsewhere, local
from experiments.rundir.result import seal

SPARSE = {"topology": {"name": "random", "sparsity": 0.5}}
HALF_HAM = {**SPARSE, "optimizer.ham": {"alpha": 20.0}}
ROWS: dict[str, Any] = {"Dense": {}, "Random": SPARSE, "Random + HAM": HALF_HAM}


def config_of(folder: Path, name: str = "small", rows: dict[str, Any] = ROWS, **changes: Any) -> Path:
    sweep = {"rows": rows, "seeds": [0, 1], "columns": {"topology.sparsity": [0.5, 0.8]}}
    return write_config(folder / f"{name}.yaml", schedule__epochs=1, sweep=sweep, **changes)


def test_a_sweep_without_a_terminal_writes_a_line_for_each_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, rows={"Dense": {}, "Bad": {"optimizer.lr": 1.0e30}, "Random": SPARSE})
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "experiments.cli",
                "sweep",
                config,
                "--jobs",
                "1",
                "--rows",
                "Dense",
                "--rows",
                "Bad",
            ],
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"},
        )
    text = (tmp_path / "log").read_text()
    assert done.returncode == 1
    assert text.isprintable() or set(text) - {"\n"} == {char for char in text if char.isprintable()}
    said = text.splitlines()
    time = r"(less than a second|\d+ s|\d+ min)"
    assert re.fullmatch(rf"\[1/4\] dense-\w+-s0: \d+\.\d % after {time}; {time} left", said[0])
    assert re.fullmatch(rf"\[3/4\] bad-.*: failed after {time}: .*the loss is not finite.*; {time} left", said[2])
    assert re.fullmatch(r"\[4/4\] bad-.*", said[3])
    assert len(said) == 5
    assert said[4].startswith("error: ")


# ---- parts -----------------------------------------------------------------------------------------------------------


def finished(runs: Path) -> list[str]:
    return sorted(re.sub(r"-[0-9a-f]{8}", "", path.parent.name) for path in runs.glob("*/result.json"))


def test_a_part_is_trained_and_the_table_stays_the_whole_one(ham: Ham, tmp_path: Path) -> None:
    config, folder = config_of(tmp_path), tmp_path / "runs/small"
    words = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
    part = ("--rows", "Random + HAM", "--rows", "Dense", "--seeds", "1")
    listed = ham(*words, *part, "--dry-run").out.splitlines()
    assert listed[-1] == "3 of 3 runs to do (rows Random + HAM, Dense; seeds 1; the table has 10)"
    assert not folder.exists()
    called = ham(*words, *part)
    assert called.code == 0
    assert called.out.splitlines() == [
        f"{folder}: 3 runs complete; `ham table {folder}` shows the table",
        "this was a part: rows Random + HAM, Dense; seeds 1; 7 of all 10 runs of the table have no result yet",
    ]
    assert finished(folder) == ["dense-s1", "random-ham-0.5-s1", "random-ham-0.8-s1"]
    manifest = (folder / "sweep.json").read_bytes()
    assert len(json.loads(manifest)["cells"]) == 12
    assert "10 runs, 3 done, 7 not started" in ham("status", folder).out
    assert "Unfinished" in ham("table", folder).out
    # a second part, by number, and the rest
    assert ham("run-cell", config, "--out", tmp_path / "runs", "--rows", "Random", "--count").out == "4\n"
    assert ham("run-cell", config, 3, "--out", tmp_path / "runs", "--rows", "Random").code == 0
    assert finished(folder)[-1] == "random-ham-0.8-s1"
    assert "random-0.8-s1" in finished(folder)
    assert (folder / "sweep.json").read_bytes() == manifest
    assert ham(*words, "--seeds", "0-1", "--dry-run").out.splitlines()[-1] == (
        "6 of 10 runs to do (seeds 0-1; the table has 10)"
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            ("--rows", "Random+HAM"),
            "--rows: 'Random+HAM' is not a row; rows: Dense, Random, Random + HAM; did you mean",
        ),
        (("--seeds", "2"), "--seeds: 2 is not a seed; seeds: 0, 1 (sweep.seeds has them)"),
        (("--seeds", "0-99999999999"), "--seeds: 2 is not a seed; seeds: 0, 1"),
        (("--seeds", "1-0"), "--seeds: '1-0' is neither a seed nor a range; write them as in 0,2-4"),
        (("--seeds", "0,"), "--seeds: '' is neither a seed nor a range"),
        (("--reuse", "gone"), "--reuse: gone is no folder; give one of runs or sweeps"),
        (("--reuse", ".", "--no-reuse"), "--reuse: excludes --no-reuse; give one"),
    ],
)
def test_a_part_that_is_none_is_refused_before_anything_starts(
    ham: Ham, tmp_path: Path, part: tuple[str, ...], said: str
) -> None:
    one_message(ham("sweep", config_of(tmp_path), "--out", tmp_path / "runs", *part), 2, f"error: {said}")
    if part[0] != "--reuse":
        one_message(ham("run-cell", config_of(tmp_path), 0, "--out", tmp_path / "runs", *part), 2, f"error: {said}")
    assert not (tmp_path / "runs").exists()


# ---- runs that another sweep has trained -----------------------------------------------------------------------------

SEALED = ("metrics.jsonl", "weights.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep of the row Random, seed 0, at two sparsities; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    config = config_of(folder, "one", {"Random": SPARSE})
    assert command("sweep", config, "--out", folder / "runs", "--jobs", 2, "--seeds", 0) == 0
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "runs", tmp_path / "runs"))


def another(folder: Path, **changes: Any) -> tuple[object, ...]:
    """A sweep in which the same runs have another label, beside one that only it has."""
    config = config_of(folder, "two", {"Pruned at random": SPARSE, "Dense": {}}, **changes)
    return ("sweep", config, "--out", folder / "runs", "--jobs", 1, "--seeds", 0)


def test_a_finished_run_of_another_sweep_is_not_trained_again(
    ham: Ham, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = ham(*another(tmp_path), "--dry-run")
    assert listed.out.splitlines()[-1] == "1 of 3 runs to do (seeds 0; the table has 6)"
    assert listed.err.count(": would be reused from ") == 2
    assert not (runs / "two").exists()
    called = ham(*another(tmp_path))
    assert called.code == 0
    assert (
        f"{runs / 'two'}: 2 runs are reused from {runs / 'one'}, not trained again (--no-reuse trains)" in caplog.text
    )
    assert re.findall(r"\[\d/\d\] (\w+)", called.err) == ["dense"]
    for source in (runs / "one").glob("random-*"):
        copy = runs / "two" / source.name.replace("random", "pruned-at-random")
        mine, theirs = (json.loads((path / "result.json").read_text()) for path in (copy, source))
        assert mine.pop("reused_from") == str(source.resolve())
        assert mine.pop("checksum") != theirs.pop("checksum")
        assert mine == theirs
        assert all((copy / name).read_bytes() == (source / name).read_bytes() for name in (*SEALED, "environment.json"))
        assert (copy / "weights.pt").samefile(source / "weights.pt")
        assert "label: Pruned at random" in (copy / "spec.yaml").read_text()
        assert not (copy / "ledger.jsonl").exists()
    # what reads runs takes them for what they are
    assert "3 done" in ham("status", runs / "two").out
    table = ham("table", runs / "two", "--verify")
    assert table.code == 0, table.err
    said = f"Trained for another sweep and reused from its folder, not trained again: {runs / 'one'} ("
    assert said in " ".join(table.out.split())
    assert ham("archive", runs / "two", "--output", tmp_path / "two.ham.zip").code == 0
    assert said in " ".join(ham("table", tmp_path / "two.ham.zip").out.split())
    assert len(results.load(runs / "one", runs / "two")) == 4 + 8 - 4
    assert ham("clean", runs / "two", "--yes").code == 0
    before = contents(runs / "two")
    assert ham(*another(tmp_path)).code == 0
    assert contents(runs / "two") == before
    # a copy of a copy names the folder that trained it, and outlives the first one
    shutil.rmtree(runs / "one")
    config = config_of(tmp_path, "three", {"Third": SPARSE})
    assert ham("sweep", config, "--out", tmp_path / "elsewhere", "--reuse", runs, "--seeds", 0).code == 0
    origins = {json.loads(path.read_text())["reused_from"] for path in tmp_path.glob("elsewhere/*/*/result.json")}
    assert {str(Path(origin).parent) for origin in origins} == {str((runs / "one").resolve())}


def test_no_reuse_trains_again(ham: Ham, runs: Path, tmp_path: Path) -> None:
    called = ham(*another(tmp_path), "--no-reuse")
    assert called.code == 0
    assert called.err.count("[") == 3
    assert not any("reused_from" in path.read_text() for path in (runs / "two").glob("*/result.json"))


def _cut(source: Path) -> str:
    (source / "weights.pt").write_bytes(b"cut")
    return "is not reused: weights.pt is not the file that the run left"


def _without_weights(source: Path) -> str:
    (source / "weights.pt").unlink()
    return "is not reused: it has no weights.pt"


def _damaged(source: Path) -> str:
    text = (source / "result.json").read_text()
    (source / "result.json").write_text(text.replace('"loss"', '"lost"'))
    return "it counts as no result"


def _foreign(source: Path) -> str:
    found = json.loads((source / "result.json").read_text())
    found["identity"] = found["identity"][:8] + "0" * 56
    (source / "result.json").write_text(json.dumps(seal(found, source)))
    return "is not reused: it is another run, whose identity begins with the same digits"


@pytest.mark.parametrize("harm", [_cut, _without_weights, _damaged, _foreign])
def test_what_cannot_be_trusted_is_left_and_trained(
    ham: Ham, runs: Path, tmp_path: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    said = [harm(source) for source in sorted((runs / "one").glob("random-*"))]
    called = ham(*another(tmp_path), "--rows", "Pruned at random")
    assert called.code == 0
    assert caplog.text.count(said[0]) == 2
    assert len(re.findall(r"\[\d/\d\] ", called.err)) == 2
    found = [json.loads(path.read_text()) for path in (runs / "two").glob("*/result.json")]
    assert len(found) == 2
    assert not any("reused_from" in one for one in found)


def test_one_that_was_evaluated_without_what_is_asked_for_is_trained(
    ham: Ham, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ham(*another(tmp_path, evaluate__predictions=True), "--rows", "Pruned at random")
    assert caplog.text.count("it has no predictions.npz, since it was evaluated without evaluate.predictions") == 2
    assert len(list((runs / "two").glob("*/predictions.npz"))) == 2


def test_a_kill_while_a_run_is_taken_over_leaves_no_result(
    ham: Ham, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(elsewhere, "seal", full)
        patch.setattr(local, "run_all", lambda tasks, *_: {})
        patch.setattr(local, "_when_free", lambda *_: ([], []))
        ham(*another(tmp_path))
    assert caplog.text.count("is not reused: [Errno 28]") == 2
    assert finished(runs / "two") == []
    assert not list((runs / "two").rglob("*.tmp")) + list((runs / "two").rglob("weights.pt"))
    assert ham(*another(tmp_path)).code == 0
    assert finished(runs / "two") == ["dense-s0", "pruned-at-random-0.5-s0", "pruned-at-random-0.8-s0"]


def test_a_run_that_was_begun_is_filled_from_elsewhere(ham: Ham, runs: Path, tmp_path: Path) -> None:
    (begun,) = (runs / "one").glob("random-0.5-*")
    target = runs / "two" / begun.name.replace("random", "pruned-at-random")
    target.mkdir(parents=True)
    (target / "log.txt").write_text("the first attempt\n")
    (target / "failure.json").write_text('{"status": "failed", "error": "no"}')
    assert ham(*another(tmp_path), "--rows", "Pruned at random").code == 0
    assert (target / "log.txt").read_text() == "the first attempt\n"
    assert not (target / "failure.json").exists()
    assert "2 done" in ham("status", runs / "two").out


@pytest.mark.parametrize("moment", range(5))
def test_a_sweep_that_is_killed_while_it_takes_runs_over_goes_on(
    ham: Ham, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Killed before a file, or before the result: no result is there yet, and the next command fills the folder."""
    count = 0

    def killed(given: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal count
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return given(*arguments)

        return step

    if (child := os.fork()) == 0:
        for name in ("_duplicate", "seal", "write_json"):
            monkeypatch.setattr(elsewhere, name, killed(getattr(elsewhere, name)))
        command(*another(tmp_path))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert finished(runs / "two") == []
    assert ham(*another(tmp_path), "--rows", "Pruned at random").code == 0
    taken = [json.loads(path.read_text()) for path in (runs / "two").glob("*/result.json")]
    assert [one["reused_from"].startswith(str(runs.resolve() / "one")) for one in taken] == [True, True]
    assert not list((runs / "two").rglob("*.tmp"))
