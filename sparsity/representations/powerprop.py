"""Powerpropagation: weights raised to a power."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsity.options import option
from sparsity.registry import register_representation
from sparsity.representation import Representation


@register_representation("powerprop")
class Powerprop(Representation):
    """θ = v · |v|^(p−1): large weights learn faster and small ones stay small.

    Schwarz, Jayakumar, Pascanu, Latham & Teh, "Powerpropagation: A sparsity inducing weight reparameterisation"
    (NeurIPS 2021, arXiv 2110.00296), and the authors' notebook. v starts at sign(θ₀) · |θ₀|^(1/p), so that θ starts at
    θ₀ as in the notebook. Masks and scores act on θ, by which the authors prune too. The representation makes no
    zeros itself: the sparsity comes from the topology. At v = 0 there is no gradient (p > 1), so it cannot be combined
    with topologies that regrow weights.

    p = 1 is the plain weight. The notebook (MNIST) has p from 1 to 5; the values of the paper's ImageNet rows are
    *unverified*, and so is the default of 2. Decay acts on v, so it is a penalty on |θ|^(2/p); what the authors decay
    is *unverified*. HAM acts on v.

    dL/dθ = ∂L/∂v / (p |v|^(p−1)); 0 at v = 0, where ∂L/∂v does not determine it.
    """

    title = "Powerprop"
    paper = "Schwarz et al., NeurIPS 2021, arXiv 2110.00296"
    grad_at_zero = False  # dθ/dv = 0 at v = 0
    factor_names = ("v",)
    ham_factors = ("v",)

    @dataclass(frozen=True)
    class Options:
        """Options of Powerpropagation."""

        power: float = option(2.0, "exponent p of |v|; 1 is the plain weight", ge=1)

    options: Options

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the v whose power is the weight."""
        return (torch.sign(weight) * weight.abs().pow(1 / self.options.power),)

    def materialise(self, *factors: Tensor) -> Tensor:
        """Compute sign(v) · |v|^p, whose gradient at 0 is 0; that of v · |v|^(p−1) is NaN there for p < 2."""
        if self.options.power == 1:
            return factors[0]
        return torch.sign(factors[0]) * factors[0].abs().pow(self.options.power)

    def grad(self, *factors: nn.Parameter) -> Tensor | None:
        """Compute dL/dθ; see the class docstring."""
        (v,) = factors
        if v.grad is None:
            return None
        with torch.no_grad():
            slope = self.options.power * v.abs().pow(self.options.power - 1)
            return torch.where(slope > 0, v.grad / slope.clamp_min(torch.finfo(v.dtype).tiny), torch.zeros_like(v))
