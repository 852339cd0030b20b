"""Runs whose batch statistics are computed anew after the last cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import train_on
from small_runs import result, tiny_spec, train, weights

from experiments import data as datasets
from experiments.errors import UserError
from experiments.run.check import check

CUT = ["representation.name=spred", "topology.sparsity=0.9", "schedule.epochs=3", "optimizer.lr=0.2"]


def test_only_the_statistics_of_the_final_network_change(tmp_path: Path):
    train(tiny_spec(tmp_path, *CUT), tmp_path / "stale")
    train(tiny_spec(tmp_path, *CUT, "model.recalibrate=4", "optimizer.ema_decay=0.9"), tmp_path / "anew")
    stale, anew = weights(tmp_path / "stale"), weights(tmp_path / "anew")
    changed = {name for name in stale if not torch.equal(stale[name], anew[name])}
    assert changed == {name for name in stale if "running" in name or "num_batches" in name}
    assert result(tmp_path / "anew")["recalibrated"] == 4
    assert "recalibrated" not in result(tmp_path / "stale")
    assert result(tmp_path / "anew")["loss"] < result(tmp_path / "stale")["loss"]


def test_ranks_end_with_the_same_statistics(tmp_path: Path):
    spec = tiny_spec(tmp_path, *CUT, "model.recalibrate=4")
    ended = train_on(spec, tmp_path / "two", 2)
    assert [one.error for one in ended] == [None, None]
    assert ended[0].result["loss"] == ended[1].result["loss"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model.recalibrate=7"], "7 is out of range: 0 to 6, the batches of an epoch"),
        (
            ["model.recalibrate=2", "model.name=resnet8_gn"],
            "resnet8_gn has no batch statistics to compute anew; write 0",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_before_anything_starts(tmp_path: Path, options: list[str], words: str):
    spec = tiny_spec(tmp_path, *options)
    with pytest.raises(UserError, match=words) as error:
        check(spec, datasets.outline(spec.data))
    assert error.value.where == "model.recalibrate"
