"""Precision, compilation and torch's global switches as keys of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    STEPS,
    assert_close,
    assert_same_run,
    events,
    records,
    result,
    tiny_spec,
    train,
    train_in_pieces,
    weights,
)
from torch._dynamo.testing import CompileCounterWithBackend

from experiments.errors import UserError

RIGL = ["topology={name: rigl, sparsity: 0.9, update_every: 4}", "optimizer.ham={alpha: 5.0}"]


def test_fp16_scales_skips_and_goes_on_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale of 2^24 overflows until it has been halved some times: whole steps are skipped, updates put off."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**24))
    spec = tiny_spec(tmp_path, *RIGL, "runtime.amp=fp16")
    train(spec, tmp_path / "whole")
    whole = result(tmp_path / "whole")
    assert 1 <= whole["skipped_steps"] < STEPS / 2
    updates = [event["step"] for event in events(tmp_path / "whole", "update")]
    assert 1 <= updates[0] <= whole["skipped_steps"], "the first finite step, not step 0"
    assert [step // 4 for step in updates] == sorted({step // 4 for step in updates})
    train_in_pieces(spec, tmp_path / "run", [2, 9, 13])
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_bf16_is_near_float32(tmp_path: Path) -> None:
    """Under a mask that stays: with one that follows gradients two networks would be compared."""
    fixed = ["topology={name: random, sparsity: 0.9}", "optimizer.ham={alpha: 5.0}"]
    for amp in ("none", "bf16"):
        train(tiny_spec(tmp_path, *fixed, f"runtime.amp={amp}"), tmp_path / amp)
    one, other = result(tmp_path / "none"), result(tmp_path / "bf16")
    assert one["loss"] != other["loss"]
    assert other["loss"] == pytest.approx(one["loss"], rel=0.2)


@pytest.mark.usefixtures("in_float64")
def test_compiled_is_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks that change and a representation in the graph; names in the weights stay.

    Forward and backward are traced as for inductor, without the minute of its code generation.
    """
    torch._dynamo.reset()
    compile_, graphs = torch.nn.Module.compile, CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_(self, backend=graphs))
    common = [*RIGL, "representation.name=product", "schedule.epochs=2"]
    train(tiny_spec(tmp_path, *common), tmp_path / "eager")
    assert graphs.frame_count == 0
    train(tiny_spec(tmp_path, *common, "runtime.compile=true"), tmp_path / "compiled")
    assert graphs.frame_count == 3  # training, validation, and the network without its representation at the end
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "eager").keys()
    assert_close(tmp_path / "compiled", tmp_path / "eager")


def test_label_smoothing_is_for_training_alone(tmp_path: Path) -> None:
    """At a rate next to nothing the weights stay, so only the loss that is reported in training can differ."""
    for smoothing in (0.0, 0.3):
        spec = tiny_spec(tmp_path, "optimizer.lr=1.0e-12", f"loss.label_smoothing={smoothing}")
        train(spec, tmp_path / str(smoothing))
    first, second = ([r for r in records(tmp_path / str(s)) if r["kind"] == "epoch"] for s in (0.0, 0.3))
    for plain, smoothed in zip(first, second, strict=True):
        assert smoothed["loss"] != pytest.approx(plain["loss"], rel=1e-3)
        assert smoothed["validation_loss"] == pytest.approx(plain["validation_loss"], rel=1e-6)


def state() -> tuple[Any, ...]:
    backends: Any = torch.backends.cudnn
    switches = backends.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision, backends.benchmark
    return torch.are_deterministic_algorithms_enabled(), *switches


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (False, "tf32", "ieee", True)),
        (["runtime.tf32=none"], (False, "ieee", "ieee", True)),
        (["runtime.tf32=all", "runtime.deterministic=true"], (True, "tf32", "tf32", False)),
    ],
)
def test_switches_are_set_for_the_run_alone(tmp_path: Path, overrides: list[str], expected: tuple[Any, ...]) -> None:
    before, seen = state(), set()
    spec = tiny_spec(tmp_path, "schedule.epochs=1", *overrides)
    train(spec, tmp_path / "run", progress=lambda done, total: seen.add(state()))
    assert seen == {expected}
    assert state() == before


def test_synchronised_statistics_need_gpus(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    spec = tiny_spec(tmp_path, "runtime.sync_batch_norm=true")
    with pytest.raises(UserError, match="need GPUs") as caught:
        train(spec, tmp_path / "run")
    assert caught.value.where == "runtime.sync_batch_norm"


def test_an_average_beside_the_weights(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *RIGL, "optimizer.ema_decay=0.8")
    train(spec, tmp_path / "whole")
    train(tiny_spec(tmp_path, *RIGL), tmp_path / "without")
    whole, without = result(tmp_path / "whole"), result(tmp_path / "without")
    assert whole["average_loss"] != whole["loss"]
    assert whole["accuracy"] == without["accuracy"], "the average changes nothing"
    assert whole["identity"] != without["identity"]
    train_in_pieces(spec, tmp_path / "run", [3, 11])
    assert_same_run(tmp_path / "run", tmp_path / "whole")
