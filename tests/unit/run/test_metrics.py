"""The loss and accuracy of an evaluation, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from experiments.ranks.distributed import ALONE
from experiments.run.metrics import evaluate


def test_the_loss_is_the_plain_cross_entropy() -> None:
    """-log p of the right class, whatever smoothing training has, and each image counts once."""
    network = nn.Identity()
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 4.0]]), torch.tensor([0, 1, 0])
    batches = [(logits[:2], labels[:2]), (logits[2:], labels[2:])]
    loss, accuracy, images = evaluate(network, batches, ALONE)
    by_hand = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(4))]
    assert loss == pytest.approx(sum(by_hand) / 3, rel=1e-6)
    assert (accuracy, images) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize("training", [True, False])
def test_layers_are_in_evaluation_mode_and_then_as_they_were(training: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train(training)
    images, labels = torch.randn(12, 4) + 3, torch.arange(12) % 3
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = evaluate(network, [(images[:5], labels[:5]), (images[5:], labels[5:])], ALONE)
    assert network.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        logits = network.eval()(images)
    assert found[0] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-6)
    assert found[1] == float((logits.argmax(1) == labels).float().mean())
