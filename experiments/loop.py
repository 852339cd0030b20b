"""One training step's bookkeeping and one evaluation pass; no files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


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

    def result(self) -> tuple[float, float, int | None]:
        """Mean loss, accuracy in [0, 1], and the step whose loss was not finite, or None."""
        loss, correct, images = self._sums.tolist()
        bad = int(self._bad)
        return loss / images, correct / images, bad if bad >= 0 else None

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"sums": self._sums, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._sums.copy_(state["sums"])
        self._bad.copy_(state["bad"])


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float, int]:
    """Evaluate in evaluation mode, counting every image once.

    Returns:
        Mean cross-entropy, accuracy in [0, 1], number of images.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64)
    correct, images = 0, 0
    for inputs, labels in batches:
        logits = model(inputs).float()
        loss += cross_entropy(logits, labels, reduction="sum").double().cpu()
        correct += int((logits.argmax(1) == labels).sum())
        images += labels.numel()
    model.train(was_training)
    return float(loss) / images, correct / images, images
