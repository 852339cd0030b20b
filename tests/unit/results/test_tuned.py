"""What a caption says of tuning: how many settings for each row, ends of ranges, what was not told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_sweep

from experiments.errors import UserError
from results.runs.archive import write
from results.runs.several import read_several
from results.runs.store import read
from results.table.printed import joined
from results.table.records import as_json
from results.table.tables import table

LRS = [0.1, 0.2, 0.4]


def choice(row: str, chosen: float = 0.2, tried: list[float] = LRS, **more: Any) -> dict[str, Any]:
    known = {"accuracy": 0.8, "error_seeds": 0.01, "error_images": 0.012, "images": 1000}
    return {
        "identity": row,
        "row": row,
        "column": {},
        "chosen": {"optimizer.lr": chosen},
        "tried": {"optimizer.lr": tried},
        "seeds": [100, 101],
        "on": "validation",
        **(known if more.get("recorded", True) else {}),
        **more,
    }


def tuned(path: Path, choices: list[dict[str, Any]], **more: Any) -> Path:
    rows = {name: [0.8, 0.81, 0.82] for name in ("A", "B", "C")}
    tuning = {"on": "validation", "seeds": [100, 101], "choices": choices, "untuned": [], **more}
    return write_sweep(path, rows, tuning=tuning)


def said(path: Path) -> str:
    (text,) = [text for text in table(read(path)).caption if text.startswith("Tuning:")]
    return text


def test_rows_that_were_tuned_alike(tmp_path: Path) -> None:
    text = said(tuned(tmp_path / "t", [choice(row) for row in "ABC"]))
    assert text == (
        "Tuning: for each row the best of 3 settings by mean accuracy (the validation part, 1,000 images; seeds 100,"
        " 101). Standard error of the best mean, in points: 1.00 over seeds, 1.20 over images."
    )


def test_what_was_not_alike_is_named(tmp_path: Path) -> None:
    choices = [choice("A", 0.4), choice("B", 0.1, [0.1, 0.2], lost=1)]
    text = said(tuned(tmp_path / "t", choices, untuned=["C"], at={"topology.sparsity": 0.95}))
    assert "Not the same number of settings: B 2." in text
    assert "Not tuned: C." in text
    assert "Chosen at topology.sparsity=0.95 for all its values." in text
    assert "may lie beyond: optimizer.lr 0.1" not in text, "of two values each is an end"
    assert "may lie beyond: optimizer.lr 0.4 (largest): A." in text
    assert "Failed, or missed the target sparsity: B: 1 of 2." in text


def test_only_columns_in_which_choices_differ_are_named(tmp_path: Path) -> None:
    places = [("A", "cnn"), ("A", "mlp"), ("B", "cnn")]
    choices = [
        choice(row, 0.4, identity=f"{row}{model}", column={"model.name": model, "topology.sparsity": 0.9})
        for row, model in places
    ]
    text = said(tuned(tmp_path / "t", choices))
    assert text.startswith("Tuning: for each row and column the best of 3 settings")
    assert "optimizer.lr 0.4 (largest): A (cnn), A (mlp), B." in text


def test_what_is_not_told_apart_and_what_was_not_kept(tmp_path: Path) -> None:
    second = {"chosen": {"optimizer.lr": 0.1}, "accuracy": 0.795}
    choices = [choice("A", close=2, second=second), choice("B", recorded=False), choice("C")]
    text = said(tuned(tmp_path / "t", choices))
    assert "Too few images or seeds to tell the best setting from others: A: 2 within it, the next 0.50 points" in text
    assert "The accuracies behind the choice of B were not kept." in text
    alone = said(tuned(tmp_path / "u", [choice(row, recorded=False) for row in "ABC"]))
    assert alone.endswith("(the validation part; seeds 100, 101). The accuracies behind the choice were not kept.")


def test_a_choice_on_the_part_that_is_evaluated_is_warned_about(tmp_path: Path) -> None:
    found = table(read(tuned(tmp_path / "t", [choice("A", on="test")], on="test")))
    warning = "Settings were chosen on the test part, on which the table evaluates: its accuracies are too high."
    assert warning in found.warnings
    assert warning in " ".join(found.caption)
    assert warning not in table(read(tuned(tmp_path / "u", [choice("A")]))).warnings


def test_the_choice_goes_into_json_and_archives(tmp_path: Path) -> None:
    path = tuned(tmp_path / "t", [choice("A", 0.4)])
    write(read(path), tmp_path / "t.ham.zip")
    for place in (path, tmp_path / "t.ham.zip"):
        content = json.loads(as_json([table(read(place))]))
        assert content["tuning"]["choices"][0]["chosen"] == {"optimizer.lr": 0.4}
    assert "tuning" not in json.loads(as_json([table(read(write_sweep(tmp_path / "u", {"A": [0.5, 0.5, 0.5]})))]))


def test_joined_sweeps_keep_what_each_says(tmp_path: Path) -> None:
    sweeps = read_several([tuned(tmp_path / name, [choice("A")]) for name in "tu"])
    _, texts = joined(sweeps)
    assert len([text for text in texts if "the best of 3 settings" in text]) == 2


@pytest.mark.parametrize("tuning", [{"choices": []}, {"on": "x", "seeds": [], "choices": []}, 5, [1]])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, tuning: Any) -> None:
    path = write_sweep(tmp_path / "t", {"A": [0.5, 0.5, 0.5]}, tuning=tuning)
    with pytest.raises(UserError, match="damaged manifest: "):
        table(read(path))
