"""The product m ⊙ w: the base class of all methods that train it, and the product with all options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from sparsity.options import OptionError, option
from sparsity.registry import register_representation
from sparsity.representation import Representation

if TYPE_CHECKING:
    from sparsity.topology import Context

# state of torch optimizers that is linear in the gradient and so can be transformed to new coordinates
LINEAR_MOMENTS = ("momentum_buffer", "exp_avg")
MOMENTS = ("remap", "zero", "keep")


@dataclass(frozen=True)
class Recipe:
    """The parameters in which the methods that train a product differ.

    Attributes:
        beta: m² − w² at the start and after a reset; 0 is the balanced pair.
        pruned_m: m of a pruned entry when beta is 0.
        init: ``geometry`` splits the model's weight at beta; ``independent`` draws both factors anew, Kaiming normal;
            ``clone`` sets both to the weight, so that θ = θ₀².
        penalty: α of the penalty α (|m|² + |w|²) at the start.
        reset_every: Period of resets in epochs; 0 for none.
        moments: How a reset treats moments, one of `MOMENTS`.
    """

    beta: float = 0.0
    pruned_m: float = 1.0
    init: str = "geometry"
    penalty: float = 0.0
    reset_every: int = 0
    moments: str = "remap"


def split(theta: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the (m, w) with m ⊙ w = θ, m² − w² = β and m > 0 (for β = 0 the balanced pair, m ≥ 0).

    m² = (√(4θ² + β²) + β) / 2. For β > 0 the smaller factor is θ / m, which is accurate even if m² − β cancels.
    """
    m = ((torch.sqrt(4 * theta * theta + beta * beta) + beta) / 2).sqrt()
    return m, torch.where(m > 0, theta / m.clamp_min(torch.finfo(m.dtype).tiny), torch.zeros_like(m))


def _metric(m: Tensor, w: Tensor) -> Tensor:
    """Return m² + w², bounded away from zero: at (0, 0) the numerators vanish too and 0 is the right limit."""
    return (m * m + w * w).clamp_min(torch.finfo(m.dtype).tiny)


@dataclass(frozen=True)
class Balance:
    """Options of a product that keeps m² − w² at the start and where entries are pruned."""

    beta: float = option(1.0, "m² − w² at the start; 0 is the balanced start", ge=0)
    pruned_m: float = option(1.0, "m of a pruned entry when beta is 0", gt=0)


class Pair(Representation):
    """Base class of θ = m ⊙ w; both factors are trained, decayed and masked. A `Recipe` says everything else.

    dL/dθ = (w · ∂L/∂m + m · ∂L/∂w) / (m² + w²), from the gradients of the factors: correct under accumulation, DDP and
    compile. A pruned entry is set to (√β, 0), never to (0, 0), a saddle at which both gradients vanish; for β = 0 to
    (``pruned_m``, 0), which makes that entry unbalanced.

    Class attributes:
        preset: Parameters of the recipe that a method fixes; the others are its options of the same names.
    """

    factor_names = ("m", "w")
    ham_factors = ()
    preset: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: Any):
        super().__init__(options)
        known = {key: value for key, value in vars(options).items() if key in Recipe.__dataclass_fields__}
        self.recipe = Recipe(**{**self.preset, **known})
        self.penalty = self.recipe.penalty
        self.needs_epochs = self.needs_epochs or self.recipe.reset_every > 0

    # ---- the algebra ------------------------------------------------------------------------------------------------

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the factors of a weight: at the start as the option ``init`` says, later always at m² − w² = β."""
        if self.initial is not None and self.recipe.init == "clone":
            return weight, weight.detach().clone()
        if self.initial is not None and self.recipe.init == "independent":
            std = math.sqrt(2 / weight[0].numel())
            drawn = (torch.randn(weight.shape, generator=self.initial).mul_(std) for _ in self.factor_names)
            return tuple(factor.to(weight) for factor in drawn)
        return self._at_geometry(weight)

    def _at_geometry(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Split at β; at β = 0 a weight of zero is set to (``pruned_m``, 0), since (0, 0) could never move."""
        m, w = split(theta, self.recipe.beta)
        return m.masked_fill(m == 0, self.recipe.pruned_m), w

    def materialise(self, *factors: Tensor) -> Tensor:
        """Compute m ⊙ w."""
        return factors[0] * factors[1]

    def grad(self, *factors: nn.Parameter) -> Tensor | None:
        """Compute dL/dθ; see the class docstring."""
        m, w = factors
        if m.grad is None or w.grad is None:
            return None
        with torch.no_grad():
            return (w * m.grad + m * w.grad) / _metric(m, w)

    def zero_pruned(self, factors: tuple[nn.Parameter, ...], pruned: Tensor) -> None:
        """Set pruned entries to (√β, 0)."""
        m, w = factors
        m.masked_fill_(pruned, self.recipe.beta**0.5 or self.recipe.pruned_m)
        w.masked_fill_(pruned, 0.0)

    # ---- penalty and reset ------------------------------------------------------------------------------------------

    def penalty_grad(self, *factors: nn.Parameter) -> tuple[Tensor, ...] | None:
        """Return 2α (m, w), or None if α is 0."""
        return tuple(2 * self.penalty * factor for factor in factors) if self.penalty else None

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Count one reset every p epochs, but none after the last one."""
        every = self.recipe.reset_every
        return {"reset": (epochs - 1) // every} if every else {}

    def check_run(self, epochs: int, sparsity: float) -> None:
        """There must be a reset before the last epoch ends, if there are to be any."""
        every = self.recipe.reset_every
        if every >= epochs:
            raise OptionError(
                "reset_every",
                f"{every} epochs are too long for a run of {epochs}: {self.name} would never reset",
                "representation",
            )

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Reset every p epochs."""
        every, done = self.recipe.reset_every, ctx.epoch
        if every and done % every == 0 and done < ctx.total_epochs:
            self._reset(ctx)

    @torch.no_grad()
    def _reset(self, ctx: Context) -> None:
        """Reset m² − w² to β without changing θ."""
        changed = torch.zeros((), dtype=torch.long)
        for slot in self.slots.values():
            m, w = slot.factors
            new_m, new_w = self._at_geometry(m * w)
            changed += (new_m != m).sum().cpu()
            self._carry_moments(ctx, (m, w), (new_m, new_w))
            m.copy_(new_m)
            w.copy_(new_w)
        ctx.zero_pruned()
        ctx.record("reset", changed=int(changed))

    def _carry_moments(self, ctx: Context, old: tuple[nn.Parameter, ...], new: tuple[Tensor, ...]) -> None:
        if self.recipe.moments == "keep":
            return
        m, w = old
        if self.recipe.moments == "zero":
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


@register_representation("product")
class HadamardProduct(Pair):
    """θ = m ⊙ w from the model's own weights, with initialisation, penalty and reset as options.

    This is the overparameterisation whose geometry HAM has without its cost: gradient flow on (m, w) moves θ with the
    inverse metric m² + w² = √(4θ² + β²) for the invariant β = m² − w².

    ``penalty`` adds α (|m|² + |w|²) to the objective, through its gradient 2α (m, w) and after the topology has read
    dL/dθ. The optimizer's decay acts on the factors in addition to it. ``reset_every`` is Sign-In's reset.
    """

    title = "m⊙w"
    paper = "Jacobs & Burkholz, ICLR 2025, arXiv 2408.09966 (PILoT, for the initialisation m² − w² = β)"

    @dataclass(frozen=True)
    class Options(Balance):
        """Options of the product."""

        init: str = option(
            "geometry",
            "geometry: the model's weights at m² − w² = beta; independent: both drawn anew; clone: m = w = weight",
            choices=("geometry", "independent", "clone"),
            neutral="geometry",
        )
        penalty: float = option(0.0, "α of the penalty α (|m|² + |w|²)", ge=0, neutral=0.0)
        reset_every: int = option(0, "epochs between resets to m² − w² = beta; 0: none", ge=0, neutral=0)
        moments: str = option("remap", "how a reset treats moments", choices=MOMENTS, neutral="remap")
