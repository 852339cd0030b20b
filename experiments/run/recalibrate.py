"""Batch statistics that are computed anew, for a network that was cut after the last step that updated them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.ranks.distributed import World


def layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of batch normalisation that keep statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], world: World) -> None:
    """Replace batch statistics by their plain mean over some training batches; nothing else of the network changes.

    Args:
        model: The network, the same on all ranks.
        batches: This rank's share of the batches; ranks average what they find, as their steps in training do.
        world: The ranks.
    """
    was_training, found = model.training, layers(model)
    model.eval()
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    for images, _ in batches:
        model(images)
    for layer, momentum in zip(found, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            if world.size > 1 and statistic is not None:
                statistic.copy_(world.sum(statistic) / world.size)
    model.train(was_training)
