"""spred: L1 by weight decay on both factors of a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsity.options import option
from sparsity.registry import register_representation

from .cut import Cut, CutProduct


@register_representation("spred")
class Spred(CutProduct):
    """θ = m ⊙ w with weight decay λ on both factors, trained by plain SGD and then pruned by magnitude.

    Ziyin & Wang, "spred: Solving L1 Penalty with SGD" (ICML 2023, arXiv 2210.01212), and the authors' code. The decay
    is the whole method; it is the optimizer's ``weight_decay``: its λ/2 (|m|² + |w|²) is at least λ |θ|, with equality
    for |m| = |w|, so it acts as an L1 penalty. Nothing controls m² − w².

    ``init``: ``sqrt`` is the balanced pair with product θ₀, which their conversion of dense weights and one setting of
    their script give; ``independent`` draws both anew (Kaiming normal, fan in), the default of their script, with a
    product far smaller than θ₀ (variance σ⁴); ``clone`` sets both to θ₀, so θ = θ₀² ≥ 0, as their layer does before it
    is initialised. The default is ``sqrt``, because rows of one seed share θ₀; which one the published figures used is
    *unverified*.

    Deviations: the authors choose a threshold on |m ⊙ w| (1e-6 to 1e-2 on CIFAR) and report the sparsity that results,
    or prune a given fraction of each layer; here weights are pruned to the target sparsity with an exact count, by one
    threshold for all layers or, with ``allocation: uniform``, the same fraction of each. They zero one or both factors;
    here a pruned entry is set to (``pruned_m``, 0), where it has a gradient if it regrows. Their option to raise the
    fraction along a cubic ramp, off by default, is left out. Fine-tuning after the cut (``cut_at`` below 1) continues
    with the learning rate and decay of the run; theirs is a run of its own (20 epochs of Adam on CIFAR). Whether the
    ImageNet figures were fine-tuned after a cut is *unverified*; the default is no fine-tuning.
    """

    title = "spred"
    paper = "Ziyin & Wang, ICML 2023, arXiv 2210.01212"
    preset = {"beta": 0.0}

    @dataclass(frozen=True)
    class Options(Cut):
        """Options of spred."""

        init: str = option(
            "sqrt",
            "sqrt: balanced factors of the model's weights; independent: both drawn anew; clone: m = w = weight",
            choices=("sqrt", "independent", "clone"),
        )
        pruned_m: float = option(1.0, "m of a pruned entry", gt=0)
        allocation: str = option(
            "global", "one threshold for all layers, or the same fraction of each", choices=("global", "uniform")
        )

    def __init__(self, options: Any):
        super().__init__(options)
        self.allocation = options.allocation
