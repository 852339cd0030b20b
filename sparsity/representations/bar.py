"""BAR: m ⊙ w whose factors are driven to equal norms, as sharpness-aware minimization does implicitly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparsity.options import OptionError, option
from sparsity.registry import register_representation

from .product import Balance, Pair

if TYPE_CHECKING:
    from sparsity.topology import Context

# fraction of mu that is left as a function of progress
SCHEDULES = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


@register_representation("bar")
class Bar(Pair):
    """m ⊙ w with balancedness-aware regularisation: before each step one factor grows and the other one shrinks.

    Li, Zhang & He, "Implicit Regularization of Sharpness-Aware Minimization for Scale-Invariant Problems" (NeurIPS
    2024, arXiv 2410.14802), algorithms 2 and 3, with x = m and y = w: after the backward pass and before the
    optimizer moves, at learning rate η and with μ_t (α_t in the algorithms, μ₀ in the paper's tables)::

        nbar: m grows if |∂m| ≥ |∂w|, else w      one factor times 1 + μ_t η, the other one times 1 − μ_t η
        obar: w grows if |m| ≥ |w|, else m

    The rule is decoupled, as AdamW's decay is: momentum and clipping do not see it. θ changes by only (μ_t η)² relative
    to itself, which accumulates when factors are balanced and alternate in growing. SAM's own flow also has
    d/dt ½(|m|² − |w|²) ∝ |∂m|² − |∂w|² on m ⊙ w (theorem 2), whereas SGD's conserves the difference; ``nbar`` follows
    its sign at the cost of two norms instead of a second gradient. SAM together with BAR is allowed, but redundant.

    The paper treats products of matrices (LoRA). Its application to m ⊙ w is the suite's own:

    - ``scope``: ``layer`` compares norms of the layer's factors, as the paper does per LoRA pair; ``weight`` treats
      each (m_i, w_i) as a pair of its own, since each can be rescaled by itself and has its own invariant. There nbar
      and obar agree wherever there is a gradient, except for ties.
    - Pruned weights are in no norm; at (√β, 0) they would count as unbalanced for ever.
    - If neither factor has a gradient, nbar changes neither, as SAM does; in the algorithm m would grow.
    - Weight decay on both factors balances them too, at 2λη per step; on some tasks the paper found no decay to be best
      together with BAR.

    *Unverified*: every value, for this application. The paper tunes μ₀ over 0.05 to 2 with AdamW at rates of 1e-5 to
    5e-4 (linear, cosine or constant; linear is in each of its grids). There μ₀ · η is 1e-3 at most, so SGD's rates need
    a far smaller μ₀. The available copy of its repository holds a licence and no code: this follows the paper.

    BAR works against Sign-In and PILoT, which need m² − w² = 1 for their signs to flip, so neither has it as an option.
    It starts as the product does; ``beta: 0`` starts balanced, as spred does. The balance after each epoch is recorded
    as the event ``balance``: ``layer``, Σ_l ||m_l|² − |w_l|²|, and ``weight``, Σ_i |m_i² − w_i²|, both divided by the
    number of active weights. ``mu: 0`` is the plain product with these records.
    """

    title = "m⊙w + BAR"
    paper = "Li, Zhang & He, NeurIPS 2024, arXiv 2410.14802"

    @dataclass(frozen=True)
    class Options(Balance):
        """Options of BAR."""

        variant: str = option(
            "nbar", "which norms are compared: nbar: of gradients; obar: of factors", choices=("nbar", "obar")
        )
        scope: str = option("layer", "whether a norm is that of a layer or of each weight", choices=("layer", "weight"))
        mu: float = option(0.01, "μ₀ at the start, per unit of learning rate; mu times the rate is below 1", ge=0)
        schedule: str = option("linear", "how μ falls over a training", choices=tuple(SCHEDULES))

    options: Options

    @classmethod
    def check(cls, options: Options, lr: float) -> None:
        """Refuse values for which 1 − μη is not positive."""
        if options.mu * lr >= 1:
            raise OptionError("mu", f"{options.mu:g} times the learning rate, {lr:g}, must be below 1")

    @torch.no_grad()
    def before_step(self, ctx: Context) -> None:
        """Scale the factors of each layer that has gradients."""
        mu = self.options.mu * SCHEDULES[self.options.schedule](ctx.progress)
        if mu == 0:
            return
        for name, slot in self.slots.items():
            m, w = slot.factors
            if m.grad is None or w.grad is None:
                continue
            direction = self._direction(m, w, ctx.masks[name])
            for factor, sign in ((m, 1), (w, -1)):
                rate = ctx.learning_rate(factor)
                if not isinstance(rate, Tensor):  # reading it from the device would stall
                    self.check(self.options, rate)
                factor.mul_(1 + sign * mu * rate * direction)

    def _direction(self, m: nn.Parameter, w: nn.Parameter, active: Tensor) -> Tensor:
        """Return 1 if m is to grow, -1 if w is, 0 if neither: one entry per layer, or one per weight."""
        if self.options.variant == "obar":
            of_m, of_w = self._norms(m, w, active)
            return 1 - 2 * (of_m >= of_w).to(m.dtype)
        assert m.grad is not None
        assert w.grad is not None
        of_m, of_w = self._norms(m.grad, w.grad, active)
        return (2 * (of_m >= of_w).to(m.dtype) - 1) * ((of_m > 0) | (of_w > 0))

    def _norms(self, of_m: Tensor, of_w: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        if self.options.scope == "weight":
            return (of_m * active).abs(), (of_w * active).abs()
        return torch.linalg.vector_norm(of_m * active), torch.linalg.vector_norm(of_w * active)

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Record how balanced the factors are."""
        layer, weight, number = self._balance(ctx)
        ctx.record("balance", changed=0, layer=layer / number, weight=weight / number)
        super().after_epoch(ctx, metrics)

    @torch.no_grad()
    def _balance(self, ctx: Context) -> tuple[float, float, int]:
        sums = []
        for name, slot in self.slots.items():
            m, w = (factor.double() for factor in slot.factors)
            difference = (m * m - w * w) * ctx.masks[name]
            sums.append(torch.stack([difference.sum().abs(), difference.abs().sum()]))
        layer, weight = torch.stack(sums).sum(0).tolist()
        return layer, weight, max(1, sum(ctx.masks.num_active().values()))

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Count one balance per epoch."""
        return {"balance": epochs, **super().expected_events(epochs, sparsity)}
