"""The data and the loss that a topology may score weights with, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy

import sparsity
from experiments import data as datasets
from experiments.config.schema import Spec
from experiments.data import Data, Outline
from experiments.ranks.distributed import World, lost_ranks_named
from experiments.seeding import derived_seed
from sparsity import registry


def make_probe(spec: Spec, data: Data | Outline, device: torch.device, world: World) -> sparsity.Probe | None:
    """Make the probe of a run, or None where its topology needs none.

    Batches are those of training, augmentation included, in an order of their own, so that the scores of a seed do not
    depend on what is trained first. Every rank sees all of each batch and computes the same, in as many parts as a
    training step; rank 0's scores then count, since GPUs do not add up in a fixed order.

    Args:
        spec: The resolved specification.
        data: The data of the run, for the form of the images.
        device: Where the network is.
        world: The ranks.
    """
    if spec.topology.sparsity == 0 or not registry.topology(spec.topology.name).needs_probe:
        return None
    return sparsity.Probe(
        partial(_batches, spec, device),
        partial(cross_entropy, label_smoothing=spec.loss.label_smoothing),
        (data.in_channels, data.image_size, data.image_size),
        data.num_classes,
        parts=spec.runtime.accumulate * world.size,
        agree=_agreement(world),
        size=data.steps_per_epoch,
        rarest=getattr(data, "rarest", None),
    )


def _batches(spec: Spec, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one pass over data of its own, so that no position and no worker of the training is disturbed."""
    data = datasets.build(spec.data, derived_seed(spec.seed, "probe"), device, spec.runtime.channels_last)
    try:
        yield from data.batches(0)
    finally:
        data.close()


def _agreement(world: World) -> Callable[[Tensor], Tensor]:
    def agreed(scores: Tensor) -> Tensor:
        if world.size == 1:
            return scores
        scores = scores.contiguous()
        with lost_ranks_named(world):
            dist.broadcast(scores, src=0)
        return scores

    return agreed
