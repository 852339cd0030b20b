"""What an epoch's line says of signs, masks and speed, against the weights themselves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import STEPS_PER_EPOCH, records, tiny_spec, train, train_in_pieces, train_until, weights

from experiments.run.build import build
from experiments.run.diagnostics import Diagnostics
from experiments.rundir.names import MEASURED
from experiments.tracking import metrics
from sparsity import registry

RIGL = "topology={name: rigl, sparsity: 0.8, update_every: 5}"
ENTRIES = ("sign_flips_initial", "sign_flips_previous", "overlap_initial", "overlap_previous", "layer_density")


def compared(then: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> tuple[float, float]:
    """Share of flipped signs and overlap, weight by weight."""
    one, other = (np.concatenate([layers[name].ravel() for name in sorted(layers)]) for layers in (then, now))
    both = (one != 0) & (other != 0)
    return float(np.mean(np.sign(one[both]) != np.sign(other[both]))), both.sum() / ((one != 0) | (other != 0)).sum()


def test_the_entries_are_those_of_the_weights(tmp_path: Path) -> None:
    """A run that is stopped at each epoch's end leaves its weights there; no mask changes at these steps."""
    spec = tiny_spec(tmp_path, RIGL, "optimizer.lr=0.5", "checkpoint.keep=9")
    objects = build(spec)
    seen = [{name: theta.numpy().copy() for name, theta in objects.sparse.representation.weights()}]
    for epoch in (1, 2, 3):
        train_until(spec, tmp_path / "run", epoch * STEPS_PER_EPOCH)
        (path,) = (tmp_path / "run/checkpoints").glob(f"step-{epoch * STEPS_PER_EPOCH:08}-*.pt")
        model = torch.load(path, weights_only=True)["state"]["model"]
        seen.append({name: model[name].numpy() for name in seen[0]})
    train(spec, tmp_path / "run")
    last = weights(tmp_path / "run")
    seen.append({name: last[name].numpy() for name in seen[0]})
    lines = [line for line in records(tmp_path / "run") if line["kind"] == "epoch"]
    assert len(lines) == 4
    for epoch, line in enumerate(lines, 1):
        initial, previous = compared(seen[0], seen[epoch]), compared(seen[epoch - 1], seen[epoch])
        assert (line["sign_flips_initial"], line["overlap_initial"]) == pytest.approx(initial, abs=1e-12)
        assert (line["sign_flips_previous"], line["overlap_previous"]) == pytest.approx(previous, abs=1e-12)
        sizes = {name: now.size for name, now in seen[epoch].items()}
        active = {name: share * sizes[name] for name, share in line["layer_density"].items()}
        assert sum(active.values()) == pytest.approx(line["density"] * sum(sizes.values()), rel=1e-9)
        # a weight that has grown where the input is always 0 is still 0
        assert all(np.count_nonzero(now) <= active[name] + 1e-6 for name, now in seen[epoch].items())
    assert 0 < lines[-1]["sign_flips_previous"] < lines[-1]["sign_flips_initial"] < 0.5
    assert 0 < lines[-1]["overlap_initial"] < lines[0]["overlap_previous"] < 1


FEW = ("acdc", "gmp", "rigl")  # the others among the long attacks


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[] if name in FEW else pytest.mark.robust) for name in sorted(registry.topologies())],
)
def test_every_method_has_them_also_in_pieces(tmp_path: Path, method: str) -> None:
    sparsity = ["topology.sparsity=0.8"] if registry.topology(method).uses_sparsity else []
    options = registry.topology(method).Options()
    often = ["topology.update_every=5", "topology.unit=step"] if hasattr(options, "update_every") else []
    often = often[: 1 + hasattr(options, "unit")]
    spec = tiny_spec(tmp_path, f"topology.name={method}", *sparsity, *often, "schedule.epochs=6")
    train_in_pieces(spec, tmp_path / "pieces", [20])
    train(spec, tmp_path / "whole")
    pieces, whole = (
        [line for line in records(tmp_path / name) if line["kind"] == "epoch"] for name in ("pieces", "whole")
    )
    assert pieces == whole
    assert all(entry in line for line in whole for entry in ENTRIES)
    named = {"kind", *metrics.EVERY, *metrics.EPOCH, *metrics.LAYERS}
    assert set().union(*whole) <= named, "entries without a name at W&B"
    fractions = [line[entry] for line in whole for entry in ENTRIES[:4] if line[entry] is not None]
    assert fractions
    assert all(0 <= value <= 1 for value in fractions)


def test_speed_is_measured_without_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.run import training

    def slow(*arguments: object) -> tuple[float, float, int]:
        time.sleep(0.5)
        return evaluate(*arguments)  # pyright: ignore[reportArgumentType]

    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", slow)
    began = time.perf_counter()
    train(tiny_spec(tmp_path, "schedule.epochs=2"), tmp_path / "run")
    took = time.perf_counter() - began
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if line["kind"] == "epoch"):
        assert set(MEASURED) - set(line) == {"gpu_utilisation"}
        assert 0 < line["step_ms"] * STEPS_PER_EPOCH / 1e3 < took - 1
        assert line["images_per_s"] == pytest.approx(50e3 / line["step_ms"], rel=1e-2)
        assert 0.05 < line["peak_memory_gib"] < 64


def test_they_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(tmp_path, RIGL)
    train(spec, tmp_path / "with")
    monkeypatch.setattr(Diagnostics, "look", lambda self: {})
    train(spec, tmp_path / "without")
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(one[name], other[name]) for name in one)
