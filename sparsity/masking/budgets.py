"""How many weights each layer keeps: the options that topologies share, and their counts.

`LayerBudgets` is for methods whose layers have densities, `Allocation` for those that also know one global budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsity.masks import MaskSet
from sparsity.options import option

from .distributions import DENSE, NAMES, Shapes, counts, dense_layers, layer_densities
from .selection import top_k, top_k_of_all


def active_of(size: int, sparsity: float) -> int:
    """Number of weights kept of so many: size − floor(sparsity · size), as `distributions.counts` has it."""
    return size - math.floor(sparsity * size + 1e-6)


@dataclass(frozen=True)
class DenseLayers:
    """Options that say which layers stay dense and who pays for them."""

    dense: str = option(
        "none", "layers left dense: the first convolution, the classifier, or both", choices=DENSE, neutral="none"
    )
    rebudget: bool = option(
        True, "whether the other layers pay for the dense ones, so that the sparsity holds over all", neutral=True
    )

    def layer_densities(self, allocation: str, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """Density of each layer under an allocation at a sparsity.

        Raises:
            Infeasible: if the dense layers alone are beyond the budget.
        """
        dense = dense_layers(shapes, self.dense)
        return layer_densities(allocation, shapes, 1 - sparsity, dense, rebudget=self.rebudget)

    def inner(self, shapes: Shapes) -> dict[str, int]:
        """Sizes of the layers that are not left dense, in network order."""
        dense = dense_layers(shapes, self.dense)
        return {name: math.prod(shape) for name, shape in shapes.items() if name not in dense}

    def inner_active(self, shapes: Shapes, sparsity: float, count: Callable[[int, float], int] = active_of) -> int:
        """Number of weights that the layers not left dense keep together under one global budget.

        Args:
            shapes: Weight shapes by name, in network order.
            sparsity: Share of zeros, over all weights or over those layers as `rebudget` says.
            count: Number of weights kept of so many at a sparsity.

        Raises:
            Infeasible: if the dense layers alone are beyond the budget.
        """
        inner = sum(self.inner(shapes).values())
        if not self.rebudget:
            return count(inner, sparsity)
        self.layer_densities("uniform", shapes, sparsity)  # refuses, with the reason, what cannot be had
        total = sum(math.prod(shape) for shape in shapes.values())
        return max(0, count(total, sparsity) - (total - inner))


@dataclass(frozen=True)
class LayerBudgets(DenseLayers):
    """Options of a topology whose layers have densities; its own `Options` inherit from this."""

    allocation: str = option("erk", "how the density is shared among layers", choices=NAMES)

    def densities(self, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """Density of each layer at a sparsity; raises Infeasible if the dense layers alone are beyond the budget."""
        return self.layer_densities(self.allocation, shapes, sparsity)

    def num_active(self, shapes: Shapes, sparsity: float) -> dict[str, int]:
        """Number of weights each layer keeps at a sparsity."""
        return counts(shapes, self.densities(shapes, sparsity))

    def total(self, shapes: Shapes, sparsity: float) -> int:
        """Number of weights that all layers keep together."""
        return sum(self.num_active(shapes, sparsity).values())


@dataclass(frozen=True)
class Allocation(DenseLayers):
    """Options of a topology that keeps the highest scores, over all layers together or layer by layer."""

    allocation: str = option(
        "global",
        "global: one threshold for all layers; otherwise how the density is shared among layers",
        choices=("global", *NAMES),
    )

    def total(self, shapes: Shapes, sparsity: float) -> int:
        """Number of weights that all layers keep together."""
        if self.allocation != "global":
            return sum(counts(shapes, self.layer_densities(self.allocation, shapes, sparsity)).values())
        size = sum(math.prod(shape) for shape in shapes.values())
        return size - sum(self.inner(shapes).values()) + self.inner_active(shapes, sparsity)

    def select(self, scores: Mapping[str, Tensor], sparsity: float, share: float = 1.0) -> MaskSet:
        """Masks of the highest scores; ties go to the first layer and the lowest index.

        Args:
            scores: Score of every weight by name, in network order.
            sparsity: Share of zeros in the end.
            share: How much of each layer's zeros (of all zeros, if global) is there already, in [0, 1].
        """
        shapes = {name: tuple(score.shape) for name, score in scores.items()}
        if self.allocation == "global":
            inner = self.inner(shapes)
            size = sum(inner.values())
            kept = _on_the_way(size, self.inner_active(shapes, sparsity), share)
            masks = top_k_of_all({name: scores[name] for name in inner}, kept)
        else:
            final = counts(shapes, self.layer_densities(self.allocation, shapes, sparsity))
            masks = {name: top_k(s, _on_the_way(s.numel(), final[name], share)) for name, s in scores.items()}
        return MaskSet({name: masks[name] if name in masks else top_k(s, s.numel()) for name, s in scores.items()})


def _on_the_way(size: int, final: int, share: float) -> int:
    return size - math.floor(share * (size - final) + 1e-6)
