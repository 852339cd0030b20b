"""Time and hours before a sweep, in its dry run."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Ham, one_message
from small_runs import contents, tiny_spec, write_config

from experiments import data as datasets
from experiments.run import length
from experiments.run.build import build
from sparsity import registry

RIGL = {"topology": {"name": "rigl", "sparsity": 0.5, "update_every": 6}}
SWEEP: dict[str, Any] = {"rows": {"Dense": {}, "RiGL": RIGL}}
NEEDED = {  # without which nothing is accepted
    "granet": ["topology.update_every=3"],
    "grasp": ["topology.per_class=2"],
    "mest": ["topology.update_every=1"],
    "rigl": ["topology.update_every=5"],
    "set": ["topology.update_every=5"],
    "synflow": ["topology.rounds=2"],
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    sweep = {**SWEEP, "seeds": [0, 1]}
    return write_config(tmp_path / "table.yaml", schedule__epochs=8, sweep=sweep)


def test_nothing_is_known_before_the_first_run(ham: Ham, config: Path) -> None:
    called = ham("sweep", config, "--dry-run")
    assert called.out.splitlines()[-1] == "4 of 4 runs to do"
    assert called.said.startswith("how long they take is not known: of 4 nothing is known (--probe")


def test_a_finished_run_tells_of_the_others(ham: Ham, config: Path, tmp_path: Path) -> None:
    assert ham("run-cell", config, 0).code == 0
    (path,) = (tmp_path / "runs/table").glob("*/result.json")
    assert json.loads(path.read_text())["steps"] == 48
    last = ham("sweep", config, "--dry-run", "--jobs", 2).said.splitlines()[-1]
    assert re.fullmatch(r"time: about \S+ hours of compute, .* with 2 workers; .*", last)
    assert last.endswith("2 from finished runs of the same network and data, 1 from finished runs of other seeds")


def test_the_probe_times_each_kind_and_leaves_nothing(ham: Ham, config: Path, tmp_path: Path) -> None:
    one_message(ham("sweep", config, "--probe"), 2, "--probe: belongs to --dry-run")
    before = contents(tmp_path)
    called = ham("sweep", config, "--dry-run", "--probe")
    *timed, last, _ = called.err.splitlines()
    assert [line[:12] for line in timed] == ["[1/2 timed] ", "[2/2 timed] "]
    assert last.startswith("time: about ")
    assert called.said.endswith(" workers; 4 from steps timed on this machine\n")
    assert contents(tmp_path) == before


def test_a_probe_that_fails_is_said(ham: Ham, config: Path) -> None:
    called = ham("sweep", config, "--dry-run", "--probe", "runtime.device=cuda", "sweep.seeds=[0]")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert called.code == 0
    assert called.said.count("could not be timed: ") == 2
    assert "no GPU" in called.said or "cuda" in called.said.lower()
    assert "of 2 nothing is known" in called.said


@pytest.mark.parametrize("name", sorted(registry.topologies()))
def test_steps_are_known_beforehand(tmp_path: Path, name: str) -> None:
    options = NEEDED.get(name, [])
    spec = tiny_spec(tmp_path, f"topology.name={name}", "topology.sparsity=0.5", *options)
    assert length.steps(spec, datasets.outline(spec.data)) == build(spec).total_steps
