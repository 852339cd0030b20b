"""A sweep does what is missing and nothing else, and one bad row stops no other."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, command, one_message
from small_runs import contents, differing, result, resumptions, train_until, weights, write_config

from experiments.config import files
from experiments.config.resolve import from_mapping
from experiments.config.yaml_text import read_mapping
from experiments.rundir.attempts import newest

ROWS: dict[str, Any] = {
    "Dense": {},
    "RiGL": {"topology.name": "rigl", "topology.update_every": 4},
    "RiGL + HAM": {"topology.name": "rigl", "topology.update_every": 4, "optimizer.ham": {"alpha": 20.0}},
}
SWEEP = {
    "rows": ROWS,
    "columns": {"topology.sparsity": [0.8, 0.9]},
    "seeds": [0, 1, 2],
    "baselines": {"RiGL + HAM": "RiGL"},
}
RUNS = 3 + 2 * 2 * 3  # dense ignores the column


def table_config(folder: Path, **changes: Any) -> Path:
    return write_config(folder / "small.yaml", schedule__epochs=2, data__batch_size=100, sweep=SWEEP, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and its finished runs; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    assert command("sweep", table_config(folder), "--out", folder / "runs", "--jobs", 2) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def results(folder: Path) -> dict[str, bytes]:
    return contents(folder, lambda path: path.name in ("result.json", "weights.pt", "metrics.jsonl", "spec.yaml"))


def test_the_table_has_every_cell(ham: Ham, finished: Path) -> None:
    manifest = json.loads((finished / "runs/small/sweep.json").read_text())
    assert len(manifest["cells"]) == 3 * 2 * 3
    assert len({cell["path"] for cell in manifest["cells"]}) == RUNS
    called = ham("table", finished / "runs/small")
    assert called.code == 0
    for row in ROWS:
        assert row in called.out
    assert called.out.count("(3)") >= 6
    assert called.err == ""
    status = ham("status", finished / "runs/small").out
    assert f"{RUNS} runs, {RUNS} done" in status


def test_finished_runs_are_skipped(ham: Ham, copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (copied / "runs/small").glob("*/*")}
    config = copied / "small.yaml"
    dry = ham("sweep", config, "--out", copied / "runs", "--dry-run")
    assert (dry.code, dry.out) == (0, f"0 of {RUNS} runs to do\n")
    assert ham("sweep", config, "--out", copied / "runs").code == 0
    assert {path: path.stat().st_mtime_ns for path in (copied / "runs/small").glob("*/*")} == before


def test_a_fourth_seed_adds_exactly_its_runs(ham: Ham, copied: Path) -> None:
    before = results(copied / "runs")
    arguments = (copied / "small.yaml", "sweep.seeds=[0, 1, 2, 3]", "--out", copied / "runs")
    dry = ham("sweep", *arguments, "--dry-run").out.splitlines()
    assert dry[-1] == f"5 of {RUNS + 5} runs to do"
    assert all(path.endswith("-s3") for path in dry[:-1])
    assert ham("sweep", *arguments, "--jobs", 2).code == 0
    after = results(copied / "runs")
    assert {path: content for path, content in after.items() if path in before} == before
    added = {path.split("/")[1] for path in after.keys() - before.keys()}
    assert added == {Path(path).name for path in dry[:-1]}
    assert "(4)" in ham("table", copied / "runs/small").out


def test_a_run_removed_is_done_again_and_is_the_same(ham: Ham, copied: Path) -> None:
    before = results(copied / "runs")
    removed = sorted((copied / "runs/small").glob("rigl-ham-*-s1"))[0]
    others = {path: path.stat().st_mtime_ns for path in copied.rglob("result.json") if removed not in path.parents}
    shutil.rmtree(removed)
    assert ham("sweep", copied / "small.yaml", "--out", copied / "runs", "--jobs", 1).code == 0
    assert {path: path.stat().st_mtime_ns for path in others} == others
    timeless = [path for path in before if path.endswith(("weights.pt", "spec.yaml"))]
    after = results(copied / "runs")
    assert {path: after[path] for path in timeless} == {path: before[path] for path in timeless}


def test_a_moved_folder_tabulates_to_the_same_bytes(ham: Ham, finished: Path, copied: Path) -> None:
    moved = copied.with_name("elsewhere")
    (copied / "runs").rename(moved)
    for form in ("text", "markdown", "latex", "csv", "html"):
        here, there = (ham("table", folder, "--format", form) for folder in (finished / "runs/small", moved / "small"))
        assert here.code == there.code == 0
        assert here.out == there.out
    dry = ham("sweep", copied / "small.yaml", "--out", moved, "--dry-run")
    assert dry.out == f"0 of {RUNS} runs to do\n"


def test_a_moved_unfinished_run_resumes(ham: Ham, copied: Path) -> None:
    (folder,) = (copied / "runs/small").glob("rigl-ham-0.9-*-s2")
    before = weights(folder)
    spec, hashed = from_mapping(read_mapping(folder / "spec.yaml")), result(folder)["identity"]
    shutil.rmtree(folder)
    train_until(spec, folder, 4)
    assert (newest(folder) or {})["identity"] == hashed
    moved = copied.with_name("elsewhere")
    (copied / "runs").rename(moved)
    assert f"{RUNS - 1} done, 1 resumable" in ham("status", moved / "small").out
    assert ham("sweep", copied / "small.yaml", "--out", moved, "--jobs", 1).code == 0
    assert resumptions(moved / "small" / folder.name) == [4]
    assert differing(weights(moved / "small" / folder.name), before) == []


def test_a_changed_default_reuses_nothing(
    ham: Ham, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(files.configs_folder(), configs)
    monkeypatch.setattr(files, "configs_folder", lambda: configs)
    arguments = ("sweep", copied / "small.yaml", "--out", copied / "runs", "--dry-run")
    assert ham(*arguments).out == f"0 of {RUNS} runs to do\n"
    base = configs / "base.yaml"
    text = base.read_text()
    assert text.count("momentum: 0.9 ") == 1
    base.write_text(text.replace("momentum: 0.9 ", "momentum: 0.8 "))
    assert ham(*arguments).out.endswith(f"\n{RUNS} of {RUNS} runs to do\n")
    base.write_text(text.replace("wandb: auto ", "wandb: offline ").replace("every_minutes: 5.0", "every_minutes: 1.0"))
    assert base.read_text() != text
    assert ham(*arguments).out == f"0 of {RUNS} runs to do\n"


# ---- crashes ---------------------------------------------------------------------------------------------------------


def test_a_diverging_row_stops_no_other(ham: Ham, tmp_path: Path) -> None:
    rows = {"Good": {}, "Bad": {"optimizer.lr": 1.0e30}, "Also good": {"topology": {"name": "random", "sparsity": 0.5}}}
    config = write_config(tmp_path / "small.yaml", schedule__epochs=1, sweep={"rows": rows})
    arguments = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
    called = ham(*arguments)
    (bad,) = (tmp_path / "runs/small").glob("bad-*")
    assert called.code == 1
    assert f"] {bad.name}: failed after " in called.err
    assert f"error: {tmp_path / 'runs/small'}: 1 of 3 runs failed ({bad.name})" in called.err
    assert called.err.count("the loss is not finite") == 1
    assert "the loss is not finite" in json.loads((bad / "failure.json").read_text())["error"]
    assert "the loss is not finite" in (bad / "log.txt").read_text()
    status = ham("status", tmp_path / "runs/small").out
    assert "3 runs, 2 done, 1 failed" in status
    assert "Bad, seed 0" in status
    good = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(good) == 2
    begun = time.time()
    assert ham(*arguments).code == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == good
    assert (bad / "failure.json").stat().st_mtime > begun - 1
    table = ham("table", tmp_path / "runs/small")
    assert table.code == 0
    assert "Bad" in table.out


DOOMED = """
import os
import signal
from pathlib import Path

from sparsity import Topology, register_topology


@register_topology("doomed")
class Doomed(Topology):
    '''Dense; the first process that takes the fifth step is killed there.'''

    uses_sparsity = False

    def after_step(self, ctx):
        mark = Path(__file__).with_name("killed")
        if ctx.steps_done == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("open_registry")
def test_a_killed_worker_stops_no_other_and_is_retried_alone(ham: Ham, tmp_path: Path) -> None:
    (tmp_path / "doomed_method.py").write_text(DOOMED)
    rows = {"First": {}, "Doomed": {"topology.name": "doomed"}, "Third": {"optimizer.lr": 0.02}}
    config = write_config(
        tmp_path / "small.yaml", imports=["doomed_method"], checkpoint={"every_steps": 2}, sweep={"rows": rows}
    )
    arguments = ("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
    called = ham(*arguments)
    (first,), (doomed,) = ((tmp_path / "runs/small").glob(f"{name}-*") for name in ("first", "doomed"))
    assert called.code == 1
    assert f"] {doomed.name}: failed after " in called.err
    assert ": the worker process was killed by SIGKILL" in called.err
    assert f"1 of 3 runs failed ({doomed.name})" in called.err
    assert "3 runs, 2 done, 1 lost" in ham("status", tmp_path / "runs/small").out
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(done) == 2
    assert ham(*arguments).code == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert resumptions(doomed) == [4]
    assert differing(weights(doomed), weights(first)) == []


@pytest.mark.usefixtures("open_registry")
def test_a_defect_of_a_method_is_one_message_and_a_traceback_in_the_log(ham: Ham, tmp_path: Path) -> None:
    (tmp_path / "broken_method.py").write_text(
        "from sparsity import Topology, register_topology\n\n\n"
        "@register_topology('broken')\nclass Broken(Topology):\n"
        "    '''Divides by zero.'''\n\n    def after_step(self, ctx):\n        1 / 0\n"
    )
    rows = {"Good": {}, "Broken": {"topology.name": "broken"}}
    config = write_config(tmp_path / "small.yaml", schedule__epochs=1, imports=["broken_method"], sweep={"rows": rows})
    called = ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 1)
    (broken,) = (tmp_path / "runs/small").glob("broken-*")
    fault = f"{broken}: ZeroDivisionError: division by zero (traceback in {broken / 'log.txt'})"
    assert called.code == 1
    assert f"] {broken.name}: failed after " in called.err
    assert f": {fault}" in called.err
    assert len(list(tmp_path.rglob("result.json"))) == 1
    assert "ZeroDivisionError" in ham("status", tmp_path / "runs/small").out
    called = ham("run", config, "sweep=null", "topology.name=broken", "--out", tmp_path / "single")
    (single,) = (tmp_path / "single").iterdir()
    one_message(called, 1, "ZeroDivisionError: division by zero (traceback in ")
    for folder in (broken, single):
        assert "in after_step" in (folder / "log.txt").read_text()
        assert "ZeroDivisionError" in json.loads((folder / "failure.json").read_text())["error"]
