"""What should change nothing changes no bit; what all rows of a seed should share, they share."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from small_runs import differing, events, result, same_bits, tiny_spec, train, weights

from experiments.run.build import RunObjects, build

OPTIMIZERS = {
    "sgd": [],
    "adamw": ["optimizer.name=adamw", "optimizer.lr=0.01"],
}
NEUTRAL = {
    "ham without alpha and beta": ["optimizer.ham={alpha: 0.0, beta: 0.0}"],
    "random at 0": ["topology={name: random, sparsity: 0.0}"],
    "rigl at 0": ["topology={name: rigl, sparsity: 0.0, update_every: 3}"],
    "acdc at 0": ["topology={name: acdc, sparsity: 0.0}"],
    "clipping at a norm no gradient has": ["optimizer.clip_grad_norm=1.0e+9"],
    "often saved": ["checkpoint.every_steps=1"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_neutral_elements_change_no_bit(tmp_path: Path, optimizer: str) -> None:
    common = ["schedule.epochs=2", *OPTIMIZERS[optimizer]]
    train(tiny_spec(tmp_path, *common), tmp_path / "plain")
    plain = weights(tmp_path / "plain")
    for name, overrides in NEUTRAL.items():
        folder = tmp_path / name
        train(tiny_spec(tmp_path, *common, *overrides), folder)
        assert differing(weights(folder), plain) == [], name
        assert result(folder)["events"] == {}, name
        assert [events(folder, kind) for kind in ("initial", "update", "compress", "decompress")] == [[]] * 4


def test_what_is_not_neutral_does_change_the_weights(tmp_path: Path) -> None:
    """Or the comparison above would show nothing."""
    train(tiny_spec(tmp_path, "schedule.epochs=2"), tmp_path / "plain")
    for name, override in {
        "alpha": "optimizer.ham={alpha: 1.0, beta: 0.0}",
        "beta": "optimizer.ham={alpha: 0.0, beta: 0.1}",
        "sparsity": "topology={name: random, sparsity: 0.01}",
        "seed": "seed=1",
    }.items():
        train(tiny_spec(tmp_path, "schedule.epochs=2", override), tmp_path / name)
        assert differing(weights(tmp_path / name), weights(tmp_path / "plain")), name


ROWS = {
    "dense": [],
    "random": ["topology={name: random, sparsity: 0.9}"],
    "rigl": ["topology={name: rigl, sparsity: 0.9, update_every: 5}"],
    "acdc": ["topology={name: acdc, sparsity: 0.9}"],
    "ham": ["topology={name: rigl, sparsity: 0.9, update_every: 5}", "optimizer.ham={}"],
    "adamw": ["optimizer.name=adamw"],
    "product": ["representation.name=product"],
    "bar": ["representation.name=bar"],
    "sign_in": ["representation.name=sign_in", "topology={name: random, sparsity: 0.9}"],
    "pilot": ["representation.name=pilot"],
    "spred": ["representation.name=spred", "topology.sparsity=0.9"],
    "powerprop": ["representation.name=powerprop"],
    "str": ["representation={name: str, threshold_decay: 0.1}", "topology.sparsity=0.9"],
}
MASKED = ("random", "rigl", "ham", "sign_in")


@pytest.fixture
def built(tmp_path: Path) -> dict[str, RunObjects]:
    return {name: build(tiny_spec(tmp_path, "seed=5", *overrides)) for name, overrides in ROWS.items()}


def test_rows_of_a_seed_share_initial_weights(built: dict[str, RunObjects]) -> None:
    dense = dict(built["dense"].sparse.representation.weights())
    for name, run in built.items():
        for layer, theta in run.sparse.representation.weights():
            kept = run.sparse.masks[layer]
            expected = dense[layer] * kept
            if name in ("product", "bar", "sign_in", "pilot", "spred", "powerprop"):
                torch.testing.assert_close(theta, expected, rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(theta, expected), (name, layer)


def test_rows_of_a_seed_share_the_mask_of_pruning_at_initialisation(built: dict[str, RunObjects]) -> None:
    masks = built["random"].sparse.masks
    assert masks.density == pytest.approx(0.1, abs=1e-4)
    for name, run in built.items():
        for layer, mask in run.sparse.masks.items():
            expected = masks[layer] if name in MASKED else torch.ones_like(mask)
            assert torch.equal(mask, expected), (name, layer)


def test_rows_of_a_seed_see_the_same_batches(built: dict[str, RunObjects]) -> None:
    def seen(run: RunObjects) -> list[torch.Tensor]:
        return [part for epoch in (0, 1) for batch in islice(run.data.batches(epoch), 2) for part in batch]

    first = seen(built["dense"])
    assert not torch.equal(first[0], first[4]), "the order must change from epoch to epoch"
    for name, run in built.items():
        assert all(same_bits(one, other) for one, other in zip(seen(run), first, strict=True)), name


def test_another_seed_shares_nothing(tmp_path: Path, built: dict[str, RunObjects]) -> None:
    one, other = built["random"], build(tiny_spec(tmp_path, "seed=6", *ROWS["random"]))
    sparse = [layer for layer, density in one.sparse.densities().items() if density < 1]
    assert len(sparse) == 2
    assert not any(torch.equal(one.sparse.masks[layer], other.sparse.masks[layer]) for layer in sparse)
    weights_of = [dict(run.sparse.representation.weights()) for run in (one, other)]
    assert not any(torch.equal(weights_of[0][layer], weights_of[1][layer]) for layer in weights_of[0])
    batches = [next(iter(run.data.batches(0)))[0] for run in (one, other)]
    assert not torch.equal(batches[0], batches[1])
