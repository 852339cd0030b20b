"""One training step's bookkeeping and one evaluation pass; no files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.ranks.distributed import World
from sparsity.engine.sparse_training import SparseTraining


class EpochMeter:
    """Sums of an epoch, kept on the device so that a step never waits for the host.

    Args:
        device: Where the sums live.
    """

    def __init__(self, device: torch.device):
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, images
        self._bad = torch.full((), -1, dtype=torch.long, device=device)

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Count one batch; `step` is remembered if its loss is the first that is not finite."""
        correct = (logits.argmax(1) == labels).sum()
        images = torch.full_like(correct, labels.numel())
        self._sums += torch.stack([loss.detach().double() * labels.numel(), correct.double(), images.double()])
        first = (self._bad < 0) & ~torch.isfinite(loss.detach())
        self._bad = torch.where(first, torch.full_like(self._bad, step), self._bad)

    def result(self, world: World) -> tuple[float, float, int | None]:
        """Return mean loss, accuracy in [0, 1] and the first step with a loss that is not finite, over all ranks."""
        loss, correct, images = world.sum(self._sums).tolist()
        bad = [step for step in world.gather(int(self._bad)) if step >= 0]
        return loss / images, correct / images, min(bad) if bad else None

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of this rank."""
        return {"sums": self._sums.cpu(), "bad": self._bad.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums."""
        self._sums.copy_(state["sums"])
        self._bad.copy_(state["bad"])

    @staticmethod
    def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
        """Add up the sums of several ranks as those of one."""
        bad = [state["bad"] for state in states if state["bad"] >= 0]
        return {"sums": sum(state["sums"] for state in states), "bad": min(bad) if bad else states[0]["bad"]}


def density_of(sparse: SparseTraining) -> float:
    """Return the fraction of non-zero weights of the whole network."""
    densities, sizes = sparse.densities(), sparse.masks.sizes
    return sum(densities[name] * sizes[name] for name in sizes) / sum(sizes.values())


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], world: World, seen: list[Tensor] | None = None
) -> tuple[float, float, int]:
    """Evaluate in evaluation mode, counting every image once.

    Args:
        model: The network, the same on all ranks.
        batches: This rank's share of the images.
        world: The ranks.
        seen: Gets (predicted classes, labels) of each batch of this rank, if it is given.

    Returns:
        Over all ranks: mean cross-entropy, accuracy in [0, 1], number of images.
    """
    was_training = model.training
    model.eval()
    # loss, correct and images; integers up to 2^53 are exact
    sums = torch.zeros(3, dtype=torch.float64)
    for inputs, labels in batches:
        logits = model(inputs).float()
        predicted = logits.argmax(1)
        correct = (predicted == labels).sum()
        if seen is not None:
            seen.append(torch.stack([predicted, labels]).cpu())
        loss = cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss.double(), correct.double(), torch.full_like(loss, labels.numel()).double()]).cpu()
    model.train(was_training)
    loss, correct, images = world.sum(sums).tolist()
    return loss / images, correct / images, int(images)
