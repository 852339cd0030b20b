"""A dashboard names what a run's mirror writes, is what it was, and is renewed at the server, not made again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from commands import Called, Ham, one_message
from hypothesis import given
from hypothesis import strategies as st
from packages import package
from small_runs import tiny_spec, train, write_config
from wandb_server import Server, ServerRun, serving

from experiments.cli.dashboard import cells_of
from experiments.config.resolve import load
from experiments.config.sweep import expand
from experiments.config.yaml_text import dump
from experiments.launch.table import write
from experiments.tracking import dashboard, metrics, workspace
from experiments.tracking.content import content
from experiments.tracking.dashboard import CellLabel, Shown, views
from results.runs.discover import flatten
from results.runs.facts import settings
from results.runs.store import read_plan

GOLDEN = Path(__file__).parent / "data/dashboard.json"
HAM_RUN = ("topology={name: rigl, sparsity: 0.9, update_every: 4}", "optimizer.ham={alpha: 2.0}")
COLUMNS = (
    {"topology.sparsity": 0.9, "optimizer.momentum": 0.9},
    {"topology.sparsity": 0.95, "optimizer.momentum": 0.9},
)


def shown(part: str = "validation") -> Shown:
    cells = [
        CellLabel(row, "RiGL", column, column, f"paper / {row} @ {column['topology.sparsity']}", color)
        for column in COLUMNS
        for row, color in {"RiGL": "#4a5562", "RiGL + HAM": "#d55e00"}.items()
    ]
    return Shown("paper", part, "| Method | 90 % |\n| --- | --- |\n| RiGL | 80.00 |\n", cells)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table of one run."""
    home = tmp_path_factory.mktemp("runs") / "paper"
    spec = tiny_spec(home, *HAM_RUN, "label=RiGL + HAM")
    result = train(spec, home / "run")
    cell = {"row": "RiGL + HAM", "column": COLUMNS[0], "seed": 0, "identity": result["identity"], "path": "run"}
    manifest = {"name": "paper", "column_keys": list(COLUMNS[0]), "baselines": {}, "cells": [cell]}
    (home / "sweep.json").write_text(json.dumps(manifest))
    return home


def test_every_name_is_one_that_the_mirror_writes(sweep: Path) -> None:
    """What is read from the history stands there, and so for summary and configuration."""
    lines = (sweep / "run/metrics.jsonl").read_text().splitlines()
    history = set().union(*(metrics.row(json.loads(line)) for line in lines)) | {metrics.EPOCH["gpu_utilisation"]}
    summary = set(metrics.summary(json.loads((sweep / "run/result.json").read_text())))
    config = set(flatten(content(sweep / "run").config)) | {"job_type"}
    for view in views(shown()):
        keys = set(re.findall(r"Config\('(.*?)'\)", view.filters)) | set(view.groups)
        pinned = [column.partition(":") for column in view.columns]
        keys |= {name for kind, _, name in pinned if kind == "config"}
        found = {name for kind, _, name in pinned if kind == "summary"}
        for panel in (panel for section in view.sections for panel in section.panels):
            keys |= set(panel.settings)
            if panel.kind == "lines":
                assert panel.over in metrics.EVERY.values()
                patterns = [name.replace("*", ".*") for name in panel.metrics]
                assert all(any(re.fullmatch(one, name) for name in history) for one in patterns), panel
            else:
                found |= {*panel.metrics, *([panel.over] if panel.kind == "points" else [])}
        assert found <= summary
        assert keys <= config


def test_what_it_needs_is_named(ham: Ham, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_message(ham("dashboard", sweep / "run"), 2, "is no folder of a sweep")
    (tmp_path / "sweep.json").write_text((sweep / "sweep.json").read_text())
    one_message(ham("dashboard", tmp_path), 2, "no run has begun")
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    one_message(ham("dashboard", sweep), 2, "needs wandb-workspaces", f"pip install '{workspace.PACKAGE}'")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["dashboard"] == [workspace.PACKAGE]
    assert workspace.PACKAGE in project["dependency-groups"]["integrations"]


def test_cells_are_grouped_as_the_mirror_groups_their_runs(tmp_path: Path) -> None:
    """The dense row depends on one of two keys of the columns."""
    config = write_config(
        tmp_path / "two.yaml",
        sweep={
            "rows": {
                "Dense": {},
                "RiGL": {"topology": {"name": "rigl", "sparsity": 0.9}},
                "RiGL + HAM": {"topology": {"name": "rigl", "sparsity": 0.9}, "optimizer.ham": {"alpha": 2.0}},
            },
            "columns": {"topology.sparsity": [0.8, 0.9], "model.name": ["mlp_bn", "resnet8"]},
            "baselines": {"RiGL + HAM": "RiGL"},
            "seeds": [0, 1],
        },
    )
    table = expand(load(str(config)))
    write(table, tmp_path / "two")
    for run in table.runs:
        (tmp_path / "two" / run.path).mkdir()
        (tmp_path / "two" / run.path / "spec.yaml").write_text(dump(run.spec.model_dump()))
    sweep = read_plan(tmp_path / "two")
    cells = cells_of(sweep, settings(sweep))
    assert len(cells) == 3 * 4
    for cell in cells:
        for run in sweep.cell(cell.row, cell.column):
            about = content(run.path)
            own = flatten(about.config)
            assert (about.group, own["row"], own["base_row"]) == (cell.group, cell.row, cell.base_row)
            assert {key: own[dashboard.name_of(key)] for key in cell.values} == cell.values
    assert len({cell.group for cell in cells}) == 2 + 4 + 4
    assert {cell.row for cell in cells if cell.values != cell.column} == {"Dense"}
    assert len({cell.color for cell in cells}) == 2


def documents() -> list[dict[str, Any]]:
    """The views; the panels of the second and third are those of the first but for their ids."""
    found = workspace.documents("paper", views(shown()), "p", "e")
    for one in found[1:]:
        del one["spec"]["section"]["panelBankConfig"]
    return found


@pytest.mark.integrations
def test_the_views_are_the_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HAM_RECORD=1` writes the file anew, which a person then reads."""
    package("wandb_workspaces")
    text = json.dumps(documents(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("HAM_RECORD") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.integrations
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_name_of_a_table_is_filtered_and_shown(name: str) -> None:
    expr = package("wandb_workspaces.expr")
    read = expr.expr_to_filters(f"Config('table') == {dashboard._literal(name)}")
    assert read.value == name
    (first, *_) = views(Shown(name, "test", name, shown().cells))
    (document,) = workspace.documents(name, [first], "p", None)
    assert document["spec"]["section"]["runSets"][0]["filters"]["filters"][0]["value"] == name


@pytest.mark.integrations
def test_a_dry_run_prints_the_views_without_a_server(ham: Ham, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("wandb_workspaces")
    monkeypatch.setenv("WANDB_MODE", "offline")
    called = ham("dashboard", sweep, "--dry-run", "--project", "mine")
    assert called.code == 0, called
    found = json.loads(called.out)
    assert [one["displayName"] for one in found] == ["paper", "paper: sparsity 0.9, momentum 0.9", "paper: RiGL HAM"]
    assert {one["project"] for one in found} == {"mine"}
    assert "| RiGL + HAM |" in json.dumps(found[0])
    one_message(ham("dashboard", sweep), 2, "WANDB_MODE=offline keeps data here")


def process(*arguments: object) -> Called:
    """The command in a process of its own, since W&B leaves a service and a variable behind in the one that asks it."""
    called = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    return Called(called.returncode, called.stdout, called.stderr)


@pytest.mark.integrations
def test_the_server_has_three_views_however_often(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("wandb_workspaces")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with serving(Server()) as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        one_message(process("dashboard", sweep), 2, "me/mine: no such project", "ham track push")
        server.runs["any"] = ServerRun(about={"project": "mine"})
        first, second = (process("dashboard", sweep) for _ in range(2))
    assert (first.code, first.err) == (0, "")
    assert second == first
    found = re.findall(rf"http://127.0.0.1:{server.port}/me/mine\?nw=(\w+)", first.out)
    assert sorted(one["name"][3:-2] for one in server.views.values()) == sorted(found)
    assert len(set(found)) == 3
    for one in server.views.values():
        assert json.loads(one["spec"])["section"]["runSets"][0]["filters"]["filters"][0]["value"] == "paper"
    one_message(process("dashboard", sweep), 1, "cannot be reached")
