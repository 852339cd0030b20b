"""GraSP: prune at initialisation, preserving the flow of gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsity.at_start import ScoredAtStart
from sparsity.masking import scores
from sparsity.masking.budgets import DenseLayers
from sparsity.options import option
from sparsity.probe import Batch, Probe
from sparsity.registry import register_topology
from sparsity.topology import Context


@register_topology("grasp")
class GraSP(ScoredAtStart):
    """Prune, before training, the weights with the highest −θ · (H g), of all layers together.

    Wang, Zhang & Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow" (ICLR 2020, arXiv
    2002.07376), algorithm 1, and the authors' code: logits divided by 200, g over all images first, then H g by a
    second backward pass through ∇L. The sign matters: positive and negative scores are at opposite ends of the order.

    ``per_class`` takes the first images of each class in the order of training batches, as the authors do on small data
    sets (25 per class by their code's default); on ImageNet they take 150 batches of 128 in order, which is
    ``per_class: null, batches: 150``. Gradients are computed on parts as large as a training micro-batch, whereas the
    authors compute halves of a class-balanced batch, and 20 images at a time on ImageNet; batch statistics depend on
    it. Deviations: the classifier keeps its initial weights, whereas the authors' code draws it anew (Xavier) for
    scoring only; exact counts, where theirs keeps the weight at the threshold too, one more; ties are drawn;
    single precision even if training uses autocast.
    """

    title = "GraSP"
    paper = "Wang et al., ICLR 2020, arXiv 2002.07376"

    @dataclass(frozen=True)
    class Options(DenseLayers):
        """Options of GraSP."""

        batches: int = option(1, "training batches that the score is computed on, if per_class is null", ge=1)
        per_class: int | None = option(25, "images per class instead; null: batches in order", ge=1)
        temperature: float = option(200.0, "temperature that divides the logits", gt=0)

    options: Options

    def check_probe(self, probe: Probe) -> None:
        """Require as many batches, or images of each class, as are scored."""
        per_class = self.options.per_class
        probe.check(batches=self.options.batches if per_class is None else None, per_class=per_class)

    def scores(self, ctx: Context, probe: Probe) -> scores.Scores:
        """Compute θ · (H g)."""
        options, seed = self.options, ctx.generator("scores").initial_seed()
        # searching for the images may take many batches, so it is done once; batches in order are read twice, not held
        found = None if options.per_class is None else list(probe.class_balanced(options.per_class))

        def parts() -> Iterable[Batch]:
            return found or probe.micro_batches(options.batches)

        network = scores.alone(ctx.plain_copy()).train()
        return scores.grasp(network, probe.loss, parts, options.temperature, seed)
