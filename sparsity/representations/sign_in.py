"""Sign-In: m ⊙ w whose geometry is kept by resets."""

from __future__ import annotations

from dataclasses import dataclass

from sparsity.options import option
from sparsity.registry import register_representation

from .product import MOMENTS, Pair


@register_representation("sign_in")
class SignIn(Pair):
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

    @dataclass(frozen=True)
    class Options:
        """Options of Sign-In."""

        beta: float = option(1.0, "m² − w² at the start; 0 is the balanced start", ge=0)
        pruned_m: float = option(1.0, "m of a pruned entry when beta is 0", gt=0)
        reset_every: int = option(1, "period p of the reset in epochs", ge=1)
        moments: str = option("remap", "moments at a reset", choices=MOMENTS)
