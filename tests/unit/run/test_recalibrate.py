"""Batch statistics computed anew."""

from __future__ import annotations

import torch
from torch import nn

from experiments.ranks.distributed import ALONE
from experiments.run.recalibrate import layers, recalibrate


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.2), nn.Dropout(0.5), nn.Linear(4, 2))


def test_statistics_are_the_mean_over_the_batches():
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [(torch.randn(size, 3), torch.zeros(size)) for size in (8, 8, 5)]
    recalibrate(model, batches, ALONE)
    hidden = [model[0](images) for images, _ in batches]
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" not in name and "num" not in name)
    assert (norm.momentum, int(norm.num_batches_tracked)) == (0.2, 3)


class OtherRank:
    """Two ranks, of which the other one finds ones."""

    size = 2

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values + 1


def test_ranks_average_their_statistics():
    alone, ranks = network(), network()
    ranks.load_state_dict(alone.state_dict())
    batches = [(torch.randn(8, 3), torch.zeros(8))]
    recalibrate(alone, batches, ALONE)
    recalibrate(ranks, batches, OtherRank())  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(ranks[1].running_mean, (alone[1].running_mean + 1) / 2)
    torch.testing.assert_close(ranks[1].running_var, (alone[1].running_var + 1) / 2)


def test_modes_and_random_numbers_are_as_before():
    model = network().train()
    state = torch.get_rng_state()
    recalibrate(model, [(torch.ones(4, 3), torch.zeros(4))], ALONE)
    assert torch.equal(torch.get_rng_state(), state)  # dropout drew nothing
    assert all(module.training for module in model.modules())


def test_layers_without_statistics_do_not_count():
    assert layers(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.GroupNorm(1, 2))) == []
