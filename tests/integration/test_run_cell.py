"""`ham run-cell`: one run of a table, with the guarantees of `ham sweep`, whoever starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, one_message
from small_runs import assert_same_run, contents, write_config

from experiments.cli import cells
from experiments.launch.array_index import FIRST
from experiments.rundir import attempts

DOCS = Path(__file__).resolve().parents[2] / "docs/howto/schedulers.md"
SWEEP: dict[str, Any] = {"rows": {"Dense": {}, "Random": {"topology": {"name": "random", "sparsity": 0.5}}}}
CELLS = [("dense", 0), ("dense", 1), ("random", 0), ("random", 1)]


@pytest.fixture(autouse=True)
def no_array(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These tests may be a task of an array themselves."""
    monkeypatch.chdir(tmp_path)
    for name in FIRST:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return table(tmp_path)


def table(folder: Path, epochs: int = 1) -> Path:
    return write_config(folder / "table.yaml", schedule__epochs=epochs, sweep={**SWEEP, "seeds": [0, 1]})


def done(folder: Path) -> list[tuple[str, int]]:
    """Row and seed of the finished runs."""
    found = (re.fullmatch(r"(\w+)-[0-9a-f]{8}-s(\d)", path.parent.name) for path in folder.glob("*/result.json"))
    return sorted((match[1], int(match[2])) for match in found if match)


def test_the_cells_are_those_of_the_sweep_in_the_order_of_the_table(ham: Ham, config: Path, tmp_path: Path) -> None:
    assert ham("run-cell", config, "--count").out == "4\n"
    assert not (tmp_path / "runs").exists()
    for number in range(4):
        called = ham("run-cell", config, number)
        assert (called.code, called.err) == (0, "")
        assert ", accuracy " in called.out
        assert done(tmp_path / "runs/table") == sorted(CELLS[: number + 1])
    whole = tmp_path / "whole"
    assert ham("sweep", config, "--out", whole, "--jobs", 2).code == 0
    for run in (whole / "table").glob("*-s?"):
        assert_same_run(tmp_path / "runs/table" / run.name, run)
    assert (
        json.loads((tmp_path / "runs/table/sweep.json").read_text())["cells"]
        == (json.loads((whole / "table/sweep.json").read_text())["cells"])
    )


def test_a_finished_cell_is_left_as_it_is(ham: Ham, config: Path, tmp_path: Path) -> None:
    first = ham("run-cell", config, 3)
    before = contents(tmp_path / "runs")
    assert ham("run-cell", config, 3) == first
    assert contents(tmp_path / "runs") == before


@pytest.mark.parametrize(("name", "first"), FIRST.items())
def test_a_task_of_an_array_knows_its_cell(
    ham: Ham, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, first: int
) -> None:
    monkeypatch.setenv(name, str(first + 2))
    called = ham("run-cell", config)
    assert (called.code, called.err) == (0, f"cell 2 ({name}={first + 2}, counted from {first})\n")
    assert done(tmp_path / "runs/table") == [CELLS[2]]
    monkeypatch.setenv(name, str(first + 4))
    called = ham("run-cell", config)
    assert called.code == 2
    assert f"there is no cell {first + 4}: the table has 4, numbered {first} to {first + 3} here" in called.err


def test_what_cannot_be_done_is_said(ham: Ham, config: Path, tmp_path: Path) -> None:
    one_message(ham("run-cell", config, 4), 2, "N: there is no cell 4: the table has 4, numbered 0 to 3 here")
    one_message(ham("run-cell", config), 2, "N: which cell? give its number", "PBS_ARRAY_INDEX")
    one_message(ham("run-cell", config, "two"), 2, "'two' is neither the number of a cell nor KEY=VALUE")
    one_message(ham("run-cell", config, 0, "optimizer.lr=-1"), 2, "optimizer.lr")
    one_message(ham("run-cell", config, 0, "model.name=nonesuch"), 2, "nonesuch")
    one_message(ham("run-cell", config, 0, "sweep=null"), 2, "has no section sweep")
    one_message(ham("run-cell", tmp_path, 0), 2, "has no sweep.json that names a configuration")
    assert not (tmp_path / "runs").exists()


def test_a_sweeps_folder_stands_for_its_configuration(ham: Ham, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs/table"
    assert ham("run-cell", config, 0).code == 0
    assert ham("run-cell", folder, "--count").out == "4\n"
    moved = (tmp_path / "runs/table").rename(tmp_path / "runs/other")
    assert ham("run-cell", moved, 1).code == 0
    assert done(moved) == CELLS[:2]
    one_message(ham("run-cell", moved, 1, "optimizer.lr=0.2"), 2, "a folder has its settings")


def test_a_folder_whose_cells_may_have_other_numbers_is_refused(ham: Ham, config: Path, tmp_path: Path) -> None:
    assert ham("run-cell", config, 0, "optimizer.lr=0.2").code == 0
    one_message(ham("run-cell", tmp_path / "runs/table", 1), 2, "table.yaml no longer describes the table", "KEY=VALUE")
    config.rename(tmp_path / "moved.yaml")
    one_message(ham("run-cell", tmp_path / "runs/table", 1), 2, "table.yaml, is gone; give the configuration")


def test_a_cell_that_another_process_holds_is_to_be_called_again(ham: Ham, config: Path, tmp_path: Path) -> None:
    assert ham("run-cell", config, 0).code == 0
    (run,) = (tmp_path / "runs/table").glob("dense-*-s0")
    (run / "result.json").unlink()
    held = attempts.claim(run)
    one_message(ham("run-cell", config, 0), 75, "is writing this run", "exit code 75: call again")
    held.end("stopped")
    assert ham("run-cell", config, 0).code == 0


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGUSR2", 75), ("SIGINT", 130)])
def test_a_signal_saves_and_says_go_on(ham: Ham, tmp_path: Path, number: str, code: int) -> None:
    config = table(tmp_path, epochs=50000)

    def once_it_trains() -> None:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("runs/table/*/heartbeat")) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.Signals[number])

    thread = threading.Thread(target=once_it_trains)
    thread.start()
    one_message(ham("run-cell", config, 1), code, "stopped at step", "the same command resumes it")
    thread.join()
    assert list(tmp_path.glob("runs/table/dense-*-s1/checkpoints/*.pt"))


def test_a_signal_before_the_first_step_is_not_lost(ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = cells.unchecked

    def warned(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return resolve(*arguments)

    monkeypatch.setattr(cells, "unchecked", warned)
    one_message(ham("run-cell", table(tmp_path, epochs=50000), 0), 75, "stopped at step 1 of")


@pytest.mark.robust
def test_two_loops_share_a_sweep(config: Path, tmp_path: Path) -> None:
    """The loop of the page, twice at the same time: each run is done, and none by both."""
    (loop,) = (block for block in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL) if "for n in" in block)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    started = [
        subprocess.Popen(
            ["bash", "-c", loop.replace("my_config.yaml", config.name).replace("sleep 60", "sleep 1")],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
        )
        for _ in range(2)
    ]
    assert [one.wait(200) for one in started] == [0, 0]
    assert done(tmp_path / "runs/table") == CELLS
    for run in (tmp_path / "runs/table").glob("*-s?"):
        assert len(list((run / "attempts").iterdir())) == 1


def test_the_scripts_of_the_page_are_scripts() -> None:
    page = DOCS.read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        assert subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode == 0, block
        assert "ham run-cell my_config.yaml" in block
        assert len([line for line in block.splitlines() if line.strip()]) <= 12, block
    for variable, first in FIRST.items():
        assert f"| `{variable}` | {first} |" in page
