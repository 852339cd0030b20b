"""Captions never lie: what was trained comes from the runs; what differs, is hidden or was overridden is said."""

from __future__ import annotations

import json

import pytest
import yaml
from fake_runs import ENVIRONMENT, SPEC, write_json, write_sweep

from experiments.rundir.result import seal
from results.page.report import write_report
from results.runs.store import read
from results.table.against import against
from results.table.formats import FORMATS, render
from results.table.printed import printed
from results.table.tables import table

RIGL = {"topology.name": "rigl"}
ROWS = {"Dense": {}, "RiGL": RIGL, "RiGL + HAM": {**RIGL, "optimizer.ham": {"alpha": 20.0}}}
VALUES = {"Dense": [0.88, 0.90, 0.89], "RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}


def sweep(folder, rows=ROWS, **manifest):
    values = {row: VALUES.get(row, VALUES["RiGL"]) for row in rows}
    return write_sweep(folder, values, rows, [{"topology.sparsity": 0.95}], (0, 1, 2), {}, **manifest)


def respec(folder, row, **changes):
    """Change the configurations of a row's runs; a keyword with double underscores is a dotted key."""
    for run in read(folder).runs:
        if run.row == row:
            spec = yaml.safe_load((run.path / "spec.yaml").read_text())
            for key, value in changes.items():
                section, name = key.split("__")
                spec[section][name] = value
            (run.path / "spec.yaml").write_text(yaml.safe_dump(spec))


def first(folder):
    return table(read(folder)).caption[0]


def test_the_first_line_is_what_the_runs_say(tmp_path):
    sweep(tmp_path, title="ResNet-50, 102 epochs", notes="102 epochs")
    assert first(tmp_path).startswith(
        "Trained, by the runs' own configurations: resnet8, fashion_mnist, 4 epochs, 128 images a step."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule__epochs": 1}, "4 epochs (Dense, RiGL); 1 epoch (RiGL + HAM)"),
        ({"data__batch_size": 1024}, "128 images a step (Dense, RiGL); 1,024 images a step (RiGL + HAM)"),
        ({"model__name": "mlp_bn"}, "resnet8 (Dense, RiGL); mlp_bn (RiGL + HAM)"),
        (
            {"data__train_limit": 4000, "data__image_size": 32},
            "fashion_mnist (Dense, RiGL); fashion_mnist (4,000 training images, 32 pixels) (RiGL + HAM)",
        ),
    ],
)
def test_rows_that_were_trained_otherwise_are_named(tmp_path, changes, words):
    respec(sweep(tmp_path), "RiGL + HAM", **changes)
    assert words in first(tmp_path)


def test_a_key_that_is_a_column_is_left_to_the_columns(tmp_path):
    columns = [{"model.name": name} for name in ("resnet8", "mlp_bn")]
    write_sweep(tmp_path, VALUES, ROWS, columns, (0, 1, 2), {})
    assert first(tmp_path).startswith("Trained, by the runs' own configurations: fashion_mnist, 4 epochs")


def test_configurations_that_are_lost_say_nothing(tmp_path):
    for run in read(sweep(tmp_path)).runs:
        (run.path / "spec.yaml").unlink()
    assert first(tmp_path).startswith("Accuracy: top-1")


# ---- how density is distributed over layers --------------------------------------------------------------------------


def layers(folder):
    grid = table(read(folder)).grids[0]
    return [head.label for head in grid.header][1], [line.cells[1].text.strip() for line in grid.rows]


def test_the_distribution_is_a_column_where_it_is_not_the_same(tmp_path):
    sweep(tmp_path)
    for row in ("RiGL", "RiGL + HAM"):
        respec(tmp_path, row, topology__allocation="erk")
    assert layers(tmp_path)[0] == "Accuracy, %"
    assert "Layers' densities: ERK." in first(tmp_path)
    respec(tmp_path, "RiGL + HAM", topology__allocation="uniform")
    assert layers(tmp_path) == ("Layers", ["", "ERK", "uniform"])


def test_a_method_that_distributes_by_itself_is_said_to(tmp_path):
    respec(sweep(tmp_path), "RiGL", topology__allocation="balanced")
    assert layers(tmp_path) == ("Layers", ["", "balanced", "own"])  # the other has no such option
    respec(tmp_path, "RiGL + HAM", representation__allocation="global")
    assert layers(tmp_path) == ("Layers", ["", "balanced", "global"])


# ---- words of the author that an override makes wrong ----------------------------------------------------------------


def test_title_and_notes_are_marked_where_the_command_line_changed_the_table(tmp_path):
    head = {"title": "RiGL, 102 epochs", "notes": "The recipe of its authors (102 epochs)."}
    made = table(read(sweep(tmp_path / "plain", **head, overrides=[])))
    assert (made.title, made.caption[-1]) == (head["title"], head["notes"])
    changed = ["schedule.epochs=6", "data.batch_size=16"]
    made = table(read(sweep(tmp_path / "changed", **head, overrides=changed)))
    assert made.title == "RiGL, 102 epochs (with schedule.epochs=6, data.batch_size=16)"
    assert made.caption[-1] == (
        "Notes written for other settings, without schedule.epochs=6, data.batch_size=16: "
        "The recipe of its authors (102 epochs)."
    )


@pytest.mark.parametrize("form", [*FORMATS, "report", "paper", "against"])
def test_what_the_command_line_changed_is_in_every_form_of_a_table(tmp_path, form):
    folder = sweep(tmp_path / "changed", title="RiGL", overrides=["schedule.epochs=6"])
    if form == "report":
        said = write_report(folder).read_text()
    elif form == "paper":
        said = printed([read(folder)], 2)
    elif form == "against":
        said = against([read(folder)], ["ham"], 0.3, 2).title
    else:
        said = render(folder, form)
    # numbers alone have no title
    assert ("RiGL (with schedule.epochs=6)" in said) is (form != "csv")


def test_runs_that_another_sweep_has_trained_are_named(tmp_path):
    sweep(tmp_path)
    assert not any("another sweep" in text for text in table(read(tmp_path)).caption)
    for seed in (0, 2):
        differ(tmp_path, seed, reused_from=f"/runs/other/rigl-0123abcd-s{seed}")
    made = table(read(tmp_path))
    assert made.caption[1] == (
        "Trained for another sweep and reused from its folder, not trained again: /runs/other (RiGL)."
    )
    assert made.warnings == ()


# ---- seeds of one cell that differ in more than their seed -----------------------------------------------------------


def differ(folder, seed, environment=None, **result):
    (run,) = [run for run in read(folder).runs if (run.row, run.seed) == ("RiGL", seed)]
    write_json(run.path / "environment.json", {**ENVIRONMENT, **(environment or {})})
    write_json(run.path / "result.json", seal({**run.result, **result}, run.path))


@pytest.mark.parametrize(
    ("environment", "result", "words"),
    [
        ({"torch": "1.13"}, {}, "torch 2.14.1: seeds 0, 2; 1.13: seed 1"),
        ({"gpu": "H200"}, {}, "device Example CPU: seeds 0, 2; H200: seed 1"),
        ({"git_commit": "ffff"}, {}, "commit 0123abc: seeds 0, 2; ffff: seed 1"),
        ({"threads": 2}, {}, "threads 1: seeds 0, 2; 2: seed 1"),
        ({}, {"evaluated": 1000}, "evaluated 10000: seeds 0, 2; 1000: seed 1"),
        ({}, {"epochs": 3}, "epochs 4: seeds 0, 2; 3: seed 1"),
        ({}, {"accuracy_on": "validation"}, "accuracy_on test: seeds 0, 2; validation: seed 1"),
    ],
)
def test_seeds_that_are_not_alike_are_named(tmp_path, environment, result, words):
    assert table(read(sweep(tmp_path))).warnings == ()
    differ(tmp_path, 1, environment, **result)
    found = [text for text in table(read(tmp_path)).warnings if "more than their seed" in text]
    assert found == [f"Seeds of one cell differ in more than their seed: RiGL ({words})."]


def test_what_is_unknown_of_one_seed_differs_from_nothing(tmp_path):
    sweep(tmp_path)
    (run,) = [run for run in read(tmp_path).runs if (run.row, run.seed) == ("RiGL", 1)]
    (run.path / "environment.json").unlink()
    assert table(read(tmp_path)).warnings == ()


# ---- runs that no row names ------------------------------------------------------------------------------------------


def test_runs_that_the_table_no_longer_names_are_counted(tmp_path):
    sweep(tmp_path)
    manifest = json.loads((tmp_path / "sweep.json").read_text())
    manifest["cells"] = [cell for cell in manifest["cells"] if cell["row"] != "RiGL"]
    write_json(tmp_path / "sweep.json", manifest)
    (text,) = [text for text in table(read(tmp_path)).warnings if "in no row" in text]
    assert text.startswith("3 further runs lie in this folder and in no row")
    assert text.count("rigl-") == 3
    (tmp_path / "submissions").mkdir()
    assert len(read(tmp_path).strays) == 3
    assert SPEC["label"] is None
