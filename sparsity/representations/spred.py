"""spred: L1 by weight decay on both factors of a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsity.options import option
from sparsity.registry import register_representation

from .cut import CutProduct


@register_representation("spred")
class Spred(CutProduct):
    """θ = m ⊙ w under plain SGD whose decay λ acts on both factors; then a cut by magnitude.

    Ziyin & Wang, "spred: Solving L1 Penalty with SGD" (ICML 2023, arXiv 2210.01212), and the authors' code. The decay
    is the whole method and is the optimizer's ``weight_decay``: its λ/2 (|m|² + |w|²) is at least λ |θ|, and equal to
    it where |m| = |w|, so it acts as an L1 penalty. Nothing controls m² − w².

    ``init``: ``sqrt`` is the balanced pair with product θ₀, which their conversion of dense weights and one setting of
    their script give; ``independent`` draws both anew (Kaiming normal, fan in), their script's default, with a product
    far smaller than θ₀ (variance σ⁴); ``clone`` sets both to θ₀, so θ = θ₀² ≥ 0, what their layer does before it is
    initialised. The default is ``sqrt``, since rows of one seed share θ₀; which one the published figures used is
    *unverified*.

    Deviations: the authors choose a threshold on |m ⊙ w| (1e-6 to 1e-2 on CIFAR) and report the sparsity that results,
    or give a share that each layer loses; here the cut is at the sparsity of the run with an exact count, one threshold
    over all layers or, with ``allocation: uniform``, the same share of each. They zero one or both factors; here a
    pruned entry is parked at (``pruned_m``, 0), where a gradient reaches it if it regrows. Their option to raise the
    share along a cubic ramp, off by default, is left out. Fine-tuning after the cut (``cut_at`` below 1) goes on with
    the run's own rate and decay; theirs is a run of its own (20 epochs of Adam on CIFAR). Whether the ImageNet figures
    were fine-tuned after a cut is *unverified*; the default is no fine-tuning.
    """

    title = "spred"
    paper = "Ziyin & Wang, ICML 2023, arXiv 2210.01212"
    preset = {"beta": 0.0}

    @dataclass(frozen=True)
    class Options:
        """Options of spred."""

        init: str = option(
            "sqrt",
            "sqrt: balanced factors of the model's weights; independent: both drawn anew; clone: m = w = weight",
            choices=("sqrt", "independent", "clone"),
        )
        pruned_m: float = option(1.0, "m of a pruned entry", gt=0)
        cut_at: float = option(1.0, "share of the epochs after which is cut; the rest is fine-tuning", gt=0, le=1)
        allocation: str = option(
            "global", "one threshold for all layers, or the same share of each", choices=("global", "uniform")
        )

    def __init__(self, options: Any):
        super().__init__(options)
        self.allocation = options.allocation
