"""STR: a learned soft threshold per layer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparsity.options import OptionError, option
from sparsity.registry import register_representation
from sparsity.representation import Representation
from sparsity.roles import UnclearRole

if TYPE_CHECKING:
    from sparsity.topology import Context

log = logging.getLogger(__name__)

PROJECT_AT = 0.75  # fraction of the epochs after which the final sparsity is projected
TOLERANCE = 0.005  # of sparsity; tables mark rows that miss their target by more
NEVER = -1e4  # sigmoid of it is exactly 0, and unlike -inf it can be averaged


@register_representation("str")
class SoftThreshold(Representation):
    """θ = sign(w) · relu(|w| − sigmoid(s)) with one trained scalar s per layer.

    Kusupati et al., "Soft Threshold Weight Reparameterization for Learnable Sparsity" (ICML 2020, arXiv 2002.03231),
    equations (3)–(4), and the authors' `STRConv`. All convolutions, the first included, and the classifier have a
    threshold; ``classifier: false`` excludes the last layer, which still counts towards the sparsity. Gradients reach
    s, and w only where θ ≠ 0; there is no straight-through estimator and no mask.

    The sparsity is not set but results from s₀ and the decay of s, which acts as the schedule: at s₀ = −3200 (the
    published ImageNet value) sigmoid underflows, s has no gradient and moves by decay alone until the threshold turns
    on. The published λ = 2.2517578e-5 on s, weights and normalisation gave 90.23 % on ResNet-50; no other target is
    published with its λ. After three quarters of the epochs the final sparsity is projected, and a warning is logged if
    the run will miss its target (the event ``projection``): pruning slows down with the learning rate, so the final
    sparsity is assumed to lie between the present one and its linear continuation from the last epoch.

    Deviation: ``threshold_decay`` may differ from the weights' decay, because short runs need a decay of s that would
    ruin the weights; null uses the weights' decay, as the published configuration does.
    HAM does not act on s (a decision of the suite: the published listing would move it).
    """

    title = "STR"
    unstated_events = ("threshold",)
    paper = "Kusupati et al., ICML 2020, arXiv 2002.03231"
    grad_at_zero = False  # dθ/dw = 0 wherever θ = 0
    uses_sparsity = True
    state = ("_active", "_before", "_projected")
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
            0.01, "fraction of zeros among active weights from which on the threshold counts as turned on", gt=0, lt=1
        )
        classifier: bool = option(True, "whether the last layer has a threshold too, as the authors' has", neutral=True)

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        if isinstance(options.threshold_decay, str):
            raise ValueError("threshold_decay: a calibrated value is filled in from a calibration file, not here")
        self._active = False  # whether the threshold has turned on
        self._before: float | None = None  # sparsity one epoch ago
        self._projected = False

    def install(self, model: nn.Module, seed: int = 0) -> None:
        """Install, and switch off the threshold of the classifier if the option says so."""
        super().install(model, seed)
        if not self.options.classifier:
            try:
                last = self.slots[self.called("last")].parameters[1]
            except UnclearRole as error:
                raise OptionError("classifier", f"false, but {error}", section="representation") from None
            # without a gradient no optimizer changes it, not even by decay
            last.requires_grad_(False).fill_(NEVER)

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return (w, s) with s shaped (1, 1) as in the authors' code."""
        return weight, torch.full((1, 1), self.options.initial_threshold, dtype=weight.dtype, device=weight.device)

    def materialise(self, *factors: Tensor) -> Tensor:
        """Compute the soft threshold of w at sigmoid(s)."""
        weight, threshold = factors
        # a scalar, since s of shape (1, 1) would change the shape of a one-dimensional weight
        return torch.sign(weight) * torch.relu(weight.abs() - torch.sigmoid(threshold.squeeze()))

    def decay_of(self, factor: str, weight_decay: float) -> float:
        """Return the threshold's own decay, or that of the weights if it has none."""
        own = self.options.threshold_decay
        return float(own) if factor == "threshold" and isinstance(own, float) else weight_decay

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Record the epoch in which the threshold turns on; project the final sparsity once."""
        if self._active and self._projected:
            return
        kept = sum(ctx.masks.num_active().values())
        zeros = sum(int(((theta == 0) & ctx.masks[name]).sum()) for name, theta in self.weights())
        if not self._active and zeros >= self.options.active_at * kept:
            self._active = True
            ctx.record("threshold", changed=zeros)
        now = 1 - (kept - zeros) / sum(ctx.masks.sizes.values())
        if not self._projected and ctx.epoch >= PROJECT_AT * ctx.total_epochs:
            self._projected = True
            self._warn(ctx, now)
        self._before = now

    def _warn(self, ctx: Context, now: float) -> None:
        pace = now - (now if self._before is None else self._before)
        straight = now + pace * (ctx.total_epochs - ctx.epoch)
        low, high = sorted((min(max(straight, 0.0), 1.0), now))
        if ctx.sparsity == 0 or low - TOLERANCE <= ctx.sparsity <= high + TOLERANCE:
            return
        ctx.record("projection", changed=0, low=low, high=high, target=ctx.sparsity)
        log.warning(
            "step %d: STR is heading for a sparsity between %.4f and %.4f, its target is %.4f; the sparsity results "
            "from initial_threshold and threshold_decay",
            ctx.steps_done,
            low,
            high,
            ctx.sparsity,
        )
