"""HAM's figures in the record of a real run, and the warning where alpha does not fit the network."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from small_runs import STEPS, STEPS_PER_EPOCH, records, tiny_spec, train, train_until, weights

from experiments.run import ham_watch

# the embedded images, since how large gradients are is what this is about: 1,000 of them, 93 steps in three epochs
SMALL = ["data.name=fashion_mnist", "data.validation=1000", "data.train_limit=1000", "data.batch_size=32"]
SMALL += ["schedule.epochs=3", "optimizer.lr=0.1", "optimizer.clip_grad_norm=1.0"]


def looked(folder: Path) -> dict[int, dict[str, float]]:
    return {record["step"]: record for record in records(folder) if record["kind"] == "ham"}


@pytest.mark.parametrize(
    ("ham", "words"),
    [
        ("{alpha: 200.0}", "HAM's alpha is too large here: one step changes the weights of fc.weight by"),
        ("{alpha: 1.0e-3}", "HAM's alpha is idle: alpha times a weight is"),
        ("{alpha: 30.0}", None),  # the best fixed alpha of this network and rate
        ("{alpha: 0.1, scale_free: true}", None),
        ("{alpha: 0.3, scale_free: true}", "HAM's alpha is too large here"),
        ("null", None),
    ],
)
def test_a_run_says_within_a_hundred_steps_that_alpha_does_not_fit(
    ham: str, words: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = "resnet8" if "200" in ham else "mlp_bn"
    spec = tiny_spec(tmp_path, *SMALL, f"model.name={model}", f"optimizer.ham={ham}")
    with caplog.at_level(logging.WARNING):
        train(spec, tmp_path / "run")
    warned = [record.getMessage() for record in caplog.records if "HAM" in record.getMessage()]
    assert len(warned) == (words is not None)
    assert words is None or words in warned[0]
    steps = [*range(10, 100, 10), 31, 62, 93] if ham != "null" else []
    assert sorted(looked(tmp_path / "run")) == sorted(steps)


def test_looking_changes_no_result_and_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(
        tmp_path,
        "optimizer.ham={alpha: 0.1, scale_free: true}",
        "topology={name: rigl, sparsity: 0.9, update_every: 5}",
    )
    train(spec, tmp_path / "whole")
    train_until(spec, tmp_path / "cut", STEPS_PER_EPOCH + 1)
    train(spec, tmp_path / "cut")
    assert looked(tmp_path / "cut") == looked(tmp_path / "whole")
    assert sorted(looked(tmp_path / "whole")) == [6, 10, 12, 18, 20, STEPS]

    monkeypatch.setattr(ham_watch.HamWatch, "after_step", lambda *_: None)
    train(spec, tmp_path / "blind")
    assert looked(tmp_path / "blind") == {}
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "blind")
    assert all(one[name].equal(other[name]) for name in one)
