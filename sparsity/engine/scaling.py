"""Gradients under the loss scaler of mixed precision."""

from __future__ import annotations

import torch
from torch.optim import Optimizer


def unscale(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> bool:
    """Undo the scaling of an optimizer's gradients, unless that was done; return whether all of them are finite."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:  # the caller has done so, to clip or to look at gradients
        if "already been called" not in str(error):
            raise
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return bool(torch.stack([torch.isfinite(grad).all() for grad in grads]).all()) if grads else True
