"""Tables: cells, differences and Holm by hand, what is shown, what is marked."""

from __future__ import annotations

import json
import re

import pytest
from fake_runs import fail, forget, result
from table_sweep import HAM, RIGL, SEVERAL, VALUES, edit, grid, path_of, sweep

from experiments.errors import UserError
from results.runs.store import read
from results.table.formats import render
from results.table.tables import table


def test_one_column_by_hand(tmp_path):
    assert grid(sweep(tmp_path)) == [
        ["Dense", "89.00 ± 1.00 (3)", "", "0.00", "1.000", "1.000"],
        ["RiGL", "82.00 ± 2.00 (3)", "", "95.00", "0.098", "0.145"],
        ["RiGL + HAM", "83.00 ± 2.65 (3)", "+1.00 [−1.48, +3.48] (3)", "95.00", "0.098", "0.145"],
    ]


def test_several_columns_make_three_grids(tmp_path):
    made = table(read(sweep(tmp_path, columns=SEVERAL)))
    assert [g.heading for g in made.grids] == [
        "Accuracy, %, by target sparsity",
        "Δ to plain, points [95 % CI], by target sparsity",
        "Realised sparsity and FLOPs, by target sparsity",
    ]
    assert [head.label for head in made.grids[0].header] == ["Method", "80 %", "95 %"]
    assert [len(g.rows) for g in made.grids] == [3, 1, 3]
    assert grid(tmp_path, 2)[1] == ["RiGL", "80.00", "95.00", "0.240", "0.098", "0.280", "0.145"]
    assert [head.group for head in made.grids[2].header][1:] == [
        *["Sparsity, %"] * 2,
        *["FLOPs, inference"] * 2,
        *["FLOPs, training"] * 2,
    ]


def test_two_column_keys_split_by_the_one_that_is_not_sparsity(tmp_path):
    columns = [{"topology.sparsity": s, "model.name": m} for s in (0.8, 0.9) for m in ("resnet8", "mlp_bn")]
    made = table(read(sweep(tmp_path, columns=columns)))
    assert [g.heading.split(":")[0] for g in made.grids] == ["resnet8"] * 3 + ["mlp_bn"] * 3
    assert [head.label for head in made.grids[0].header] == ["Method", "80 %", "90 %"]


def test_other_columns_are_named_by_key_and_value(tmp_path):
    columns = [{"optimizer.lr": value} for value in (0.1, 0.2)]
    made = table(read(sweep(tmp_path, columns=columns)))
    assert made.grids[0].heading == "Accuracy, %"
    assert [head.label for head in made.grids[0].header] == ["Method", "lr=0.1", "lr=0.2"]


def test_one_seed_has_neither_spread_nor_interval(tmp_path):
    sweep(tmp_path, {row: values[:1] for row, values in VALUES.items()}, seeds=(0,))
    assert grid(tmp_path)[2][1:3] == ["81.00 ± – (1)", "+1.00 [–, –] (1)"]
    assert table(read(tmp_path)).warnings[0].startswith("Fewer than 3 seeds in every cell")


def test_few_seeds_name_their_rows(tmp_path):
    forget(path_of(sweep(tmp_path), "RiGL", 2))
    found = table(read(tmp_path)).warnings
    assert found[0] == "Fewer than 3 seeds in RiGL (2): spread and intervals say little."
    assert found[1] == "Unfinished: RiGL: 2 of 3 seeds (1 missing)."
    assert grid(tmp_path)[1][1] == "81.00 ± 1.41 (2 of 3)"
    assert grid(tmp_path)[2][2].endswith("(2)")  # only the seeds that both rows have


def test_three_finished_seeds_warn_of_nothing(tmp_path):
    assert table(read(sweep(tmp_path))).warnings == ()


def test_failed_runs_are_counted(tmp_path):
    sweep(tmp_path, columns=SEVERAL)
    for seed in (0, 1, 2):
        fail(path_of(tmp_path, "RiGL", seed, {"topology.sparsity": 0.8}), "loss is nan")
    assert grid(tmp_path)[1][1] == "– (0 of 3)"
    assert grid(tmp_path, 1)[0][1] == "– (0)"
    assert table(read(tmp_path)).warnings == ("Unfinished: RiGL at 80 % sparse: 0 of 3 seeds (3 failed).",)


def test_a_run_repeated_over_columns_is_reported_once(tmp_path):
    forget(path_of(sweep(tmp_path, columns=SEVERAL), "Dense", 1))
    assert table(read(tmp_path)).warnings[1] == "Unfinished: Dense: 2 of 3 seeds (1 missing)."


def test_off_target_row_is_marked_and_not_judged(tmp_path):
    sweep(tmp_path, VALUES | {"RiGL + HAM": [0.90, 0.92, 0.941]})
    assert [cell.side for cell in table(read(tmp_path)).grids[0].rows[2].cells][2] == 1
    edit(tmp_path, "RiGL", seed=1, sparsity=0.9449)
    made = table(read(tmp_path))
    assert made.warnings == (
        "† RiGL: not comparable, off target by −0.51 points (asked for 95.00 % sparse; up to 0.5 points are allowed).",
    )
    plain, added = made.grids[0].rows[1:]
    assert plain.cells[1].text.endswith("(3) †")
    assert not added.cells[1].text.endswith("†")  # its own sparsity is right ...
    assert added.cells[2].text.endswith("(3) †")  # ... but not that of the row it is compared with
    assert added.cells[2].side == 0


@pytest.mark.parametrize("sparsity", [0.945, 0.955])
def test_half_a_point_off_is_still_on_target(tmp_path, sparsity):
    edit(sweep(tmp_path), "RiGL", sparsity=sparsity)
    assert table(read(tmp_path)).warnings == ()


def test_two_seeds_are_never_bold(tmp_path):
    sweep(tmp_path, {row: values[:2] for row, values in VALUES.items()} | {"RiGL + HAM": [0.90, 0.9201]}, seeds=(0, 1))
    made = table(read(tmp_path))
    (cell,) = [cell for key, cell in made.measurements.items() if key[0] == "RiGL + HAM"]
    assert cell.difference is not None
    assert (cell.difference.side, cell.difference.p_holm, cell.difference.verdict) == (1, None, 0)
    assert not any(each.side for line in made.grids[0].rows for each in line.cells)
    assert "None is judged: that takes 3 seeds" in " ".join(made.caption)


def test_a_table_is_judged_as_a_whole(tmp_path):
    """The same difference stands alone and among seven that are nothing: p by itself .017, over eight .14."""
    added = [0.82, 0.845, 0.855]  # differences of 2, 2.5 and 1.5 points
    noise = {
        f"RiGL + {i}": [value + shift for value, shift in zip(VALUES["RiGL"], (0.01, -0.01, 0.002), strict=True)]
        for i in range(7)
    }
    rows = {"RiGL": RIGL, "RiGL + HAM": HAM} | {
        row: {**RIGL, "optimizer.lr": 0.1 + 0.1 * i} for i, row in enumerate(noise, 1)
    }
    whole = {row: VALUES.get(row, added) for row in ("RiGL", "RiGL + HAM")} | {"RiGL + HAM": added} | noise
    few = sweep(tmp_path / "one", {row: whole[row] for row in ("RiGL", "RiGL + HAM")}, rows=None)
    many = sweep(tmp_path / "many", whole, rows, baselines={row: "RiGL" for row in rows if row != "RiGL"})
    for folder, number, bold in ((few, 1, True), (many, 8, False)):
        made = table(read(folder))
        cell = next(cell for key, cell in made.measurements.items() if key[0] == "RiGL + HAM")
        assert cell.difference is not None
        assert cell.difference.side == 1
        assert cell.difference.p_holm == pytest.approx(number * cell.difference.p)
        assert any(each.side for line in made.grids[0].rows for each in line.cells) is bold
    text = " ".join(made.caption)
    assert "p < .05 after Holm's correction over the table's 8 differences of 3 seeds or more." in text
    assert re.search(r"one cannot reach \.05 over 8 rows at n = 3 unless \|Δ\| > \d+\.\d points", text)


def test_a_difference_that_is_repeated_over_columns_counts_once(tmp_path):
    rows = {"Dense": {}, "Dense + HAM": {"optimizer.ham": {"alpha": 5.0}}}
    values = {"Dense": [0.88, 0.90, 0.89], "Dense + HAM": [0.90, 0.92, 0.905]}
    sweep(tmp_path, values, rows, columns=SEVERAL, baselines={"Dense + HAM": "Dense"})
    found = [cell.difference for cell in table(read(tmp_path)).measurements.values() if cell.difference]
    assert len(found) == 2
    assert {difference.p_holm for difference in found} == {found[0].p}


def test_a_row_off_target_is_not_judged_and_costs_the_others_nothing(tmp_path):
    sweep(tmp_path, VALUES | {"RiGL + HAM": [0.90, 0.92, 0.941]})
    edit(tmp_path, "RiGL + HAM", seed=1, sparsity=0.9)
    (cell,) = [cell for key, cell in table(read(tmp_path)).measurements.items() if key[0] == "RiGL + HAM"]
    assert cell.difference is not None
    assert cell.difference.p_holm is None


def test_what_is_shown_can_be_chosen(tmp_path):
    sweep(tmp_path)
    for seed in range(3):
        edit(tmp_path, "RiGL + HAM", seed, train_accuracy=0.99)
    lines = render(tmp_path, shown=("accuracy", "train", "p")).splitlines()
    (head,) = [line for line in lines if line.startswith("Method")]
    assert re.split(r"  +", head) == ["Method", "Accuracy, %", "Training accuracy, %", "p (Holm)"]
    (ham,) = [line for line in lines if line.startswith("RiGL + HAM")]
    assert re.split(r"  +", ham)[2:] == ["99.00 ± 0.00", "0.225"]
    sweep(tmp_path, columns=SEVERAL)
    headings = [grid.heading for grid in table(read(tmp_path), ("accuracy", "p", "flops")).grids]
    assert headings == [
        "Accuracy, %, by target sparsity",
        "p (Holm), by target sparsity",
        "FLOPs, by target sparsity",
    ]
    with pytest.raises(UserError, match=r"^--show: 'accuracies' cannot be shown; allowed: accuracy, train, delta, p, "):
        table(read(tmp_path), ("accuracies",))


def test_json_has_the_cells_as_numbers(tmp_path):
    found = json.loads(render(sweep(tmp_path), "json"))
    cell = found["cells"][-1]
    assert (cell["row"], cell["accuracies"], cell["seeds"]) == ("RiGL + HAM", [0.81, 0.82, 0.86], [0, 1, 2])
    assert cell["difference_p_holm"] == cell["difference_p"] == pytest.approx(1 - (3 / 5) ** 0.5)
    assert cell["hedges_g"] == pytest.approx(0.341, abs=1e-3)
    assert cell["mann_whitney_p"] == pytest.approx(0.825, abs=1e-3)
    assert found["caption"][0].startswith("Trained, by the runs' own configurations: resnet8, fashion_mnist, 4 epochs")


def test_spread_of_sparsity_shows_where_there_is_one(tmp_path):
    sweep(tmp_path)
    for seed, value in enumerate((0.949, 0.95, 0.951)):
        edit(tmp_path, "RiGL", seed, sparsity=value)
    assert grid(tmp_path)[1][3] == "95.00 ± 0.10"


def test_runs_that_lost_a_whole_layer_are_named(tmp_path):
    edit(sweep(tmp_path), "RiGL", seed=2, empty_layers=["conv1.weight"])
    assert table(read(tmp_path)).warnings == ("A layer had no weights left for a while or to the end: RiGL (seed 2).",)


def test_events_that_changed_nothing_are_named_where_that_is_all_of_them(tmp_path):
    sweep(tmp_path)
    edit(tmp_path, "RiGL", seed=1, events={"update": 7}, idle_events={"update": 7})
    edit(tmp_path, "RiGL", seed=2, events={"update": 7}, idle_events={"update": 2})
    assert table(read(tmp_path)).warnings == ("Mask events that changed nothing at all: RiGL (7 × update).",)


def test_a_bound_that_just_misses_zero_keeps_its_sign(tmp_path):
    # differences of 3, 5 and 7 images of 10,000: 5 less 2.4842 times their spread of 2 is 0.03 images
    plain = [0.8, 0.8, 0.8]
    added = [0.8003, 0.8005, 0.8007]
    sweep(tmp_path, VALUES | {"RiGL": plain, "RiGL + HAM": added})
    cell = table(read(tmp_path)).grids[0].rows[2].cells[2]
    assert cell.side == 1
    assert "[+0.00," in cell.text


def test_result_helper_matches_the_run_directory_contract():
    assert result(0.5, 1, 0.95)["nonzero"] == pytest.approx(21520 * 0.05, abs=2)
