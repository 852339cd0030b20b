"""`RunSettings`: the settings of one sparse training, apart from its methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .sparse_opt import AVERAGES


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of `SparseTraining`; for their meaning see `sparsity.attach`.

    Attributes:
        sparsity: Target fraction of zeros, in [0, 1).
        total_steps: Steps of one training.
        steps_per_epoch: Steps per epoch.
        seed: Seed of everything random in masks.
        clip_grad_norm: Bound on the norm of the masked gradient, or None.
        sparse_opt: Average that scales the gradients of sparse neurons, or None.
        agree: Averages over ranks a gradient that a topology reads, or None.
    """

    sparsity: float
    total_steps: int
    steps_per_epoch: int
    seed: int = 0
    clip_grad_norm: float | None = None
    sparse_opt: str | None = None
    agree: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        bound = self.clip_grad_norm
        if bound is not None and not (isinstance(bound, (int, float)) and 0 < bound < float("inf")):
            raise ValueError(f"clip_grad_norm must be a number above 0, or None: got {bound!r}")
        if not isinstance(self.seed, int):
            raise ValueError(f"seed must be a whole number: got {self.seed!r}")
        if self.sparse_opt is not None and self.sparse_opt not in AVERAGES:
            raise ValueError(f"sparse_opt={self.sparse_opt!r} is not one of {', '.join(AVERAGES)}")
