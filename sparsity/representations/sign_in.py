"""Sign-In: m ⊙ w whose geometry is restored by resets."""

from __future__ import annotations

from dataclasses import dataclass

from sparsity.options import option
from sparsity.registry import register_representation

from .product import MOMENTS, Balance, Pair


@register_representation("sign_in")
class SignIn(Pair):
    """m ⊙ w that is reset to m² − w² = β every few epochs without changing θ.

    Gadhikar, Jacobs, Zhou & Burkholz, "Sign-In to the Lottery" (NeurIPS 2025, arXiv 2504.12801): noise and decay drive
    β to 0, where signs no longer flip; the reset is the essential ingredient. β = 1 for all layers is published; the
    period p on ImageNet and the treatment of momentum are not, so both are options and *unverified*.

    Moments at a reset (``moments``): ``remap`` keeps the mean dL/dθ, G = (w·b_m + m·b_w)/(m² + w²), and
    transforms it to the new coordinates, (G·w′, G·m′); only state linear in the gradient is transformed, second moments
    stay. ``zero`` clears all state, ``keep`` leaves it unchanged. There is no reset after the last epoch.
    """

    title = "Sign-In"
    paper = "Gadhikar et al., NeurIPS 2025, arXiv 2504.12801"

    @dataclass(frozen=True)
    class Options(Balance):
        """Options of Sign-In."""

        reset_every: int = option(1, "period p of the reset in epochs", ge=1)
        moments: str = option("remap", "how a reset treats moments", choices=MOMENTS)
