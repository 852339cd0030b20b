"""The product m ⊙ w, and Sign-In, which keeps its geometry by resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..options import option
from ..registry import register_representation
from ..representation import Representation

if TYPE_CHECKING:
    from ..topology import Context

# state of torch optimizers that is linear in the gradient, so that a change of coordinates maps it
LINEAR_MOMENTS = ("momentum_buffer", "exp_avg")


def split(theta: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The (m, w) with m ⊙ w = θ, m² − w² = β and m > 0 (for β = 0 the balanced pair, m ≥ 0).

    m² = (√(4θ² + β²) + β) / 2. For β > 0 the smaller factor is θ / m, which is accurate also where m² − β would cancel.
    """
    m = ((torch.sqrt(4 * theta * theta + beta * beta) + beta) / 2).sqrt()
    return m, torch.where(m > 0, theta / m.clamp_min(torch.finfo(m.dtype).tiny), torch.zeros_like(m))


def _metric(m: Tensor, w: Tensor) -> Tensor:
    """m² + w², kept off zero: at (0, 0) the numerators vanish too and 0 is the right limit."""
    return (m * m + w * w).clamp_min(torch.finfo(m.dtype).tiny)


@register_representation("product")
class Product(Representation):
    """θ = m ⊙ w, both trained; decay and masks act on both.

    The overparameterisation whose geometry HAM keeps without its cost: gradient flow on (m, w) moves θ with the inverse
    metric m² + w² = √(4θ² + β²) for the invariant β = m² − w². Starts at the model's own weights.

    dL/dθ = (w · ∂L/∂m + m · ∂L/∂w) / (m² + w²), from leaf gradients: right under accumulation, DDP and compile.
    A pruned entry is parked at (√β, 0), never (0, 0), which is a saddle no gradient leaves; for β = 0 at
    (``park_zero_beta``, 0), which unbalances that entry.
    """

    title = "m⊙w"
    paper = "Jacobs & Burkholz, ICLR 2025, arXiv 2408.09966 (PILoT, for the initialisation m² − w² = β)"
    factor_names = ("m", "w")
    ham_factors = ()

    @dataclass(frozen=True)
    class Options:
        """Options of the product."""

        beta: float = option(1.0, "m² − w² at the start; 0 is the balanced start", ge=0)
        park_zero_beta: float = option(1.0, "m of a pruned entry when beta is 0", gt=0)

    options: Any

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Split the weight at the configured β; at β = 0 an exact zero is parked, since (0, 0) could never move."""
        m, w = split(weight, self.options.beta)
        return m.masked_fill(m == 0, self.options.park_zero_beta), w

    def materialise(self, *factors: Tensor) -> Tensor:
        """M ⊙ w."""
        return factors[0] * factors[1]

    def grad(self, *factors: nn.Parameter) -> Tensor | None:
        """dL/dθ; see the class docstring."""
        m, w = factors
        if m.grad is None or w.grad is None:
            return None
        with torch.no_grad():
            return (w * m.grad + m * w.grad) / _metric(m, w)

    def park(self, factors: tuple[nn.Parameter, ...], dead: Tensor) -> None:
        """Park at (√β, 0)."""
        m, w = factors
        m.masked_fill_(dead, self.options.beta**0.5 or self.options.park_zero_beta)
        w.masked_fill_(dead, 0.0)


@register_representation("sign_in")
class SignIn(Product):
    """m ⊙ w at m² − w² = β, put back there every few epochs with θ unchanged.

    Gadhikar, Jacobs, Zhou & Burkholz, "Sign-In to the Lottery" (NeurIPS 2025, arXiv 2504.12801): noise and decay drive
    β to 0, where signs no longer flip; the reset is the essential ingredient. β = 1 for all layers is published; the
    period p on ImageNet and the treatment of momentum are not, so both are options and *unverified*.

    Moments at a reset (``moments``): ``remap`` keeps the mean dL/dθ, G = (w·b_m + m·b_w)/(m² + w²), and writes it
    in the new coordinates, (G·w′, G·m′); only state linear in the gradient is mapped, second moments stay. ``zero``
    clears all of it, ``keep`` leaves it. No reset happens after the last epoch, where nothing would follow it.
    """

    title = "Sign-In"
    paper = "Gadhikar et al., NeurIPS 2025, arXiv 2504.12801"
    needs_epochs = True

    @dataclass(frozen=True)
    class Options(Product.Options):
        """Options of Sign-In."""

        reset_every: int = option(1, "period p of the reset in epochs", ge=1)
        moments: str = option("remap", "moments at a reset", choices=("remap", "zero", "keep"))

    def expected_events(self, epochs: int) -> dict[str, int]:
        """One reset every p epochs, none at the end."""
        return {"reset": (epochs - 1) // self.options.reset_every}

    @torch.no_grad()
    def after_epoch(self, ctx: Context) -> None:
        """Reset every p epochs."""
        done = ctx.epoch
        if done % self.options.reset_every or done >= ctx.total_epochs:
            return
        changed = torch.zeros((), dtype=torch.long)
        for slot in self.slots.values():
            m, w = slot.factors
            theta = m * w
            new_m, new_w = self.factorise(theta)
            changed += (new_m != m).sum().cpu()
            self._carry_moments(ctx, (m, w), (new_m, new_w))
            m.copy_(new_m)
            w.copy_(new_w)
        ctx.park()
        ctx.record("reset", changed=int(changed))

    def _carry_moments(self, ctx: Context, old: tuple[nn.Parameter, ...], new: tuple[Tensor, ...]) -> None:
        if self.options.moments == "keep":
            return
        m, w = old
        if self.options.moments == "zero":
            for factor in old:
                ctx.reset_moments(factor)
            return
        for key in LINEAR_MOMENTS:
            of_m, of_w = ctx.moment(m, key), ctx.moment(w, key)
            if of_m is None or of_w is None:
                continue
            averaged = (w * of_m + m * of_w) / _metric(m, w)
            of_m.copy_(averaged * new[1])
            of_w.copy_(averaged * new[0])
