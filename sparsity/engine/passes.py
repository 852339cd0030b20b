"""Optimizers that evaluate the batch of a step more than once, such as SAM; their `needs_closure` is true."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether `optimizer.step` calls a closure more than once."""
    return bool(getattr(optimizer, "needs_closure", False))


def check_call(optimizer: Optimizer, closure: Callable[[], Tensor] | None, scaler: torch.amp.GradScaler | None) -> None:
    """Check that `step` is called with what the optimizer needs.

    Raises:
        ValueError: without a closure, or with a loss scaler, where the optimizer `needs_closure`.
    """
    if not needs_closure(optimizer):
        return
    name = type(optimizer).__name__
    if closure is None:
        raise ValueError(f"{name} evaluates each batch more than once: call step(closure)")
    if scaler is not None:
        raise ValueError(f"{name} goes with no loss scaler, whose step takes no closure: use bfloat16 in place of fp16")


class Passes:
    """The passes over the batch of one step: the first at construction, further ones when the optimizer calls.

    The object is the closure that the optimizer is given. Its first call returns the loss of the first pass, whose
    gradients the topology has read and the engine has masked in the meantime, so the topology needs no pass of its own.
    Each further call runs the closure again, with the random numbers of the first pass.

    Args:
        closure: Clears gradients, runs forward and backward and returns the loss; called with gradients enabled.
        finish: Prepares the gradients of a further pass for the optimizer, as was done with those of the first.
        device: Device of the network, if there may be further passes; with None no random state is saved.

    Attributes:
        loss: Loss of the first pass.
        count: Number of passes so far.
        first_pass_done: True: SAM finds gradients that were computed before its step, and they are those of this batch.
    """

    first_pass_done = True

    def __init__(self, closure: Callable[[], Tensor], finish: Callable[[], None], device: torch.device | None):
        self._closure = torch.enable_grad()(closure)
        self._finish = finish
        self._host = None if device is None else torch.get_rng_state()
        self._device = device if device is not None and device.type == "cuda" else None
        self._on_device = None if self._device is None else torch.cuda.get_rng_state(self._device)
        self._answered = False
        self.count = 1
        self.loss = self._closure()

    def __call__(self) -> Tensor:
        """Return the loss of the first pass at the first call; later run the closure again."""
        if not self._answered:
            self._answered = True
            return self.loss
        if self._host is not None:
            torch.set_rng_state(self._host)
        if self._device is not None and self._on_device is not None:
            torch.cuda.set_rng_state(self._on_device, self._device)
        self.count += 1
        loss = self._closure()
        self._finish()
        return loss
