"""A result is believed only if a run can have written it, and if it is the one that this run wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.rundir import outcome
from experiments.rundir.reading import MOST_DEPTH, Unreadable, parse_json, read_object, read_regular
from experiments.rundir.result import Result, check, is_sealed, seal

GOOD: dict[str, Any] = {
    "status": "done",
    "identity": "ab12cd34",
    "seed": 3,
    "accuracy": 0.81,
    "accuracy_on": "test",
    "loss": 0.5,
    "average_accuracy": 0.82,
    "average_loss": 0.4,
    "train_loss": 0.3,
    "train_accuracy": 0.95,
    "evaluated": 10000,
    "best_validation_accuracy": 0.8,
    "best_validation_epoch": 4,
    "sparsity": 0.75,
    "target_sparsity": 0.75,
    "prunable_weights": 400,
    "nonzero": 100,
    "inference_flops_fraction": 0.3,
    "training_flops_fraction": 0.4,
    "layers": {"a": {"size": 300, "nonzero": 90}, "b": {"size": 100, "nonzero": 10}},
    "events": {"update": 7},
    "idle_events": {},
    "empty_layers": [],
    "recalibrated": 100,
    "levels": 1,
    "epochs": 4,
    "steps": 40,
    "seconds": 1.5,
    "reused_from": "/runs/other/rigl-s3",
}
AMOUNTS = ("loss", "average_loss", "train_loss", "inference_flops_fraction", "training_flops_fraction", "seconds")
WRONG = [-1, -0.25, 1.5, 95.0, 10**16, 1e300, True, "0.9", [0.9], {"value": 0.9}]


def refused(content: dict[str, Any], **known: Any) -> str:
    with pytest.raises(Unreadable) as caught:
        check(content, **known)
    return str(caught.value)


def test_a_good_one_is_believed() -> None:
    check(GOOD, identity="ab12cd34", seed=3)
    check(GOOD)
    assert set(GOOD) == set(Result.model_fields)


@pytest.mark.parametrize("key", [key for key in Result.model_fields if key not in ("layers", "events")])
def test_a_value_that_no_run_writes_is_named(key: str) -> None:
    """Each key, with values of other types and out of range; what the type allows is allowed only where it agrees."""
    for value in WRONG:
        if key in AMOUNTS and isinstance(value, (int, float)) and 1 < value < 1e20:
            continue
        if key == "reused_from" and isinstance(value, str):
            continue  # any folder may be one
        assert key in refused({**GOOD, key: value}), value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sparsity": 0.76}, "sparsity 0.76 does not agree with 100 of 400 weights left"),
        ({"nonzero": 99, "sparsity": 1 - 99 / 400}, "the nonzero of its layers is 100 in all, where 99 is stated"),
        ({"prunable_weights": 200, "sparsity": 0.5}, "the size of its layers is 400 in all, where 200 is stated"),
        ({"accuracy": 0.81005}, "accuracy 0.81005 is no count of 10000 images: 8100.5 of them"),
        ({"average_accuracy": 1 / 3}, f"average_accuracy {1 / 3} is no count of 10000 images: 3333.33 of them"),
        ({"status": "running"}, "has status 'running' instead of 'done'"),
    ],
)
def test_what_does_not_agree_is_named(changes: dict[str, Any], words: str) -> None:
    assert refused({**GOOD, **changes}) == words


@given(st.integers(1, 2_000_000), st.data())
def test_every_count_is_believed(images: int, data: st.DataObject) -> None:
    """The quotient that a run writes is read again as the count it was, however many images there are."""
    correct = data.draw(st.integers(0, images))
    check({**GOOD, "accuracy": correct / images, "average_accuracy": None, "evaluated": images})


def test_another_runs_is_named() -> None:
    assert refused(GOOD, identity="ffffffff") == "belongs to another configuration (ab12cd34 instead of ffffffff)"
    assert refused(GOOD, seed=4) == "belongs to seed 3, and this is the folder of seed 4"
    assert refused({key: GOOD[key] for key in GOOD if key != "identity"}) == "has no identity"


def test_no_change_goes_unnoticed(tmp_path: Path) -> None:
    """Also one that keeps every rule, as an accuracy that is a little higher."""
    sealed = json.loads(json.dumps(seal(GOOD, tmp_path)))
    check(sealed)
    changes = {"accuracy": 0.82, "accuracy_on": "validation", "steps": 41, "events": {}, "seconds": 2.5, "more": 1}
    for key, value in changes.items():
        assert "was changed after it was written" in refused({**sealed, key: value}), key
        check(seal({**sealed, key: value}, tmp_path))
    assert "was changed" in refused({key: sealed[key] for key in sealed if key != "train_loss"})


def test_files_that_it_rests_on_have_checksums(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n")
    sealed = seal(GOOD, tmp_path)
    assert is_sealed(sealed, "metrics.jsonl", b"{}\n")
    assert not is_sealed(sealed, "metrics.jsonl", b"[]\n")
    assert is_sealed(GOOD, "metrics.jsonl", b"[]\n"), "an early version stated none"


def test_a_run_that_was_changed_has_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(seal(GOOD, tmp_path)))
    assert outcome.read_result(tmp_path) is not None
    assert caplog.text == ""
    path.write_text(path.read_text().replace("0.81", "0.91"))
    assert outcome.read_result(tmp_path) is None
    assert f"{path}: was changed after it was written" in caplog.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rigl-ab12cd34-s3", None),
        ("any name", None),
        ("rigl-ab12cd34-s4", "belongs to seed 3, and this is the folder of seed 4"),
        ("rigl-ab12cd35-s3", "belongs to another configuration"),
    ],
)
def test_a_copied_result_is_none_of_that_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, words: str | None
) -> None:
    """What is left to do is asked of this function: a copy would otherwise stand in for a run for ever."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(seal(GOOD, folder)))
    assert (outcome.read_result(folder) is None) == bool(words)
    assert (words or "") in caplog.text


# ---- the reader ------------------------------------------------------------------------------------------------------

NO_JSON = {
    b"[" * 200_000: "nested more than 40 levels deep",
    b'{"a":' * 3000 + b"1" + b"}" * 3000: "nested more than 40 levels deep",
    b'{"a": NaN}': "holds NaN",
    b'{"a": -Infinity}': "holds -Infinity",
    b'{"a": 1e999}': "too large",
    b'{"a": ' + b"9" * 5000 + b"}": "is not JSON",
    b'{"a": 18446744073709551616}': "too large",
    b'{"a": "\\ud800"}': "is not JSON",
    b"\xff\xfe": "is not JSON",
    b"": "is not JSON",
    b"[1, 2]": "does not hold an object",
}


@pytest.mark.parametrize("data", NO_JSON, ids=lambda data: data[:12].decode(errors="replace"))
def test_json_that_nothing_here_writes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(Unreadable, match=NO_JSON[data]):
        read_object(tmp_path / "a.json")


def test_depth_is_bounded_exactly() -> None:
    parse_json(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
    with pytest.raises(Unreadable, match="levels deep"):
        parse_json(b"[" * (MOST_DEPTH + 1) + b"1" + b"]" * (MOST_DEPTH + 1))


def test_only_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, words in (("pipe", "is a pipe, not a file"), (".", "is a folder"), ("large", "has 11 bytes")):
        with pytest.raises(Unreadable, match=words):
            read_regular(tmp_path / name, most=10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
