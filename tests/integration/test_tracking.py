"""W&B mirrors a run line by line, can neither change it nor stop it, and what it missed is sent later.

The package is the real one; its offline files are read value by value, and its server is one of this process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, one_message
from processes import PATIENCE, Command, wait_for
from ranks import train_on
from small_runs import (
    differing,
    records,
    resumptions,
    tiny_spec,
    train,
    train_in_pieces,
    train_until,
    weights,
    write_config,
)
from wandb_files import Offline, offline_files, read_offline
from wandb_server import Server, ServerRun, own, serving

from experiments.config.schema import Spec
from experiments.config.yaml_text import read_mapping
from experiments.rundir import attempts
from experiments.tracking import metrics
from experiments.tracking.content import content

pytest.importorskip("wandb")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are followed through /proc")

RIGL_HAM = ("topology={name: rigl, sparsity: 0.9, update_every: 4}", "optimizer.ham={alpha: 2.0}")


def tracked(folder: Path, mode: str = "offline", *overrides: str) -> Spec:
    return tiny_spec(folder, *RIGL_HAM, f"tracking.wandb={mode}", *overrides)


def lines(folder: Path) -> list[dict[str, Any]]:
    """What W&B must have of a run: a row for each line, in order."""
    return [metrics.row(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def warnings(folder: Path) -> list[str]:
    return [line.split(" WARNING ")[1] for line in (folder / "log.txt").read_text().splitlines() if " WARNING " in line]


def the_record(folder: Path) -> Offline:
    """The only offline record that `wandb sync` would take."""
    (path,) = offline_files(folder)
    return read_offline(path)


def complete(folder: Path, run: ServerRun) -> None:
    """The server has every line of a finished run once, and what tables read of its result."""
    assert run.history == lines(folder)
    assert run.repeated == []
    assert own(run.summary) == metrics.summary(json.loads((folder / "result.json").read_text()))
    assert run.exit_code == 0
    assert run.config["identity"] == json.loads((folder / "result.json").read_text())["identity"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that this process and its children log to."""
    with serving(Server()) as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same run without W&B."""
    train(tiny_spec(tmp_path, *RIGL_HAM), tmp_path / "plain")
    return tmp_path / "plain"


def descendants(pid: int, word: str) -> list[int]:
    """Processes below one, with a word in their command line."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(child) for path in children for child in path.read_text().split()]
    named = [one for one in direct if word.encode() in Path(f"/proc/{one}/cmdline").read_bytes()]
    return named + [one for child in direct for one in descendants(child, word)]


def test_an_offline_record_is_the_run(tmp_path: Path, plain: Path) -> None:
    """Value by value, in one piece though the run was not, HAM's looks before the events of their step."""
    spec = tracked(tmp_path)
    train_in_pieces(spec, tmp_path / "run", [10])
    assert resumptions(tmp_path / "run") == [10]
    assert warnings(tmp_path / "run") == warnings(plain)
    found, about = the_record(tmp_path / "run"), content(tmp_path / "run")
    assert found.history == lines(tmp_path / "run")
    assert all("epoch" in row and "train/step" in row for row in found.history)
    wanted = metrics.summary(json.loads((tmp_path / "run/result.json").read_text()))
    assert {key: value for key, value in found.summary.items() if not key.startswith("_")} == wanted
    assert found.config == json.loads(json.dumps(about.config))
    assert (found.about.run_id, found.about.display_name, found.about.run_group) == (about.id, about.name, about.group)
    assert (found.about.job_type, list(found.about.tags), found.about.project) == ("tune", about.tags, "ham-suite")
    assert found.exit_code == 0
    assert differing(weights(tmp_path / "run"), weights(plain)) == []
    assert records(tmp_path / "run") == records(plain)


def test_a_run_in_pieces_is_one_run_at_the_server(tmp_path: Path, server: Server) -> None:
    """It goes on from the server's own count; a push afterwards finds nothing to send, and sends nothing twice."""
    spec = tracked(tmp_path, "auto")
    train_until(spec, tmp_path / "run", 10)
    (run,) = server.runs.values()
    assert run.history == lines(tmp_path / "run") != []
    assert run.exit_code == 1
    train(spec, tmp_path / "run")
    complete(tmp_path / "run", run)
    assert list(server.runs) == [content(tmp_path / "run").id]
    assert "rewritten_from" not in run.config


@pytest.mark.robust
def test_a_sweep_and_another_one_of_the_same_runs(ham: Ham, tmp_path: Path, server: Server) -> None:
    """Workers of the fork server mirror their runs; the second sweep trains none of the first's, and has its own."""
    for name in ("one", "two"):
        config = write_config(
            tmp_path / f"{name}.yaml",
            schedule__epochs=1,
            tracking={"wandb": "auto"},
            sweep={
                "rows": {"RiGL": {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 2}}},
                "columns": {"topology.sparsity": [0.8, 0.9]} if name == "one" else {"topology.sparsity": [0.9]},
                "seeds": [0],
            },
        )
        # in a process of its own, whose fork server has the variables of this test
        with Command(tmp_path, "sweep", config, "--out", tmp_path / "runs", "--jobs", 2) as command:
            assert command.process.wait(PATIENCE) == 0, command.err
    assert len(server.runs) == 2
    assert ham("track", "push", tmp_path / "runs/two").code == 0
    folders = sorted((tmp_path / "runs").glob("*/rigl-*"))
    assert len(folders) == len(server.runs) == 3
    reused = [run.about["groupName"] for run in server.runs.values() if "reused_from" in run.config]
    assert reused == ["two / RiGL @ 0.9"]
    for folder in folders:
        complete(folder, server.runs[content(folder).id])
    groups = {run.about["groupName"] for run in server.runs.values()}
    assert groups == {"one / RiGL @ 0.8", "one / RiGL @ 0.9", "two / RiGL @ 0.9"}
    assert {run.about["displayName"] for run in server.runs.values()} == {"rigl 0.8 s0", "rigl 0.9 s0"}


def test_rank_0_alone_mirrors(tmp_path: Path) -> None:
    ended = train_on(tracked(tmp_path), tmp_path / "run", 2)
    assert [one.error for one in ended] == [None, None]
    assert the_record(tmp_path / "run").history == lines(tmp_path / "run")


@pytest.mark.robust
@pytest.mark.parametrize("server_is", ["dead", "silent"])
def test_a_server_that_does_not_answer_costs_nothing(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_is: str
) -> None:
    """The training does not wait, the record is kept offline, one line says so, and a push refills."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers none
        there = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if server_is == "dead":
            silent.close()
        for name, value in {"API_KEY": "0" * 40, "BASE_URL": there, "INIT_TIMEOUT": "3"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        called = ham("run", write_config(tmp_path / "one.yaml", tracking={"wandb": "auto"}), "--out", tmp_path / "runs")
    assert called.code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    (warning,) = warnings(folder)
    assert warning.startswith(f"W&B at {there} cannot be reached (")
    assert warning.endswith(f"`ham track push {folder}` sends this run later")
    assert called.said.strip() == warning
    assert the_record(folder).history == lines(folder) != []
    # nothing of the training took as long as the server is waited for
    assert json.loads((folder / "result.json").read_text())["seconds"] < 3
    with serving(Server()) as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        assert ham("track", "push", folder).out == f"{folder}: 4 lines, 4 of them new to W&B\n1 runs\n"
        complete(folder, next(iter(server.runs.values())))
    assert offline_files(folder) == []  # `wandb sync` would send it a second time


def test_the_first_step_comes_as_soon_as_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within two seconds of an undisturbed one, which includes starting the process."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    seconds = {}
    for mode in ("disabled", "auto"):
        steps, started = list[float](), time.monotonic()
        train(tracked(tmp_path, mode), tmp_path / mode, progress=lambda *_, s=steps: s.append(time.monotonic()))
        seconds[mode] = steps[0] - started
    assert seconds["auto"] < seconds["disabled"] + 2


@pytest.mark.robust
@pytest.mark.parametrize("victim", ["wandb-core", "experiments.tracking"])
def test_a_killed_process_of_its_own_is_one_line_and_push_refills(
    ham: Ham, tmp_path: Path, server: Server, plain: Path, victim: str
) -> None:
    spec, killed = tracked(tmp_path, "auto"), list[int]()

    def kill(done: int, total: int) -> None:
        if done == 10:
            wait_for(lambda: server.runs and next(iter(server.runs.values())).lines, "the first row")
            (pid,) = descendants(os.getpid(), victim)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    assert train(spec, tmp_path / "run", progress=kill)["status"] == "done"
    assert len(killed) == 1
    told = [line for line in warnings(tmp_path / "run") if "W&B" in line]
    assert len(told) == 1
    assert "W&B has not everything" in told[0]
    assert differing(weights(tmp_path / "run"), weights(plain)) == []
    (run,) = server.runs.values()
    assert len(run.lines) < len(lines(tmp_path / "run"))
    assert ham("track", "push", tmp_path / "run").code == 0
    complete(tmp_path / "run", run)


def test_what_was_sent_and_is_written_again_differently_is_said(tmp_path: Path, server: Server) -> None:
    """A run goes on from a checkpoint, and on a GPU the lines after it may differ from those that W&B has."""
    spec = tracked(tmp_path, "auto")
    train_until(spec, tmp_path / "run", 10)
    (run,) = server.runs.values()
    sent = len(run.lines)
    journal = (tmp_path / "run/mirrored.txt").read_text().split("\n")
    (tmp_path / "run/mirrored.txt").write_text("\n".join([*journal[:3], "0" * 16, *journal[4:]]))
    train(spec, tmp_path / "run")
    assert run.config["rewritten_from"] == 3
    assert len(run.history) == len(lines(tmp_path / "run"))
    assert run.history[sent:] == lines(tmp_path / "run")[sent:]


def test_a_push_says_what_it_cannot_do(
    ham: Ham, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "torn", "held"):
        train(tiny_spec(tmp_path, "schedule.epochs=1"), tmp_path / "runs" / name)
    with (tmp_path / "runs/torn/metrics.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    attempt = attempts.claim(tmp_path / "runs/held")
    called = ham("track", "push", tmp_path / "runs", "--project", "mine", "--entity", "us")
    attempt.end("done")
    assert called.code == 1
    said = {Path(line.split(": ")[0]).name: line.split(": ", 1)[1] for line in called.out.splitlines()}
    assert said["good"] == "1 lines, 1 of them new to W&B"
    assert said["held"] == "is under way, and is left to its own mirror"
    assert "torn/metrics.jsonl, line 2: is not JSON" in said["torn"]
    assert called.err.strip() == "error: 1 of 3 runs are not complete at W&B"
    assert server.runs[content(tmp_path / "runs/good").id].about["project"] == "mine"
    monkeypatch.setenv("WANDB_MODE", "offline")
    one_message(ham("track", "push", tmp_path / "runs"), 2, "WANDB_MODE=offline keeps data here; unset it to send")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    one_message(
        ham("track", "push", tmp_path / "runs"), 1, "http://127.0.0.1:9: cannot be reached (Connection refused)"
    )
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    one_message(ham("track", "push", tmp_path / "runs"), 2, "no key is known; log in by `wandb login`")


def test_a_package_that_cannot_be_imported_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "path/wandb").mkdir(parents=True)
    (tmp_path / "path/wandb/__init__.py").write_text("raise ImportError('no such package')")
    monkeypatch.syspath_prepend(tmp_path / "path")
    assert train(tracked(tmp_path), tmp_path / "run")["status"] == "done"
    (told,) = [line for line in warnings(tmp_path / "run") if "W&B" in line]
    assert told.startswith("W&B has not everything (no such package); ")


def test_a_training_imports_nothing_of_it(tmp_path: Path) -> None:
    code = "import experiments.run.runner, experiments.tracking.push, sys; print('wandb' in sys.modules)"
    called = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert called.stdout == "False\n"
    train(tiny_spec(tmp_path, "schedule.epochs=1"), tmp_path / "run")
    assert not (tmp_path / "run/wandb").exists()
    assert read_mapping(tmp_path / "run/spec.yaml")["tracking"]["wandb"] == "disabled"


def test_the_log_says_what_the_environment_was_overruled_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    train(tracked(tmp_path, "online", "schedule.epochs=1"), tmp_path / "run")
    log = (tmp_path / "run/log.txt").read_text()
    assert "INFO tracking.wandb is online, but nothing goes there against WANDB_MODE=disabled: it is disabled" in log
    assert not (tmp_path / "run/wandb").exists()


def test_the_users_folder_and_names_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    variables = {"DIR": str(tmp_path / "theirs"), "RUN_GROUP": "g", "NAME": "n", "PROJECT": "p", "TAGS": "x"}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(tracked(tmp_path, "auto", "schedule.epochs=1"), tmp_path / "run")
    found = the_record(tmp_path / "theirs")
    assert (found.about.run_group, found.about.display_name, found.about.project) == ("g", "n", "p")
    assert "x" in found.about.tags
    assert not (tmp_path / "run/wandb").exists()


def test_the_log_of_a_run_is_its_own(tmp_path: Path) -> None:
    """The handler goes with the run, so that two runs of one process do not write into each other's log."""
    import logging

    for name in ("a", "b"):
        train(tiny_spec(tmp_path, "schedule.epochs=1"), tmp_path / name)
    logging.getLogger("experiments").warning("nobody's")
    texts = [(tmp_path / name / "log.txt").read_text() for name in ("a", "b")]
    assert all(text.count("started") == text.count("done: accuracy") == 1 for text in texts)
