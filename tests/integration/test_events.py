"""Methods act as often as they say, it is written down, and a run that did not act as demanded has failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import STEPS, STEPS_PER_EPOCH, events, records, result, tiny_spec, train

from experiments.errors import RunFailure
from experiments.run.build import build

# Peste et al.'s table for 100 epochs (compress at 10, 20, ... 70 and 85, decompress 5 after each but the last), by hand
# at 24 steps: 0.24 steps an epoch, rounded
COMPRESS, DECOMPRESS = [2, 5, 7, 10, 12, 14, 17, 20], [4, 6, 8, 11, 13, 16, 18]


def steps(folder: Path, kind: str) -> list[int]:
    return [event["step"] for event in events(folder, kind)]


def test_rigl_updates_every_few_steps_until_its_end(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "topology={name: rigl, sparsity: 0.9, update_every: 5, end: 0.75}")
    train(spec, tmp_path / "run")
    assert steps(tmp_path / "run", "initial") == [0]
    assert steps(tmp_path / "run", "update") == [0, 5, 10, 15]
    assert result(tmp_path / "run")["events"] == {"initial": 1, "update": 4}
    updates = events(tmp_path / "run", "update")
    assert all(event["changed"] > 0 and event["dropped"] == event["grown"] for event in updates)
    assert [event["epoch"] for event in updates] == [round(step / STEPS_PER_EPOCH, 4) for step in (0, 5, 10, 15)]


def test_acdc_follows_the_published_phases(tmp_path: Path) -> None:
    train(tiny_spec(tmp_path, "topology={name: acdc, sparsity: 0.9}"), tmp_path / "run")
    assert steps(tmp_path / "run", "compress") == COMPRESS
    assert steps(tmp_path / "run", "decompress") == DECOMPRESS
    assert result(tmp_path / "run")["events"] == {"compress": 8, "decompress": 7}
    assert all(event["density"] == pytest.approx(0.1, abs=1e-4) for event in events(tmp_path / "run", "compress"))
    assert all(event["density"] == 1 for event in events(tmp_path / "run", "decompress"))


def test_sign_in_resets_between_epochs_and_not_at_the_end(tmp_path: Path) -> None:
    for every, expected in ((1, [6, 12, 18]), (2, [12])):
        folder = tmp_path / str(every)
        spec = tiny_spec(tmp_path, f"representation={{name: sign_in, reset_every: {every}}}", "optimizer.lr=0.05")
        train(spec, folder)
        assert steps(folder, "reset") == expected
        assert result(folder)["events"] == {"reset": len(expected)}
        assert all(event["changed"] > 0 for event in events(folder, "reset"))


def test_pilot_follows_the_training_accuracy_and_cuts_at_the_end(tmp_path: Path) -> None:
    representation = "representation={name: pilot, penalty: 0.001, multiplier: 2.0}"
    train(tiny_spec(tmp_path, representation, "topology.sparsity=0.9", "optimizer.lr=0.05"), tmp_path / "run")
    lines = records(tmp_path / "run")
    accuracies = [line["train_accuracy"] for line in lines if line["kind"] == "epoch"]
    alpha, expected = 0.001, []
    for epoch, (before, now) in enumerate(zip([0.0, *accuracies], accuracies, strict=False), 1):
        alpha = alpha * 2 if now >= before and epoch <= 2 else alpha / 2
        expected.append(alpha)
    assert [event["alpha"] for event in events(tmp_path / "run", "penalty")] == expected
    assert max(expected) > 0.001 == expected[-1]
    assert steps(tmp_path / "run", "cut") == [STEPS]
    found = result(tmp_path / "run")
    assert found["events"] == {"penalty": 4, "cut": 1}
    assert found["nonzero"] == found["prunable_weights"] - int(0.9 * found["prunable_weights"])
    # the last epoch was validated as it was trained, before the cut; the evaluated network is the cut one
    assert [line["density"] for line in lines if line["kind"] == "epoch"] == [1.0] * 4


@pytest.mark.parametrize("topology", ["random", "rigl"])
def test_spred_leaves_the_sparsity_to_a_topology_that_aims_at_it(tmp_path: Path, topology: str) -> None:
    schedule = ", update_every: 5" if topology == "rigl" else ""
    overrides = [
        f"topology={{name: {topology}, sparsity: 0.9{schedule}}}",
        "representation.name=spred",
        "optimizer.lr=0.05",
    ]
    train(tiny_spec(tmp_path, *overrides), tmp_path / "run")
    assert "cut" not in result(tmp_path / "run")["events"]
    assert result(tmp_path / "run")["sparsity"] == pytest.approx(0.9, abs=1e-3)


MET = "{update: {at_least: 4}, initial: {at_least: 1, by: 0.05}}"
MISSED = {
    "{update: {at_least: 5}}": r"checks\.events\.update demands 5 with entries changed by 100% of training, 4 happened",
    "{update: {at_least: 3, by: 0.4}}": r"checks\.events\.update demands 3 .* by 40% of training, 2 happened",
    "{compress: {at_least: 1}}": r"checks\.events\.compress demands 1 .*, 0 happened",
}


def test_a_run_that_acted_as_demanded_is_done(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "topology={name: rigl, sparsity: 0.9, update_every: 5}", f"checks.events={MET}")
    assert train(spec, tmp_path / "run")["status"] == "done"


@pytest.mark.parametrize("demand", MISSED)
def test_a_run_that_did_not_act_as_demanded_has_failed(tmp_path: Path, demand: str) -> None:
    spec = tiny_spec(tmp_path, "topology={name: rigl, sparsity: 0.9, update_every: 5}", f"checks.events={demand}")
    with pytest.raises(RunFailure, match=MISSED[demand]):
        train(spec, tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()
    failure = json.loads((tmp_path / "run/failure.json").read_text())
    assert failure["status"] == "failed"
    assert "checks.events" in failure["error"]


def test_an_update_that_changed_nothing_is_no_update(tmp_path: Path) -> None:
    """k = floor(f n) is 1 at the start and 0 at the first update, in every layer: a fixed mask in truth."""
    method = "name: rigl, sparsity: 0.9, update_every: 5, at_start: false"
    active = build(tiny_spec(tmp_path, f"topology={{{method}}}")).sparse.masks.num_active()
    fraction = 1.01 / max(active.values())
    spec = tiny_spec(
        tmp_path,
        f"topology={{{method}, drop_fraction: {fraction}}}",
        "checks.events={update: {at_least: 1}}",
    )
    with pytest.raises(RunFailure, match="demands 1 .*, 0 happened"):
        train(spec, tmp_path / "run")
    assert len(events(tmp_path / "run", "update")) == 3


def test_the_log_of_epochs_is_complete(tmp_path: Path) -> None:
    train(tiny_spec(tmp_path, "topology={name: random, sparsity: 0.9}"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    assert [line["step"] for line in epochs] == [6, 12, 18, STEPS]
    assert all(line["density"] == pytest.approx(0.1, abs=1e-4) for line in epochs)
    assert all(0 <= line["validation_accuracy"] <= 1 for line in epochs)
    assert result(tmp_path / "run")["accuracy"] == epochs[-1]["validation_accuracy"]
    best = max(epochs, key=lambda line: line["validation_accuracy"])
    assert result(tmp_path / "run")["best_validation_epoch"] == best["epoch"]
