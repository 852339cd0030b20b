"""BAR: m ⊙ w whose factors are driven to equal norms, which sharpness-aware minimization does by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparsity.options import OptionError, option
from sparsity.registry import register_representation

from .product import Pair

if TYPE_CHECKING:
    from sparsity.topology import Context

# share of mu left at a share of the training
SCHEDULES = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


@register_representation("bar")
class Bar(Pair):
    """m ⊙ w with balancedness-aware regularisation: before each step one factor shrinks and the other one grows.

    Li, Zhang & He, "Implicit Regularization of Sharpness-Aware Minimization for Scale-Invariant Problems" (NeurIPS
    2024, arXiv 2410.14802), algorithms 2 and 3, with x = m and y = w: once the gradients are there and before the
    optimizer moves, at learning rate η and with μ_t (α_t in the algorithms, μ₀ in the paper's tables)::

        nbar: m grows if |∂m| ≥ |∂w|, else w      one factor times 1 + μ_t η, the other one times 1 − μ_t η
        obar: w grows if |m| ≥ |w|, else m

    It is decoupled, as AdamW's decay is: momentum and clipping know nothing of it, and θ changes by (μ_t η)² of itself
    alone, which sums up where factors are balanced and the two go on taking turns. SAM's own flow has
    d/dt ½(|m|² − |w|²) ∝ |∂m|² − |∂w|² on m ⊙ w too (theorem 2), where SGD's conserves it; ``nbar`` takes its sign at
    the price of two norms instead of a second gradient. SAM beside it is not refused, and does the same twice.

    The paper has products of matrices (LoRA). That m ⊙ w is treated likewise is the suite's transfer:

    - ``scope``: ``layer`` compares norms of the layer's factors, the paper's rule a LoRA pair; ``weight`` takes each
      (m_i, w_i) as a pair of its own, since each can be rescaled by itself and has an invariant of its own. There nbar
      and obar say the same wherever there is a gradient, ties apart.
    - Weights that do not exist count in no norm; parked at (√β, 0), they would look off balance for ever.
    - Where neither factor has a gradient, nbar leaves both alone, as SAM does; in the algorithm m would grow.
    - Weight decay on both factors balances them too, at 2λη a step; the paper found none to be best beside BAR on
      some tasks.

    *Unverified*: every value, for this use. The paper tunes μ₀ over 0.05 to 2 with AdamW at rates of 1e-5 to 5e-4
    (linear, cosine or constant; linear is in each of its grids). There μ₀ · η is 1e-3 at most, so SGD's rates need a
    far smaller μ₀. Its released repository holds a licence and no code in the copy at hand: this follows the paper.

    BAR works against Sign-In and PILoT, which need m² − w² = 1 for their signs to flip: it is neither's option. Its own
    start is that of the product; ``beta: 0`` starts balanced, as spred does. Each epoch's state is recorded as the
    event ``balance``: ``layer``, Σ_l ||m_l|² − |w_l|²|, and ``weight``, Σ_i |m_i² − w_i²|, both over the number of
    weights that exist. ``mu: 0`` is the product itself, recorded.
    """

    title = "m⊙w + BAR"
    paper = "Li, Zhang & He, NeurIPS 2024, arXiv 2410.14802"

    @dataclass(frozen=True)
    class Options:
        """Options of BAR."""

        beta: float = option(1.0, "m² − w² at the start; 0 is the balanced start", ge=0)
        pruned_m: float = option(1.0, "m of a pruned entry when beta is 0", gt=0)
        variant: str = option(
            "nbar", "what decides: nbar: norms of gradients; obar: of factors", choices=("nbar", "obar")
        )
        scope: str = option("layer", "what a norm is taken of: a layer, or each weight", choices=("layer", "weight"))
        mu: float = option(0.01, "μ₀ at the start, per unit of learning rate; mu times the rate is below 1", ge=0)
        schedule: str = option("linear", "how μ falls over a training", choices=tuple(SCHEDULES))

    options: Options

    @classmethod
    def check(cls, options: Options, lr: float) -> None:
        """Refuse a factor of 1 − μη that is not positive."""
        if options.mu * lr >= 1:
            raise OptionError("mu", f"{options.mu:g} times the learning rate, {lr:g}, must be below 1")

    @torch.no_grad()
    def before_step(self, ctx: Context) -> None:
        """Scale the factors of each layer whose gradients are there."""
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
                if not isinstance(rate, Tensor):  # else it would be waited for
                    self.check(self.options, rate)
                factor.mul_(1 + sign * mu * rate * direction)

    def _direction(self, m: nn.Parameter, w: nn.Parameter, exists: Tensor) -> Tensor:
        """1 where m is to grow, -1 where w is, 0 where neither: one entry, or one a weight."""
        if self.options.variant == "obar":
            of_m, of_w = self._norms(m, w, exists)
            return 1 - 2 * (of_m >= of_w).to(m.dtype)
        assert m.grad is not None
        assert w.grad is not None
        of_m, of_w = self._norms(m.grad, w.grad, exists)
        return (2 * (of_m >= of_w).to(m.dtype) - 1) * ((of_m > 0) | (of_w > 0))

    def _norms(self, of_m: Tensor, of_w: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        if self.options.scope == "weight":
            return (of_m * exists).abs(), (of_w * exists).abs()
        return torch.linalg.vector_norm(of_m * exists), torch.linalg.vector_norm(of_w * exists)

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
        """A balance for each epoch."""
        return {"balance": epochs, **super().expected_events(epochs, sparsity)}
