"""Tables: contents against numbers worked out by hand, warnings, formats, and equal bytes for equal results."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pytest
from fake_runs import fail, forget, result, write_json, write_sweep

from experiments.errors import UserError
from experiments.rundir.result import seal
from results.runs.store import read
from results.table.formats import render
from results.table.tables import table
from results.table.values import FIGURE_SPACE

RIGL, HAM = {"topology.name": "rigl"}, {"topology.name": "rigl", "optimizer.ham": {"alpha": 20.0}}
ROWS = {"Dense": {}, "RiGL": RIGL, "RiGL + HAM": HAM}
VALUES = {"Dense": [0.88, 0.90, 0.89], "RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}
AT95 = [{"topology.sparsity": 0.95}]
SEVERAL = [{"topology.sparsity": value} for value in (0.8, 0.95)]
FORMATS = ("text", "markdown", "csv", "json", "latex", "html")


def sweep(directory, values=VALUES, rows=None, columns=AT95, seeds=(0, 1, 2), **manifest):
    rows = rows or {row: ROWS[row] for row in values}
    baselines = {"RiGL + HAM": "RiGL"} if "RiGL + HAM" in rows else {}
    return write_sweep(directory, values, rows, columns, seeds, manifest.pop("baselines", baselines), **manifest)


def grid(directory, number=0):
    """The texts of a grid without padding, row label first."""
    rows = table(read(directory)).grids[number].rows
    return [[cell.text.replace(FIGURE_SPACE, "") for cell in line.cells] for line in rows]


def edit(directory, row, seed=None, **changes):
    for entry in read(directory).runs:
        if entry.row == row and seed in (None, entry.seed):
            if "sparsity" in changes:
                left = round(100_000 * (1 - changes["sparsity"]))
                changes |= {"prunable_weights": 100_000, "nonzero": left, "layers": {}}
            write_json(entry.path / "result.json", seal({**entry.result, **changes}, entry.path))


def path_of(directory, row, seed, column=None):
    (path,) = {
        e.path for e in read(directory).entries if (e.row, e.seed) == (row, seed) and column in (None, dict(e.column))
    }
    return path


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


def test_caption_says_what_the_numbers_are(tmp_path):
    text = " ".join(table(read(sweep(tmp_path, tuning_cells=9, notes="AC/DC\n  scaled."))).caption)
    for words in (
        "10,000 images of the test part after the last epoch, evaluated once",
        "sample standard deviation over seeds",
        "95 % confidence interval",
        "Tuning: 9 configurations were tried for each row.",
        "weights of all convolutional and linear layers; biases and normalisation parameters are not counted",
        "f forward and 2f backward",
        "dense training of the same length",
        "AC/DC scaled.",
    ):
        assert words in text
    assert "Compared:" not in text  # "RiGL + HAM" says itself what it adds to


def test_caption_without_tuning_notes_or_baselines(tmp_path):
    text = " ".join(table(read(sweep(tmp_path, {"RiGL": VALUES["RiGL"]}))).caption)
    assert "Tuning" not in text
    assert "Δ" not in text


def test_validation_accuracy_is_not_called_test_accuracy(tmp_path):
    sweep(tmp_path)
    for row in VALUES:
        edit(tmp_path, row, accuracy_on="validation", evaluated=1000)
    made = table(read(tmp_path))
    assert "1,000 images of the validation part" in made.caption[1]
    assert "the test part was not used" in made.caption[1]
    edit(tmp_path, "RiGL", accuracy_on="test")
    assert table(read(tmp_path)).warnings == (
        "Some runs were evaluated on the test part, others on the validation part.",
    )


def test_unclear_baselines_are_spelt_out(tmp_path):
    rows = {"Plain": RIGL, "New": {**RIGL, "optimizer.lr": 0.2}}
    sweep(tmp_path, {"Plain": [0.8] * 3, "New": [0.81, 0.82, 0.83]}, rows, baselines={"New": "Plain"})
    assert "Compared: New − Plain." in " ".join(table(read(tmp_path)).caption)


def test_text_aligns_numbers_and_stars_clear_differences(tmp_path):
    sweep(tmp_path, VALUES | {"Dense": [0.09, 0.1, 0.11], "RiGL + HAM": [0.90, 0.92, 0.941]})
    lines = render(tmp_path).splitlines()
    rows = [line for line in lines if re.match(r"(Dense|RiGL)", line)]
    assert len({line.index("±") for line in rows}) == 1
    assert len({re.search(r"\d\.\d\d ±", line).start() for line in rows}) == 1  # type: ignore[union-attr]
    (starred,) = [line for line in rows if " *" in line]
    assert starred.startswith("RiGL + HAM")
    assert "Starred (*): p < .05 after Holm's correction." in render(tmp_path).replace("\n ", "")
    assert max(map(len, lines)) < 120
    assert not any(line.endswith(" ") for line in lines)


def test_csv_is_tidy_and_has_all_numbers(tmp_path):
    sweep(tmp_path, columns=SEVERAL)
    fail(path_of(tmp_path, "RiGL", 1, {"topology.sparsity": 0.8}), "loss is nan")
    lines = list(csv.DictReader(io.StringIO(render(tmp_path, "csv"))))
    assert len(lines) == 6
    whole = next(line for line in lines if (line["row"], line["topology.sparsity"]) == ("RiGL + HAM", "0.95"))
    assert float(whole["accuracy_mean"]) == pytest.approx(0.83)
    assert float(whole["accuracy_std"]) == pytest.approx(7**0.5 / 100)
    assert float(whole["difference_mean"]) == pytest.approx(0.01)
    assert float(whole["difference_p"]) == pytest.approx(1 - (3 / 5) ** 0.5)
    assert (whole["difference_wins"], whole["difference_n"], whole["plain_row"]) == ("2", "3", "RiGL")
    assert (whole["seeds"], whole["accuracies"]) == ("0 1 2", "0.81 0.82 0.86")
    holed = next(line for line in lines if (line["row"], line["topology.sparsity"]) == ("RiGL", "0.8"))
    assert (holed["planned"], holed["n"], holed["failed"], holed["missing"]) == ("3", "2", "1", "0")
    dense = lines[0]
    assert dense["target_sparsity"] == dense["difference_mean"] == dense["plain_row"] == ""
    assert dense["comparable"] == "true"


def test_markdown_is_a_table_of_equal_lines(tmp_path):
    text = render(sweep(tmp_path, title="A | B *c*"), "markdown")
    assert text.startswith("**A \\| B \\*c\\***")
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in body}) == 1
    assert "| RiGL + HAM | 83.00 ± 2.65 (3) | +1.00 [−1.48, +3.48] (3) | 95.00 | 0.098 | 0.145 |" in body


def test_latex_escapes_and_balances(tmp_path):
    rows = {"A_1 & 50% #$^~\\{}": RIGL}
    text = render(sweep(tmp_path, {next(iter(rows)): [0.8] * 3}, rows, columns=SEVERAL), "latex")
    assert r"A\_1 \& 50\% \#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{\}" in text
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended)
    assert begun.count("table") == 2
    assert r"80.00 $\pm$ 0.00 (3)" in text
    assert text.isascii()
    for line in text.replace("{!}{%", "{!}").replace(r"\end{tabular}}", r"\end{tabular}").splitlines():
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}"), line
    cells = [line for line in text.splitlines() if line.startswith(r"A\_1")]
    assert [line.replace(r"\&", "").count("&") for line in cells] == [2, 6]


def test_html_escapes_labels(tmp_path):
    rows = {"<b>&": RIGL}
    text = render(sweep(tmp_path, {"<b>&": [0.8, 0.81, 0.82]}, rows), "html")
    assert '<th scope="row">&lt;b&gt;&amp;</th>' in text
    assert "<b>&" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_equal_results_give_equal_bytes(tmp_path, format):
    one = render(sweep(tmp_path / "one", columns=SEVERAL, name="x"), format)
    shutil.copytree(tmp_path / "one", tmp_path / "deeper" / "two")
    for entry in read(tmp_path / "deeper" / "two").runs:  # other times, another machine, another order of keys
        later = seal({**entry.result, "seconds": 99.0}, entry.path)
        write_json(entry.path / "result.json", dict(reversed(later.items())))
        write_json(entry.path / "environment.json", {"cpu": "another"})
    assert render(tmp_path / "deeper" / "two", format) == one
    assert str(tmp_path) not in one


@pytest.mark.parametrize("format", FORMATS)
def test_a_sweep_without_results_still_has_a_table(tmp_path, format):
    text = render(sweep(tmp_path, {row: [None] * 3 for row in VALUES}), format)
    assert "RiGL + HAM" in text


def test_a_missing_result_field_is_a_dash(tmp_path):
    sweep(tmp_path)
    for seed in (0, 1, 2):
        path = path_of(tmp_path, "RiGL", seed) / "result.json"
        needed = ("status", "identity", "seed", "accuracy", "accuracy_on", "sparsity", "prunable_weights", "nonzero")
        write_json(path, {key: json.loads(path.read_text())[key] for key in needed})
    assert grid(tmp_path)[1] == ["RiGL", "82.00 ± 2.00 (3)", "", "95.00", "–", "–"]


def test_cells_that_the_sweep_leaves_out_are_empty(tmp_path):
    sweep(tmp_path, columns=SEVERAL)
    path = tmp_path / "sweep.json"
    manifest = json.loads(path.read_text())
    manifest["cells"] = [
        cell for cell in manifest["cells"] if (cell["row"], cell["column"]) != ("RiGL", {"topology.sparsity": 0.8})
    ]
    write_json(path, manifest)
    assert grid(tmp_path)[1][1:] == ["", "82.00 ± 2.00 (3)"]
    assert grid(tmp_path, 1)[0][1] == "– (0)"


def test_unknown_format_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"allowed: text, markdown, csv, json, latex, html; did you mean 'markdown'"):
        render(sweep(tmp_path), "markdwn")


def test_result_helper_matches_the_run_directory_contract():
    assert result(0.5, 1, 0.95)["nonzero"] == pytest.approx(21520 * 0.05, abs=2)


# ---- what is not counted, and how budgets are shared ----------------------------------------------------------------


def caption_of(path) -> str:
    return " ".join(table(read(path)).caption)


def test_matrices_outside_the_count_are_in_the_caption(tmp_path):
    edit(sweep(tmp_path), "RiGL", seed=0, uncounted={"pos_embed": 1435, "words": 957})
    assert "Neither pruned nor counted, with their share of all matrices: pos_embed (6 %), words (4 %)." in caption_of(
        tmp_path
    )


def test_layers_left_dense_by_name_are_in_the_caption(tmp_path):
    for seed in range(3):
        edit(sweep(tmp_path) if seed == 0 else tmp_path, "RiGL", seed=seed, dense_layers=["head", "*.conv_dw"])
    assert "Left dense: RiGL: head, *.conv_dw (the sparsity asked for is over all weights" in caption_of(tmp_path)


def test_rows_that_share_budgets_differently_are_in_the_caption(tmp_path):
    folder = sweep(tmp_path)
    for row, allocation in (("RiGL", "erk"), ("RiGL + HAM", "uniform")):
        for seed in range(3):
            edit(folder, row, seed=seed, allocation=allocation)
    assert "Layers' densities: ERK (RiGL); uniform (RiGL + HAM)." in caption_of(tmp_path)
    for seed in range(3):
        edit(folder, "RiGL + HAM", seed=seed, allocation="erk")
    assert "Layers' densities: ERK." in caption_of(tmp_path)


def test_batch_statistics_computed_anew_are_in_the_caption(tmp_path):
    for seed in range(3):
        edit(sweep(tmp_path) if seed == 0 else tmp_path, "RiGL", seed=seed, recalibrated=1000)
    text = "Batch statistics computed anew on the final network, over training batches: RiGL (1,000 batches)."
    assert text in caption_of(tmp_path)


def test_a_last_cut_that_left_nothing_is_a_warning(tmp_path):
    edit(sweep(tmp_path), "RiGL", seed=2, accuracy=0.135, accuracy_before_cut=0.865)
    assert (
        "The cut at the last step took the network near chance: RiGL (from 86.5 to 13.5 %)."
        in table(read(tmp_path)).warnings
    )
