"""How many weights each layer keeps: options that topologies share, and the counts that follow from them.

`LayerBudgets` is for methods in which each layer has a density, `Allocation` for those that can also have one budget
for all layers, `DenseLayers` for those that have nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsity.masks import MaskSet
from sparsity.options import option
from sparsity.topology import Context

from .distributions import DENSE, NAMES, Shapes, counts, dense_layers, layer_densities
from .draws import drawn, drawn_of_all
from .rounding import floor_count
from .selection import top_k, top_k_of_all


def active_of(size: int, sparsity: float) -> int:
    """Return how many of `size` weights are active: size − floor(sparsity · size), as in `distributions.counts`."""
    return size - floor_count(sparsity * size)


@dataclass(frozen=True)
class DenseLayers:
    """Options that say which layers stay dense and whether the others make up for it.

    The engine enforces `dense`: it leaves those layers out of `Context.prunable` and refuses masks that prune them.
    """

    dense: str | tuple[str, ...] = option(
        "none",
        "layers left dense: the one called first, the one called last (the classifier), both, or a list of names, "
        "with * and ? as in file names",
        choices=DENSE,
        neutral="none",
    )
    rebudget: bool = option(
        True, "whether the other layers make up for the dense ones, so that the sparsity holds over all", neutral=True
    )

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles by which `dense` names layers, for which the order of calls must be known: first, last."""
        return tuple(self.dense.split("_")) if self.dense in ("first", "last", "first_last") else ()

    def dense_layers(self, shapes: Shapes) -> tuple[str, ...]:
        """Return the names of the layers left dense."""
        return dense_layers(shapes, self.dense)

    def layer_densities(self, allocation: str, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """Return the density of each layer under an allocation at a sparsity.

        Raises:
            Infeasible: if the dense layers alone are beyond the budget.
        """
        dense = self.dense_layers(shapes)
        return layer_densities(allocation, shapes, 1 - sparsity, dense, rebudget=self.rebudget)

    def inner(self, shapes: Shapes) -> dict[str, int]:
        """Return the sizes of the layers that are not left dense, in network order."""
        dense = self.dense_layers(shapes)
        return {name: math.prod(shape) for name, shape in shapes.items() if name not in dense}

    def inner_active(self, shapes: Shapes, sparsity: float, count: Callable[[int, float], int] = active_of) -> int:
        """Count the active weights of the layers that are not left dense, under one budget for all of them.

        Args:
            shapes: Weight shapes by name, in network order.
            sparsity: Fraction of zeros, over all weights or over those layers alone, as `rebudget` says.
            count: Maps a number of weights and a sparsity to the number of active ones.

        Raises:
            Infeasible: if the dense layers alone are beyond the budget.
        """
        inner = sum(self.inner(shapes).values())
        if not self.rebudget:
            return count(inner, sparsity)
        self.layer_densities("uniform", shapes, sparsity)  # raises Infeasible with the reason
        total = sum(math.prod(shape) for shape in shapes.values())
        return max(0, count(total, sparsity) - (total - inner))

    def all_active(self, shapes: Shapes, sparsity: float, count: Callable[[int, float], int] = active_of) -> int:
        """Count the active weights of all layers: those left dense, and `inner_active` of the others."""
        total = sum(math.prod(shape) for shape in shapes.values())
        return total - sum(self.inner(shapes).values()) + self.inner_active(shapes, sparsity, count)


@dataclass(frozen=True)
class LayerBudgets(DenseLayers):
    """Options of a topology in which each layer has a density; its own `Options` inherit from this."""

    allocation: str = option("erk", "how the density is distributed over layers", choices=NAMES)

    def densities(self, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """Return the density of each layer; raises Infeasible if the dense layers alone are beyond the budget."""
        return self.layer_densities(self.allocation, shapes, sparsity)

    def num_active(self, shapes: Shapes, sparsity: float) -> dict[str, int]:
        """Count the active weights of each layer at a sparsity."""
        return counts(shapes, self.densities(shapes, sparsity))

    def total(self, shapes: Shapes, sparsity: float) -> int:
        """Count the active weights of all layers together."""
        return sum(self.num_active(shapes, sparsity).values())


@dataclass(frozen=True)
class Allocation(DenseLayers):
    """Options of a topology that keeps the highest scores, of all layers together or layer by layer."""

    allocation: str = option(
        "global",
        "global: one threshold for all layers; otherwise how the density is distributed over layers",
        choices=("global", *NAMES),
    )

    def total(self, shapes: Shapes, sparsity: float) -> int:
        """Count the active weights of all layers together."""
        if self.allocation != "global":
            return sum(counts(shapes, self.layer_densities(self.allocation, shapes, sparsity)).values())
        return self.all_active(shapes, sparsity)

    def select(
        self, ctx: Context, scores: Mapping[str, Tensor], sparsity: float | None = None, fraction: float = 1.0
    ) -> MaskSet:
        """Keep the highest scores; a draw decides among equal ones.

        Args:
            ctx: The run.
            scores: Score of every weight by name, in network order.
            sparsity: Target fraction of zeros, by default that of the run.
            fraction: Fraction of the target's zeros to make, in [0, 1]: of each layer's, or of all of them if global.

        Returns:
            Masks of all layers; those left dense are full.
        """
        sparsity = ctx.sparsity if sparsity is None else sparsity
        shapes = {name: tuple(score.shape) for name, score in scores.items()}
        if self.allocation == "global":
            inner = self.inner(shapes)
            active = _ramped(sum(inner.values()), self.inner_active(shapes, sparsity), fraction)
            masks = top_k_of_all({name: scores[name] for name in inner}, active, drawn_of_all(ctx, inner))
        else:
            final = counts(shapes, self.layer_densities(self.allocation, shapes, sparsity))
            left = {name: _ramped(score.numel(), final[name], fraction) for name, score in scores.items()}
            masks = {name: top_k(score, left[name], drawn(ctx, name)) for name, score in scores.items()}
        return MaskSet({name: masks[name] if name in masks else top_k(s, s.numel()) for name, s in scores.items()})


def _ramped(size: int, final: int, fraction: float) -> int:
    """Number of active weights when a fraction of the final zeros is made."""
    return size - floor_count(fraction * (size - final))


def random_masks(ctx: Context, budgets: LayerBudgets, sparsity: float | None = None) -> MaskSet:
    """Draw masks uniformly, with the exact count of each layer; for one seed they are the same in every method.

    Args:
        ctx: The run.
        budgets: Says how many weights of each layer are active.
        sparsity: Fraction of zeros; by default the target of the run.
    """
    generator = ctx.generator("initial mask")
    masks = {}
    for name, active in budgets.num_active(ctx.shapes, ctx.sparsity if sparsity is None else sparsity).items():
        shape = ctx.shapes[name]
        mask = torch.zeros(math.prod(shape), dtype=torch.bool)
        mask[torch.randperm(mask.numel(), generator=generator)[:active]] = True
        masks[name] = mask.view(shape)
    return MaskSet(masks)
