"""Names under which W&B shows a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.rundir.names import MEASURED
from experiments.rundir.result import Result
from experiments.tracking import metrics

PAGE = Path(__file__).resolve().parents[3] / "docs/howto/wandb.md"


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (
            {"kind": "epoch", "epoch": 2, "step": 12, "loss": 0.5, "validation_loss": None, "lr": 0.1, "density": 0.2},
            {"epoch": 2, "train/step": 12, "train/loss": 0.5, "train/lr": 0.1, "sparsity/density": 0.2},
        ),
        (
            {"kind": "event", "event": "update", "step": 4, "epoch": 0.6667, "changed": 10, "dropped": 5},
            {"epoch": 0.6667, "train/step": 4, "mask/update/changed": 10, "mask/update/dropped": 5},
        ),
        (
            {"kind": "ham", "step": 6, "epoch": 1.0, "ham/speed": 0.3, "note": "text"},
            {"epoch": 1.0, "train/step": 6, "ham/speed": 0.3},
        ),
        (
            {
                "kind": "epoch",
                "step": 6,
                "sign_flips_initial": 0.25,
                "sign_flips_previous": None,
                "overlap_initial": 0.5,
                "layer_density": {"conv.1": 0.5, "fc": 0.25},
                "gpu_utilisation": 0.75,
            },
            {
                "train/step": 6,
                "flips/initial": 0.25,
                "mask/overlap_initial": 0.5,
                "layers/conv/1/density": 0.5,
                "layers/fc/density": 0.25,
                "cost/gpu_utilisation": 0.75,
            },
        ),
        ({"kind": "ham", "step": 6, "ham/flips/conv.1": 0.5}, {"train/step": 6, "ham/flips/conv/1": 0.5}),
        # what other parts may come to write
        ({"kind": "epoch", "step": 1, "new": 3}, {"train/step": 1, "train/new": 3}),
        ({"kind": "epoch", "step": 1, "layers": {"a.b": 0.5}}, {"train/step": 1, "layers/a/b": 0.5}),
        ({"kind": "other", "step": 1, "x": 3}, {"train/step": 1, "other/x": 3}),
    ],
)
def test_a_line_is_a_row_of_numbers_under_their_names(line: dict, row: dict) -> None:
    assert metrics.row(line) == row


def test_what_the_clock_says_is_under_names_of_clocks() -> None:
    """A line that is written again after a kill would differ from the one that W&B has, and `rewritten_from` be set."""
    line = metrics.row({"kind": "epoch", **dict.fromkeys(MEASURED, 1.5)})
    assert len(line) == len(MEASURED)
    assert [name for name in line if not name.startswith(metrics.CLOCKS)] == []


def test_every_name_is_drawn_over_something() -> None:
    history = [*metrics.EPOCH.values(), *metrics.LAYERS.values(), metrics.EVENT]
    assert {f"{name.split('/')[0]}/*" for name in history} <= metrics.AXES.keys()


def result(part: str) -> dict:
    """A result with every key that one can hold."""
    numbers = {name: 1 for name in Result.model_fields}
    return numbers | {
        "status": "done",
        "accuracy_on": part,
        "layers": {"conv.1": {"size": 8, "nonzero": 2}},
        "events": {"update": 3},
        "empty_layers": ["a"],
        "code": ["x", "y"],
        "checksum": "0",
        "files": {},
    }


@pytest.mark.parametrize("part", ["test", "validation"])
def test_no_name_of_the_summary_is_one_of_the_history(part: str) -> None:
    """W&B would write the last row over it."""
    history = {*metrics.EVERY.values(), *metrics.EPOCH.values()}
    summary = metrics.summary(result(part))
    assert history & summary.keys() == set()
    assert not {name for name in summary if name.split("/")[0] in ("train", "val", "mask", "ham", "flips", "layers")}


def test_a_summary_is_what_tables_read() -> None:
    found = metrics.summary({**result("test"), "accuracy": 0.25, "sparsity": 0.9, "target_sparsity": None})
    assert (found["test/accuracy"], found["sparsity/realised"]) == (0.25, 0.9)
    assert found["final/layers/conv/1/density"] == 0.25
    assert (found["final/events/update"], found["final/empty_layers"], found["final/code"]) == (3, 1, 2)
    assert found.keys().isdisjoint({"sparsity/target", "final/identity", "final/checksum", "final/files"})
    assert metrics.summary({**result("validation"), "accuracy": 0.25})["tune/accuracy"] == 0.25


def test_the_page_names_every_metric() -> None:
    text = PAGE.read_text()
    names = [*metrics.EVERY.values(), *metrics.EPOCH.values()]
    names += [name.format(layer="<layer>") for name in metrics.LAYERS.values()]
    names += [name.format(part="test") for name in metrics.SUMMARY.values()]
    assert [name for name in names if f"`{name}`" not in text] == []
