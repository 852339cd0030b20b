"""An epoch's line describes the network that the epoch trained; the best epoch is one of the final density."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import STEPS, STEPS_PER_EPOCH, events, records, result, tiny_spec, train, train_until

from sparsity.registry import topologies

CHANGING = {
    "acdc": ["topology={name: acdc, sparsity: 0.9}", "schedule.epochs=20"],
    "gmp": ["topology={name: gmp, sparsity: 0.9, update_every: 6, start: 0.0, end: 0.5}"],
    "one_shot": ["topology={name: one_shot, sparsity: 0.9, at: 0.5}"],
    "granet": ["topology={name: granet, sparsity: 0.9, update_every: 3, ramp_end: 0.5}"],
    "spred": ["representation={name: spred, cut_at: 0.5}", "topology.sparsity=0.9", "optimizer.lr=0.05"],
}


def density_trained(folder: Path, step: int) -> float:
    """Density, by the events, of the step that ended at `step`: what happens after it is not in it."""
    done = [event for event in records(folder) if event["kind"] == "event" and "density" in event]
    return next((event["density"] for event in reversed(done) if event["step"] < step), 1.0)


SHORT = {  # settings with which a method acts within 24 steps, and few trainings for those that train several times
    "cyclic": ", cycles: 2",
    "granet": ", update_every: 3, ramp_end: 0.5",
    "mest": ", update_every: 6, unit: step",
    "rigl": ", update_every: 6",
    "set": ", update_every: 6",
    "synflow": ", rounds: 3",
    **dict.fromkeys(("imp", "lrr", "wr"), ", prune_fraction: 0.7"),
}


@pytest.mark.robust
@pytest.mark.parametrize("name", sorted(topologies()))
def test_every_topologys_lines_have_the_density_that_their_epochs_ended_with(tmp_path: Path, name: str) -> None:
    train(tiny_spec(tmp_path, f"topology={{name: {name}, sparsity: 0.9{SHORT.get(name, '')}}}"), tmp_path / "run")
    epochs = [line for line in records(tmp_path / "run") if line["kind"] == "epoch"]
    expected = [density_trained(tmp_path / "run", epoch["step"]) for epoch in epochs]
    assert [epoch["density"] for epoch in epochs] == pytest.approx(expected, rel=1e-3)
    best = result(tmp_path / "run")["best_validation_epoch"]
    if best is not None:
        density = next(epoch["density"] for epoch in epochs if epoch["epoch"] == best)
        # a result counts as zeros what has grown and never moved
        assert density == pytest.approx(1 - result(tmp_path / "run")["sparsity"], abs=2e-3)


@pytest.mark.parametrize("method", CHANGING)
def test_a_line_has_the_density_that_its_epoch_ended_with(tmp_path: Path, method: str) -> None:
    train(tiny_spec(tmp_path, *CHANGING[method]), tmp_path / "run")
    lines = records(tmp_path / "run")
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if method != "spred":  # its cut is no event of masks with a density
        expected = [density_trained(tmp_path / "run", epoch["step"]) for epoch in epochs]
        assert [epoch["density"] for epoch in epochs] == pytest.approx(expected, abs=1e-9)
    changes = [line for line in lines if line["kind"] == "event" and line["step"] % STEPS_PER_EPOCH == 0]
    assert any(0 < line["step"] < epochs[-1]["step"] for line in changes), "nothing happens at an epoch's end"


@pytest.mark.parametrize("method", CHANGING)
def test_the_best_epoch_has_the_final_density(tmp_path: Path, method: str) -> None:
    train(tiny_spec(tmp_path, *CHANGING[method]), tmp_path / "run")
    epochs = [line for line in records(tmp_path / "run") if line["kind"] == "epoch"]
    found = result(tmp_path / "run")
    final = [line for line in epochs if line["density"] == pytest.approx(1 - found["sparsity"], rel=1e-3)]
    assert 0 < len(final) < len(epochs)
    best = max(final, key=lambda line: (line["validation_accuracy"], -line["epoch"]))
    assert (found["best_validation_accuracy"], found["best_validation_epoch"]) == (
        best["validation_accuracy"],
        best["epoch"],
    )
    assert max(line["validation_accuracy"] for line in epochs) >= found["best_validation_accuracy"]


def test_a_network_that_the_last_step_cut_has_no_best_epoch(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "representation.name=spred", "topology.sparsity=0.9", "optimizer.lr=0.05")
    train(spec, tmp_path / "run")
    assert [event["step"] for event in events(tmp_path / "run", "cut")] == [STEPS]
    found = result(tmp_path / "run")
    assert (found["best_validation_accuracy"], found["best_validation_epoch"]) == (None, None)


def test_the_validation_is_that_of_the_trained_network(tmp_path: Path) -> None:
    """Stopped before the epoch's last step, the run is a dense one until the cut: its line is the dense run's."""
    cut = tiny_spec(tmp_path, "topology={name: one_shot, sparsity: 0.9, at: 0.5}")
    train(cut, tmp_path / "cut")
    train_until(tiny_spec(tmp_path), tmp_path / "dense", 2 * STEPS_PER_EPOCH)
    lines = [[line for line in records(tmp_path / name) if line["kind"] == "epoch"] for name in ("cut", "dense")]
    assert [line["validation_loss"] for line in lines[0][:2]] == [line["validation_loss"] for line in lines[1]]
    assert lines[0][2]["validation_loss"] != lines[0][1]["validation_loss"]
