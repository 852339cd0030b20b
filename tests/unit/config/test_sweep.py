"""Rows × columns × seeds: order, precedence, sharing of runs, names, and every way a table can be wrong."""

# ruff: noqa: E501 - a message or an odd value stands on one line, as users see it
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments.config.identity import identity
from experiments.config.resolve import load, resolve
from experiments.config.sweep import Sweep, expand, manifest, run_name, slug
from experiments.errors import UserError

TABLE = """
label: ignored
sweep:
  title: A table
  tuning_cells: 3
  rows:
    Dense:
    RiGL: {topology.name: rigl}
    RiGL + HAM: {topology.name: rigl, optimizer.ham: {alpha: 20}}
  columns: {topology.sparsity: [0.9, 0.95]}
  seeds: [1, 0]
  baselines: {RiGL + HAM: RiGL}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(text: str, *overrides: str, **options) -> Sweep:
    Path("quick start.yaml").write_text(text)
    return expand(load("quick start", overrides), **options)


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        sweep(text, *overrides)
    return str(caught.value).replace("quick start.yaml", "c")


def rows(**labels: str) -> str:
    """A sweep section over two RiGL-like rows, with more lines below."""
    return "sweep:\n  rows:\n" + "".join(f"    {label}: {row}\n" for label, row in labels.items())


def test_cells_in_table_order_with_their_specifications():
    table = sweep(TABLE)
    assert [(cell.row, cell.column["topology.sparsity"], cell.seed) for cell in table.cells] == [
        (row, sparsity, seed) for row in ("Dense", "RiGL", "RiGL + HAM") for sparsity in (0.9, 0.95) for seed in (1, 0)
    ]
    cell = table.cells[-1]
    assert (cell.spec.label, cell.spec.seed, cell.spec.topology.sparsity) == ("RiGL + HAM", 0, 0.95)
    assert cell.spec.topology.name == "rigl"
    assert cell.spec.optimizer.ham is not None
    assert (cell.spec.optimizer.ham.alpha, cell.spec.optimizer.ham.beta) == (20.0, 1e-3)
    assert all(cell.identity == identity(cell.spec) for cell in table.cells)


def test_a_row_that_ignores_the_column_is_one_run_a_seed():
    table = sweep(TABLE)
    dense = [cell for cell in table.cells if cell.row == "Dense"]
    assert len({cell.identity for cell in dense}) == 1
    assert [cell.path for cell in dense] == 2 * [f"dense-{dense[0].identity[:8]}-s{seed}" for seed in (1, 0)]
    assert all(cell.spec.topology.sparsity == 0.0 for cell in dense)
    others = {cell.path for cell in table.cells if cell.row != "Dense"}
    assert len(others) == 8
    assert f"rigl-ham-0.95-{table.cells[-1].identity[:8]}-s0" in others
    # each run once, in table order
    assert [run.path for run in table.runs] == [cell.path for cell in table.cells[:2] + table.cells[4:]]


def test_manifest():
    table = sweep(TABLE)
    content = manifest(table)
    assert json.loads(json.dumps(content)) == content
    cells, specs = content.pop("cells"), content.pop("specs")
    assert set(specs) == {cell.identity for cell in table.cells}
    assert [specs[cell.identity]["topology"] for cell in table.cells] == [
        cell.spec.model_dump()["topology"] for cell in table.cells
    ]
    assert content == {
        "name": "quick-start",
        "title": "A table",
        "column_keys": ["topology.sparsity"],
        "tuning_cells": 3,
        "notes": None,
        "baselines": {"RiGL + HAM": "RiGL"},
        "overrides": [],
    }
    assert cells[4] == {
        "row": "RiGL",
        "column": {"topology.sparsity": 0.9},
        "seed": 1,
        "identity": table.cells[4].identity,
        "path": f"rigl-0.9-{table.cells[4].identity[:8]}-s1",
    }


def test_growing_a_table_keeps_its_folders():
    small = {cell.path for cell in sweep(TABLE.replace("[0.9, 0.95]", "[0.9]")).cells}
    grown = {cell.path for cell in sweep(TABLE.replace("seeds: [1, 0]", "seeds: [0, 1, 2]")).cells}
    assert small < grown


def test_precedence_files_command_line_row_column_cells():
    text = """
optimizer.lr: 0.1
sweep:
  rows: {A: {topology.name: rigl}, B: {topology.name: rigl, optimizer.lr: 0.3, optimizer.momentum: 0.5}}
  columns: {topology.sparsity: [0.8, 0.9], optimizer.momentum: [0.6, 0.7]}
  cells:
  - {when: {row: B, topology.sparsity: 0.9}, set: {optimizer.lr: 0.4, optimizer.weight_decay: 0.01}}
  - {when: {row: [B, A], optimizer.momentum: [0.7, 0.6], topology.sparsity: 0.9}, set: {optimizer.weight_decay: 0.02}}
"""
    table = sweep(text, "optimizer.lr=0.2", "seed=4")
    found = [
        (
            c.row,
            *c.column.values(),
            c.seed,
            c.spec.optimizer.lr,
            c.spec.optimizer.momentum,
            c.spec.optimizer.weight_decay,
        )
        for c in table.cells
    ]
    assert found == [
        ("A", 0.8, 0.6, 4, 0.2, 0.6, 5e-4),
        ("A", 0.8, 0.7, 4, 0.2, 0.7, 5e-4),
        ("A", 0.9, 0.6, 4, 0.2, 0.6, 0.02),
        ("A", 0.9, 0.7, 4, 0.2, 0.7, 0.02),
        ("B", 0.8, 0.6, 4, 0.3, 0.6, 5e-4),
        ("B", 0.8, 0.7, 4, 0.3, 0.7, 5e-4),
        ("B", 0.9, 0.6, 4, 0.4, 0.6, 0.02),
        ("B", 0.9, 0.7, 4, 0.4, 0.7, 0.02),
    ]


def test_a_mapping_in_a_row_replaces_and_columns_fill_in():
    text = "topology: {name: rigl, drop_fraction: 0.5}\n" + rows(A="{topology: {name: random}}", B="{}")
    text += "  columns: {topology.sparsity: [0.5]}\n"
    a, b = sweep(text).cells
    own = {"allocation": "erk", "dense": "none", "rebudget": True, "counts": "exact"}
    assert a.spec.topology.model_dump() == {"name": "random", "sparsity": 0.5, **own}
    assert b.spec.topology.options.drop_fraction == 0.5


def test_a_column_below_a_null_section_leaves_the_row_alone():
    text = rows(Plain="{}", HAM="{optimizer.ham: {}}") + "  columns: {optimizer.ham.alpha: [1, 2]}\n"
    plain1, plain2, ham1, ham2 = sweep(text).cells
    assert plain1.spec.optimizer.ham is None
    assert plain1.path == plain2.path
    assert [cell.spec.optimizer.ham.alpha for cell in (ham1, ham2) if cell.spec.optimizer.ham] == [1.0, 2.0]
    assert re.fullmatch(r"ham-1-[0-9a-f]{8}-s0", ham1.path)


def test_without_rows_there_is_one_named_by_label_or_file():
    assert [cell.row for cell in sweep("label: X\nsweep: {seeds: [0, 1]}").cells] == ["X", "X"]
    table = sweep("sweep: {columns: {optimizer.lr: [0.1, 1e-5]}}", "seed=7")
    assert [(cell.row, cell.seed) for cell in table.cells] == [("quick start", 7)] * 2
    assert table.cells[1].path == f"quick-start-1e-05-{table.cells[1].identity[:8]}-s7"


def test_sweep_keys_on_the_command_line():
    table = sweep(TABLE, "sweep.seeds=[5]", "sweep.columns.topology.sparsity=[0.5]", "sweep.name=other")
    assert {(cell.seed, cell.column["topology.sparsity"]) for cell in table.cells} == {(5, 0.5)}
    assert table.name == "other"
    assert [cell.row for cell in sweep("seed: 1", "sweep.seeds=[1, 2]").cells] == ["quick start"] * 2


def test_rows_of_extended_files_come_first():
    Path("parent.yaml").write_text(TABLE)
    table = sweep("extends: [parent]\nsweep.rows.AC/DC 1.0: {topology.name: acdc}\nsweep.seeds: [0]\n")
    assert [cell.row for cell in table.cells[::2]] == ["Dense", "RiGL", "RiGL + HAM", "AC/DC 1.0"]


def test_row_labels_may_contain_anything():
    text = rows(**{'"a.b: c/d"': "{}", '"m⊙w, β=1"': "{seed_: 1}"}).replace("{seed_: 1}", "{optimizer.lr: 0.3}")
    first, second = sweep(text).cells
    assert first.path == f"a.b-c-d-{first.identity[:8]}-s0"
    assert second.path == f"mw-1-{second.identity[:8]}-s0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RiGL + HAM", "rigl-ham"),
        ("AC/DC", "ac-dc"),
        ("../..", "row"),
        ("Überall", "uberall"),
        ("⊙", "row"),
        ("A  b_", "a-b"),
    ],
)
def test_slugs(text: str, expected: str):
    assert slug(text) == expected


def test_folder_names_are_short_and_safe():
    name = run_name("x" * 300, "0123abcd", 2**62)
    assert len(name) == 80
    assert name.endswith(f"-0123abcd-s{2**62}")
    assert not re.search(r"[^a-z0-9.-]", run_name("a\n/\\:*?\"<>| ;$`'é", "0123abcd", 0))


def test_two_rows_that_are_the_same_run():
    text = rows(A="{topology.name: rigl}", B="{topology.name: rigl, tracking.project: x, optimizer.lr: 1e-1}")
    text += "  columns: {topology.sparsity: [0.5, 0.9]}\n"
    message = "c:4: sweep.rows.B: the rows 'A' and 'B' are the same run at topology.sparsity=0.5; change or drop one"
    assert refused(text) == message
    # the same run in different columns is no mistake: it is trained once and stands in both
    text = rows(A="{topology.name: rigl}", B="{topology.name: rigl}") + (
        "  columns: {topology.sparsity: [0.5, 0.9]}\n  cells:\n"
        "  - {when: {row: B, topology.sparsity: 0.5}, set: {topology.sparsity: 0.9}}\n"
        "  - {when: {row: B, topology.sparsity: 0.9}, set: {topology.sparsity: 0.95}}\n"
    )
    cells = sweep(text).cells
    assert cells[1].path == cells[2].path == f"a-{cells[1].identity[:8]}-s0"


TWO = rows(RiGL="{topology.name: rigl}", Random="{topology.name: random}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\n", "c: has no section sweep, so it is a single run: use `ham run 'quick start'`"),
        ("seed: x\nsweep: {}\n", "c:1: seed: 'x' is not a whole number"),
        ("sweep: {row: {}}\n", "c:1: sweep.row: unknown key; allowed: name, title, notes, tuning, tuning_cells, rows, columns, seeds, cells, baselines; did you mean 'rows'?"),
        ("sweep: {rows: {}}\n", "c:1: sweep.rows: is empty; write at least one entry"),
        ("sweep:\n  rows:\n    A: 5\n", "c:3: sweep.rows.A: 5 is not a mapping"),
        ("sweep: {rows: [A]}\n", "c:1: sweep.rows: ['A'] is not a mapping"),
        ("sweep: {seeds: 3}\n", "c:1: sweep.seeds: 3 is not a list"),
        ("sweep: {seeds: []}\n", "c:1: sweep.seeds: is empty; write at least one entry"),
        ("sweep: {seeds: [1, -1]}\n", "c:1: sweep.seeds.1: -1 is out of range: must be >= 0"),
        ("sweep: {seeds: [1, 2, 1]}\n", "c:1: sweep.seeds: [1, 2, 1] has a seed twice"),
        ("sweep: {name: a/b}\n", "c:1: sweep.name: 'a/b' is not a folder name"),
        ("sweep: {name: ..}\n", "c:1: sweep.name: '..' is not a folder name"),
        ("sweep: {tuning_cells: 0}\n", "c:1: sweep.tuning_cells: 0 is out of range: must be >= 1"),
        ("sweep: {columns: {optimizer.lr: []}}\n", "c:1: sweep.columns.optimizer.lr: is empty; write at least one entry"),
        ("sweep: {columns: {optimizer.lr: 0.1}}\n", "c:1: sweep.columns.optimizer.lr: 0.1 is not a list"),
        ("sweep: {columns: {optimizer.lr: [1, 1.0]}}\n", "c:1: sweep.columns.optimizer.lr: 1.0 stands there twice"),
        ("sweep: {columns: {optimizer.ham: [{}]}}\n", "c:1: sweep.columns.optimizer.ham: a column's values are numbers, text, true, false or null; use rows for more"),
        ("sweep: {columns: {seed: [1]}}\n", "c:1: sweep.columns.seed: does not change what a run computes, so it cannot be a column; seeds are listed in sweep.seeds"),
        ("sweep: {columns: {data.root: [a, b]}}\n", "c:1: sweep.columns.data.root: does not change what a run computes, so it cannot be a column"),
        ("sweep: {columns: {a..b: [1]}}\n", "c:1: the key 'a..b' has an empty part between its dots"),
        ("sweep: {columns: {optimizer.lrr: [1]}}\n", "c:1: row 'quick start' at optimizer.lrr=1: optimizer.lrr: unknown key; allowed: "),
        ("sweep: {columns: {optimzer.lr: [1]}}\n", "c:1: row 'quick start' at optimzer.lr=1: optimzer: unknown key; allowed: "),
        ("sweep: {columns: {optimizer.ham.alpha: [1]}}\n", "c:1: sweep.columns.optimizer.ham.alpha: has no effect, since no row has optimizer.ham: set optimizer.ham in a row"),
        (TWO + "    X: {topology.name: rgl}\n", "c:5: row 'X': topology.name: 'rgl' is not a topology"),
        (TWO + "    X: {seed: 3}\n", "c:5: sweep.rows.X.seed: cannot be set in a row or cell: seeds are listed in sweep.seeds"),
        (TWO + "    X: {label: x}\n", "c:5: sweep.rows.X.label: cannot be set in a row or cell: it belongs to the whole configuration"),
        (TWO + "    X: {optimizer: {lr: 1}}\n", "c:5: row 'X': optimizer: name, momentum, nesterov, weight_decay, weight_decay_on, clip_grad_norm, ham, sam, ema_decay, sparse_opt are missing; a mapping in an override replaces all of optimizer, write optimizer.KEY to set one key"),
        (TWO + "    X: {optimizer.lr: 1, optimizer: {lr: 2}}\n", "c:5: row 'X': the keys optimizer.lr and optimizer overlap; write one of them"),
        (TWO + "    X: {topology.name: rigl, representation.name: str}\n", "c:5: row 'X': topology.name: topology 'rigl' regrows weights at zero"),
        (TWO + "    X: {seed.x: 1}\n", "c:5: sweep.rows.X.seed.x: cannot be set in a row or cell"),
        (TWO + "    X: {'': 1}\n", "c:5:9: the key '' is not text"),
        (TWO + "  columns: {topology.sparsity: [0.9, 95]}\n", "c:5: row 'RiGL' at topology.sparsity=95: topology.sparsity: 95 is out of range: must be < 1; sparsity is the fraction of zeros: write 0.95"),
        (TWO + "  baselines: {RiGL: Randm}\n", "c:5: sweep.baselines.RiGL: 'Randm' is not a row; rows: RiGL, Random; did you mean 'Random'?"),
        (TWO + "  baselines: {RIGL: Random}\n", "c:5: sweep.baselines.RIGL: 'RIGL' is not a row; rows: RiGL, Random; did you mean 'RiGL'?"),
        (TWO + "  baselines: {RiGL: RiGL}\n", "c:5: sweep.baselines.RiGL: a row cannot be its own baseline"),
        (TWO + "  baselines: [RiGL]\n", "c:5: sweep.baselines: ['RiGL'] is not a mapping"),
        (TWO + "  cells: {when: {row: RiGL}}\n", "c:5: sweep.cells: {'when': {'row': 'RiGL'}} is not a list"),
        (TWO + "  cells:\n  - when: {row: RiGL}\n", "c:5: sweep.cells.0: set is missing"),
        (TWO + "  cells:\n  - {when: {}, set: {optimizer.lr: 1}}\n", "c:6: sweep.cells.0.when: is empty; write at least one entry"),
        (TWO + "  cells:\n  - {when: {row: RiGL}, set: {seed: 1}}\n", "c:6: sweep.cells.0.set.seed: cannot be set in a row or cell"),
        (TWO + "  cells:\n  - {when: {row: rigl}, set: {optimizer.lr: 1}}\n", "c:6: sweep.cells.0.when.row: 'rigl' is not a row; rows: RiGL, Random"),
        (TWO + "  cells:\n  - {when: {row: []}, set: {optimizer.lr: 1}}\n", "c:6: sweep.cells.0.when.row: an empty list matches no cell"),
        (TWO + "  cells:\n  - {when: {rows: RiGL}, set: {optimizer.lr: 1}}\n", "c:6: sweep.cells.0.when.rows: is neither row nor a column; allowed: row; did you mean 'row'?"),
        (TWO + "  columns: {topology.sparsity: [0.9]}\n  cells:\n  - {when: {topology.sparsity: 0.8}, set: {optimizer.lr: 1}}\n", "c:7: sweep.cells.0.when.topology.sparsity: 0.8 is not a value of that column; values: 0.9"),
        (TWO + "  columns: {topology.sparsity: [0.9]}\n  cells:\n  - {when: {row: RiGL}, set: {optimizer.lr: -1}}\n", "c:7: row 'RiGL' at topology.sparsity=0.9: optimizer.lr: -1 is out of range: must be > 0"),
    ],
)  # fmt: skip
def test_messages(text: str, message: str):
    assert refused(text).startswith(message)


def test_the_base_must_be_valid_by_itself():
    text = "representation.name: str\ntopology.name: rigl\n" + rows(A="{topology.name: random}")
    assert refused(text).startswith("c:2: topology.name: topology 'rigl' regrows weights at zero")


def test_the_content_of_the_data_enters_the_identity():
    text = rows(A="{}", B="{data.name: synthetic}")
    plain, known = sweep(text).cells, sweep(text, content_hash=lambda spec: f"hash of {spec.data.name}").cells
    assert [cell.identity for cell in known] == [identity(c.spec, f"hash of {c.spec.data.name}") for c in plain]
    assert {cell.identity for cell in known}.isdisjoint(cell.identity for cell in plain)


def test_cells_that_are_not_calibrated_can_be_listed():
    text = rows(STR="{representation: {name: str, threshold_decay: calibrated}}", Dense="{}")
    text += "  columns: {topology.sparsity: [0.8, 0.9]}\n"
    message = "c:3: row 'STR' at topology.sparsity=0.8: representation.threshold_decay: not calibrated for dense + str"
    assert refused(text).startswith(message)
    cells = sweep(text, calibrate=False).cells
    assert [getattr(cell.spec.representation.options, "threshold_decay", None) for cell in cells] == [
        "calibrated"
    ] * 2 + [None] * 2


def test_a_single_run_ignores_the_sweep():
    Path("c.yaml").write_text(TABLE)
    assert resolve(load("c")).label == "ignored"
