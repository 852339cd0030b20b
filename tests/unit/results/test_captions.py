"""Captions say what the numbers are, and what a reader would not expect."""

from __future__ import annotations

import pytest
from table_sweep import HAM, RIGL, VALUES, edit, sweep

from results.runs.store import read
from results.table.tables import table


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


def test_cells_that_are_not_shown_are_not_explained(tmp_path):
    found = read(sweep(tmp_path))
    assert "Cells give mean" in " ".join(table(found).caption)
    assert "Cells give mean" not in " ".join(table(found, ("delta", "sparsity")).caption)


@pytest.mark.parametrize("other", [{"data.name": "cifar10"}, {"model.name": "mlp_bn"}], ids=str)
def test_a_plain_row_of_other_data_or_networks_is_named(tmp_path, other):
    rows = {"RiGL": RIGL, "RiGL + HAM": HAM | other}
    found = table(read(sweep(tmp_path / "x", {row: VALUES[row] for row in rows}, rows)))
    assert (
        "More than the method differs, since data or networks are not the same: RiGL + HAM and RiGL." in found.warnings
    )
    assert not table(read(sweep(tmp_path / "same"))).warnings
