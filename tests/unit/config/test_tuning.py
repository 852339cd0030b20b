"""The section ``sweep.tuning``: which settings are tried, when a stored choice counts, and every way it can be wrong."""

# ruff: noqa: E501 - a message stands on one line, as users see it
from __future__ import annotations

from pathlib import Path

import pytest

from experiments.config.choices import (
    Choice,
    Choices,
    choices_path,
    combinations,
    edge,
    read_choices,
    store,
)
from experiments.config.resolve import Loaded, load
from experiments.config.stage import Stage, stage
from experiments.config.sweep import expand, manifest
from experiments.config.tuning import first, known
from experiments.errors import UserError
from experiments.rundir.names import COMPARED_AT, NOT_IDENTIFYING

HEAD = """
data: {validation: 1000}
sweep:
  rows:
    Dense:
    RiGL: {topology.name: rigl}
    RiGL + HAM: {topology.name: rigl, optimizer.ham: {}}
    STR: {representation: {name: str, threshold_decay: calibrated}}
  columns: {topology.sparsity: [0.9, 0.95]}
  seeds: [0, 1]
"""
TUNING = """  tuning:
    grid: {optimizer.lr: [0.1, 0.2], optimizer.weight_decay: [0.0, 5.0e-4]}
    rows:
      RiGL + HAM: {optimizer.lr: [0.1, 0.2, 0.4], optimizer.ham.alpha: [1.0, 5.0]}
      STR: null
    seeds: [100, 101]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str = HEAD + TUNING, *overrides: str) -> Loaded:
    Path("c.yaml").write_text(text)
    return load("c.yaml", overrides)


def staged(config: Loaded, choices: Choices | None = None) -> Stage:
    found = stage(config, known(choices or Choices({})), {})
    assert found is not None
    return found


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        staged(loaded(text))
    return str(caught.value)


def choose_all(config: Loaded, last: bool = False) -> list[Choice]:
    """A choice for every row that is tuned: its first setting, or its last."""
    found = []
    for place in staged(config).places:
        tuning = staged(config).tuning
        one = first(tuning, place.row, place.column)
        setting = combinations(one.tried)[-1 if last else 0]
        found.append(one.model_copy(update={"identity": place.identity, "column": place.column, "chosen": setting}))
    return found


def test_each_row_tries_the_product_of_its_grid_at_the_tunings_seeds():
    found = staged(loaded())
    places = [(place.row, place.column["topology.sparsity"]) for place in found.places]
    # a dense row is the same at every sparsity, and one without a grid is not tuned
    assert places == [("Dense", 0.9), ("RiGL", 0.9), ("RiGL", 0.95), ("RiGL + HAM", 0.9), ("RiGL + HAM", 0.95)]
    assert [len(found.of([place])) for place in found.places] == [8, 8, 8, 12, 12]
    own = found.of([found.places[3]])
    tried = [(c.spec.optimizer.lr, c.spec.optimizer.ham.alpha, c.seed) for c in own if c.spec.optimizer.ham]
    assert tried == [(lr, alpha, seed) for lr in (0.1, 0.2, 0.4) for alpha in (1.0, 5.0) for seed in (100, 101)]
    assert {cell.spec.data.evaluate_on for cell in found.cells} == {"validation"}
    assert len({cell.path for cell in found.cells}) == len(found.cells)
    assert found.name == "c-tuning"


def test_the_table_has_the_chosen_settings_and_its_manifest_says_how():
    config = loaded()
    choices = choose_all(config, last=True)
    store(choices_path(config.path), choices)
    table = expand(config, calibrate=False)
    rigl = next(cell.spec.optimizer for cell in table.cells if cell.row == "RiGL")
    with_ham = next(cell.spec.optimizer for cell in table.cells if cell.row == "RiGL + HAM")
    assert (rigl.lr, rigl.weight_decay) == (0.2, 5e-4)
    assert with_ham.ham is not None
    assert (with_ham.lr, with_ham.ham.alpha, with_ham.weight_decay) == (0.4, 5.0, 5e-4)
    assert {cell.spec.data.evaluate_on for cell in table.cells} == {"test"}
    told = manifest(table)["tuning"]
    assert (told["on"], told["seeds"], told["untuned"]) == ("validation", [100, 101], ["STR"])
    assert [(one["row"], one["chosen"]) for one in told["choices"]] == [(one.row, one.chosen) for one in choices]
    assert "tuning" not in manifest(expand(loaded(HEAD), calibrate=False))


def test_without_a_choice_the_table_is_refused_by_row():
    with pytest.raises(UserError, match=r"c.yaml:\d+: sweep.tuning: no settings are chosen for 'Dense' at .*`ham tune"):
        expand(loaded())


EDITS = {
    "a value of the grid": ("0.4]", "0.5]"),
    "the order of the grid": ("[0.1, 0.2, 0.4]", "[0.2, 0.1, 0.4]"),
    "the tuning's seeds": ("[100, 101]", "[100, 102]"),
    "the row": ("{topology.name: rigl, optimizer.ham: {}}", "{topology.name: set, optimizer.ham: {}}"),
    "the part that decides": ("seeds: [100", "on: test\n    seeds: [100"),
    "the base": ("validation: 1000", "validation: 2000"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_configuration_uses_no_stale_choice(edit: str):
    choices = Choices({one.identity: one for one in choose_all(loaded())})
    assert not staged(loaded(), choices).open
    was, now = EDITS[edit]
    edited = (HEAD + TUNING).replace(was, now)
    assert edited != HEAD + TUNING
    still_open = staged(loaded(edited), choices).open
    assert "RiGL + HAM" in {place.row for place in still_open}
    assert choices.names("RiGL + HAM", {"topology.sparsity": 0.9}), "so that it can be said that there was one"


@pytest.mark.parametrize("override", ["tracking.wandb=disabled", "sweep.seeds=[7, 8]", "checkpoint.keep=5"])
def test_what_changes_no_run_of_the_tuning_keeps_its_choice(override: str):
    choices = Choices({one.identity: one for one in choose_all(loaded())})
    assert not staged(loaded(HEAD + TUNING, override), choices).open


def test_a_choice_on_data_of_another_content_does_not_count():
    config = loaded()
    choices = Choices({one.identity: one.model_copy(update={"data": "old"}) for one in choose_all(config)})
    for content, open_places in (("old", 0), ("new", 5)):
        found = stage(config, known(choices, lambda spec, content=content: content), {})
        assert found is not None
        assert len(found.open) == open_places


def test_columns_that_stand_for_all_of_their_key():
    config = loaded((HEAD + TUNING).replace("    seeds: [100", "    at: {topology.sparsity: 0.95}\n    seeds: [100"))
    choices = choose_all(config)
    assert [(one.row, one.column["topology.sparsity"]) for one in choices] == [
        (row, 0.95) for row in ("Dense", "RiGL", "RiGL + HAM")
    ]
    store(choices_path(config.path), choices)
    table = expand(config, calibrate=False)
    assert {cell.spec.optimizer.lr for cell in table.cells if cell.row == "RiGL"} == {0.1}
    assert {cell.spec.topology.sparsity for cell in table.cells if cell.row == "RiGL"} == {0.9, 0.95}
    assert [one["row"] for one in manifest(table)["tuning"]["choices"]] == ["Dense", "RiGL", "RiGL + HAM"]


def test_a_calibrated_decay_comes_along_where_it_was_found():
    text = (HEAD + TUNING).replace("STR: null", "STR: {optimizer.lr: [0.1, 0.2]}")
    text = text.replace("    seeds: [100", "    at: {topology.sparsity: 0.95}\n    seeds: [100")
    config = loaded(text)
    found = staged(config)
    assert [(cell.row, cell.column["optimizer.lr"]) for cell in found.unsolved] == [("STR", 0.1), ("STR", 0.2)]
    solved = [
        one.model_copy(update={"threshold_decay": 0.25} if one.row == "STR" else {}) for one in choose_all(config)
    ]
    store(choices_path(config.path), solved)
    at_90, at_95 = (
        next(c for c in expand(config, calibrate=False).cells if (c.row, c.column["topology.sparsity"]) == ("STR", s))
        for s in (0.9, 0.95)
    )
    assert at_95.spec.representation.options.threshold_decay == 0.25
    assert at_90.spec.representation.options.threshold_decay == "calibrated"


def test_tuned_rows_may_come_to_the_same_run():
    text = HEAD.replace(
        "    STR: {representation: {name: str, threshold_decay: calibrated}}\n",
        "    Recipe: {topology.name: rigl, optimizer.lr: 0.2}\n",
    )
    tuning = "  tuning: {rows: {RiGL: {optimizer.lr: [0.1, 0.2]}}, seeds: [100]}\n"
    config = loaded(text + tuning)
    store(choices_path(config.path), choose_all(config, last=True))
    paths = {cell.row: cell.path for cell in expand(config).cells}
    assert paths["RiGL"] == paths["Recipe"]


def grid(line: str, head: str = HEAD) -> str:
    return f"{head}  tuning:\n    {line}\n    seeds: [100]\n"


TWO = "grid: {optimizer.lr: [0.1, 0.2]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (grid(TWO).replace("[100]", "[100, 1]"), "c.yaml:13: sweep.tuning.seeds: 1 also in the table's own seeds, whose results would count twice; use others, such as [100, 101]"),
        (grid(TWO).replace("[100]", "[100, 100]"), "c.yaml:13: sweep.tuning.seeds: [100, 100] has a seed twice"),
        (grid(TWO).replace("    seeds: [100]\n", ""), "c.yaml:11: sweep.tuning: seeds is missing"),
        (grid(TWO).replace("[100]", "[]"), "c.yaml:13: sweep.tuning.seeds: is empty"),
        (grid("grid: {}"), "c.yaml:12: sweep.tuning.grid: tries nothing: write the values of at least one key"),
        (grid("grid: {optimizer.lr: []}"), "c.yaml:12: sweep.tuning.grid.optimizer.lr: is empty"),
        (grid("grid: {optimizer.lr: 0.1}"), "c.yaml:12: sweep.tuning.grid.optimizer.lr: 0.1 is not a list"),
        (grid("grid: {optimizer.lr: [0.1, 0.1]}"), "c.yaml:12: sweep.tuning.grid.optimizer.lr: 0.1 stands there twice"),
        (grid("grid: {optimizer.lr: [0.1, [0.2]]}"), "c.yaml:12: sweep.tuning.grid.optimizer.lr: what is tried are numbers, text, true, false or null"),
        (grid("grid: {optimizer.lr: [0.1, -1.0]}"), "c.yaml:12: row 'Dense' at topology.sparsity=0.9, optimizer.lr=-1.0: optimizer.lr: -1.0 is out of range: must be > 0"),
        (grid("grid: {optimizer.lrr: [0.1, 0.2]}"), "c.yaml:12: row 'Dense' at topology.sparsity=0.9, optimizer.lrr=0.1: optimizer.lrr: unknown key"),
        (grid("grid: {topology.sparsity: [0.9, 0.95]}"), "c.yaml:12: sweep.tuning.grid.topology.sparsity: a column of the table (topology.sparsity) is never a setting; remove it here"),
        (grid("grid: {topology: [1, 2]}"), "c.yaml:12: sweep.tuning.grid.topology: a column of the table (topology.sparsity) is never a setting"),
        (grid("grid: {seed: [1, 2]}"), "c.yaml:12: sweep.tuning.grid.seed: does not change what a run computes, so there is nothing to choose"),
        (grid("grid: {tracking.wandb: [auto, online]}"), "c.yaml:12: sweep.tuning.grid.tracking.wandb: does not change what a run computes"),
        (grid("grid: {optimizer.ham.alpha: [1.0, 5.0]}"), "c.yaml:12: sweep.tuning.grid.optimizer.ham.alpha: has no effect in the row 'Dense', where optimizer.ham is null; give this row a grid of its own in sweep.tuning.rows"),
        (grid("rows: {RiGL: {optimizer.ham.alpha: [1.0, 5.0]}}"), "c.yaml:12: sweep.tuning.rows.RiGL.optimizer.ham.alpha: has no effect in the row 'RiGL', where optimizer.ham is null"),
        (grid(TWO, HEAD + "  cells:\n  - {when: {row: RiGL}, set: {optimizer.lr: 0.3}}\n"), ""),
        (grid("rows: {rigl: {optimizer.lr: [0.1, 0.2]}}"), "c.yaml:12: sweep.tuning.rows.rigl: is not a row; rows: Dense, RiGL, RiGL + HAM, STR"),
        (grid(f"{TWO}\n    on: tests"), "c.yaml:13: sweep.tuning.on: 'tests' is not one of validation, test; did you mean 'test'?"),
        (grid(f"{TWO}\n    at: {{model.name: x}}"), "c.yaml:13: sweep.tuning.at.model.name: is not a column; columns: topology.sparsity"),
        (grid(f"{TWO}\n    at: {{topology.sparsity: 0.5}}"), "c.yaml:13: sweep.tuning.at.topology.sparsity: 0.5 is not a value of that column; values: 0.9, 0.95"),
        (grid(f"{TWO}\n    grids: {{}}"), "c.yaml:13: sweep.tuning.grids: unknown key; allowed: grid, rows, at, seeds, on; did you mean 'grid'?"),
        (grid(TWO, HEAD.replace("1000", "0")), "c.yaml:11: sweep.tuning.on: the validation part is to decide, and data.validation is 0: set it above 0"),
        (grid(TWO, HEAD + "  tuning_cells: 12\n"), "c.yaml:11: sweep.tuning_cells: sweep.tuning counts the settings itself; remove this key"),
        (grid("grid: {schedule.gamma: [0.1, 0.2], optimizer.lr: [0.1, 0.2]}", HEAD.replace("    Dense:\n", "    Dense: {optimizer.lr: 0.3}\n    Dense too: {optimizer.lr: 0.4}\n")), "c.yaml:6: sweep.rows.Dense too: the rows 'Dense' and 'Dense too' differ only in what is tuned, so they would be the same row"),
    ],
)  # fmt: skip
def test_messages(text: str, message: str):
    if message:
        assert refused(text).startswith(message)
    else:  # a setting counts more than a rule of cells
        tried = {cell.spec.optimizer.lr for cell in staged(loaded(text)).cells if cell.row == "RiGL"}
        assert tried == {0.1, 0.2}


def test_a_key_that_a_method_ignores_is_no_setting():
    text = grid(
        "rows: {Dense: {topology.sparsity: [0.1, 0.2]}}",
        HEAD.replace("  columns: {topology.sparsity: [0.9, 0.95]}\n", ""),
    )
    assert "sweep.tuning.rows.Dense.topology.sparsity: says at what rows are compared" in refused(text)
    for key in COMPARED_AT:
        assert "says at what rows are compared" in refused(
            grid(
                f"rows: {{Dense: {{{key}: [1, 2]}}}}", HEAD.replace("  columns: {topology.sparsity: [0.9, 0.95]}\n", "")
            )
        )


@pytest.mark.parametrize("key", [*NOT_IDENTIFYING, "imports"])
def test_nothing_outside_the_identity_is_a_setting(key: str):
    assert "does not change what a run computes" in refused(grid(f"grid: {{{key}: [1, 2]}}"))


def test_two_spellings_of_a_number_are_one_setting():
    text = grid("rows: {RiGL: {optimizer.weight_decay: [1.0, -0.0, 0.0]}}")
    assert "sweep.tuning.rows.RiGL.optimizer.weight_decay: 0.0 stands there twice" in refused(text)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"chosen": {"optimizer.lr": 0.3}}, "chosen is not one of the combinations of tried"),
        ({"accuracy": 0.5}, "accuracy belongs to what was recorded"),
        ({"recorded": True}, "accuracy belongs to what was recorded"),
        ({"threshold_decay": -1.0}, "threshold_decay"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_a_file_of_choices_that_was_edited_is_refused(edit: dict, message: str):
    from experiments.config.yaml_text import dump

    entry = {
        "identity": "a",
        "row": "RiGL",
        "chosen": {"optimizer.lr": 0.1},
        "tried": {"optimizer.lr": [0.1, 0.2]},
        "seeds": [100],
        "on": "validation",
        "recorded": False,
    }
    Path("c.tuning.yaml").write_text(dump([{**entry, **edit}]))
    with pytest.raises(UserError, match="c.tuning.yaml") as caught:
        read_choices([Path("c.tuning.yaml")])
    assert message in str(caught.value)
    Path("c.tuning.yaml").write_text("choices")
    with pytest.raises(UserError, match="must be a list of mappings"):
        read_choices([Path("c.tuning.yaml")])
    Path("c.tuning.yaml").write_text(dump([entry]))
    assert read_choices([Path("c.tuning.yaml"), Path("none.yaml")]).of("a", None) is not None


def test_the_first_file_counts_and_storing_replaces():
    one, other = Path("one.yaml"), Path("other.yaml")
    choice = choose_all(loaded())[0]
    store(one, [choice])
    store(other, [choice.model_copy(update={"chosen": combinations(choice.tried)[1]})])
    assert read_choices([one, other]).found[choice.identity].chosen == combinations(choice.tried)[0]
    assert read_choices([other, one]).found[choice.identity].chosen == combinations(choice.tried)[1]
    store(one, read_choices([other]).found.values())
    assert read_choices([one]).found[choice.identity].chosen == combinations(choice.tried)[1]


@pytest.mark.parametrize(
    ("tried", "value", "end"),
    [([0.1, 0.2, 0.4], 0.4, "largest"), ([0.4, 0.1, 0.2], 0.1, "smallest"), ([0.1, 0.2, 0.4], 0.2, ""), ([0.1, 0.2], 0.2, ""), ([None, 1, 2, 5], 5, "largest"), ([None, 1, 2, 5], None, ""), ([True, False], True, "")],
)  # fmt: skip
def test_an_end_of_a_range_takes_three_numbers(tried: list, value: object, end: str):
    assert edge(tried, value) == end
