"""STR: a learned soft threshold per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..options import option
from ..registry import register_representation
from ..representation import Representation

if TYPE_CHECKING:
    from ..topology import Context


@register_representation("str")
class SoftThreshold(Representation):
    """θ = sign(w) · relu(|w| − sigmoid(s)) with one trained scalar s a layer.

    Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity" (ICML 2020, arXiv 2002.03231),
    equations (3)–(4), and the authors' `STRConv`. Every convolution and the classifier are thresholded, the first
    included. Gradients reach w on its support alone, and s; there is no straight-through estimator and no mask.

    The sparsity is not set but results from s₀ and the decay of s, which acts as the schedule: at s₀ = −3200 (the
    published ImageNet value) sigmoid underflows, s has no gradient and moves by decay alone until the threshold turns
    on. The published λ = 2.2517578e-5 on s, weights and normalisation gave 90.23 % on ResNet-50; no other target is
    published with its λ.

    Deviation: ``threshold_decay`` may differ from the weights' decay, because short runs need a decay of s that would
    ruin the weights; null uses the weights' decay, as the published configuration does.
    HAM leaves s alone (a decision of the suite: the published listing would move it).
    """

    title = "STR"
    paper = "Kusupati et al., ICML 2020, arXiv 2002.03231"
    revivable = False  # dθ/dw = 0 wherever θ = 0
    uses_sparsity = True
    factor_names = ("weight", "threshold")
    ham_factors = ("weight",)

    @dataclass(frozen=True)
    class Options:
        """Options of STR."""

        initial_threshold: float = option(-3200.0, "s at the start; the threshold on |w| is sigmoid(s)")
        threshold_decay: float | str | None = option(
            None,
            "weight decay of s; null: that of the weights; 'calibrated': solved for topology.sparsity by ham calibrate",
            ge=0,
            choices=("calibrated",),
        )
        active_at: float = option(
            0.01, "share of zeros among unmasked weights from which the threshold counts as active", gt=0, lt=1
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        if isinstance(options.threshold_decay, str):
            raise ValueError("threshold_decay: a calibrated value is filled in from a calibration file, not here")
        self._active = False

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(w, s) with s shaped (1, 1) as in the authors' code."""
        return weight, torch.full((1, 1), self.options.initial_threshold, dtype=weight.dtype, device=weight.device)

    def materialise(self, *factors: Tensor) -> Tensor:
        """Soft threshold of w at sigmoid(s)."""
        weight, threshold = factors
        # s is (1, 1); a 1-D weight view would broadcast wrongly, a scalar never does
        return torch.sign(weight) * torch.relu(weight.abs() - torch.sigmoid(threshold.squeeze()))

    def decay_of(self, factor: str, weight_decay: float) -> float:
        """The threshold's own decay, the weights' where it has none."""
        own = self.options.threshold_decay
        return float(own) if factor == "threshold" and isinstance(own, float) else weight_decay

    def after_epoch(self, ctx: Context) -> None:
        """Record the epoch in which the threshold turned on."""
        if self._active:
            return
        zeros = sum(int(((theta == 0) & ctx.masks[name]).sum()) for name, theta in self.weights())
        if zeros >= self.options.active_at * sum(ctx.masks.kept().values()):
            self._active = True
            ctx.record("threshold", changed=zeros)

    def state_dict(self) -> dict[str, bool]:
        """Whether the threshold has turned on."""
        return {"active": self._active}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Undo `state_dict`."""
        self._active = state["active"]
