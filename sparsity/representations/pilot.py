"""PILoT: m ⊙ w at m² − w² = 1 with a penalty that rises while the network is dense and learns, and then decays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sparsity.options import option
from sparsity.registry import register_representation

from .cut import Cut, CutProduct
from .product import Balance

if TYPE_CHECKING:
    from sparsity.topology import Context


@register_representation("pilot")
class Pilot(CutProduct):
    """Minimise f(m ⊙ w) + α_k (|m|² + |w|²) from m² − w² = β, then prune the smallest |m ⊙ w|.

    Jacobs & Burkholz, "Mask in the Mirror: Implicit Sparsification" (ICLR 2025, arXiv 2408.09966), algorithm 1. After
    epoch k of T, with A_k its training accuracy and A_0 = 0::

        α_k = α_{k−1} · δ    if A_k ≥ A_{k−1} and |m ⊙ w|₁ ≥ K and k ≤ T/2
              α_{k−1} / δ    otherwise

    The penalty acts through its gradient 2α_k (m, w), which the engine adds after the topology has read dL/dθ; the loss
    does not contain it. The training accuracy is that of the epoch's own batches, augmented and in training mode, over
    all ranks. β = 1 is published. α_0, δ and K are inputs of the algorithm whose values are published for no experiment
    (constant α of 1e-4 to 1e-3 on CIFAR in the first version): options, all defaults *unverified*; K = 0 disables its
    condition. α and the L1 norm after each epoch are recorded as the event ``penalty``.

    Whether the optimizer's decay acts on the factors in addition to α_k is not stated: *unverified*; ``decay_factors``
    is false by default, since both would penalise the same squares (a decay of λ is α = λ/2).
    Fine-tuning after the cut (``cut_at`` below 1) is the suite's own; the authors prune at the end.
    """

    title = "PILoT"
    paper = "Jacobs & Burkholz, ICLR 2025, arXiv 2408.09966"
    needs_metrics = ("train_accuracy",)
    state = ("penalty", "_accuracy")

    @dataclass(frozen=True)
    class Options(Cut, Balance):
        """Options of PILoT."""

        penalty: float = option(1e-4, "α at the start", ge=0)
        multiplier: float = option(1.01, "δ, by which α is multiplied or divided after an epoch", ge=1)
        l1_level: float = option(0.0, "K: α is raised only while |m⊙w|₁ is at least K", ge=0)
        decay_factors: bool = option(
            False, "whether the optimizer's decay acts on the factors in addition to the penalty"
        )

    def __init__(self, options: Any):
        super().__init__(options)
        self._accuracy = 0.0  # of the epoch before

    def decay_of(self, factor: str, weight_decay: float) -> float:
        """Return no decay, or that of the weights if the option says so."""
        return weight_decay if self.options.decay_factors else 0.0

    @torch.no_grad()
    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Raise or lower α; prune if this is the epoch of the cut."""
        norms = [theta.abs().sum(dtype=torch.float64) for _, theta in self.weights()]
        l1 = float(torch.stack(norms).sum())
        improved = metrics["train_accuracy"] >= self._accuracy
        if improved and l1 >= self.options.l1_level and 2 * ctx.epoch <= ctx.total_epochs:
            self.penalty *= self.options.multiplier
        else:
            self.penalty /= self.options.multiplier
        self._accuracy = metrics["train_accuracy"]
        ctx.record("penalty", changed=0, alpha=self.penalty, l1=l1)
        super().after_epoch(ctx, metrics)

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Count one α per epoch, and the cut."""
        return {"penalty": epochs, **super().expected_events(epochs, sparsity)}
