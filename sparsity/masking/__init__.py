"""How many weights a layer keeps, and which ones: budgets, scores, selection and schedules for topologies."""

from .budgets import Allocation, DenseLayers, LayerBudgets, random_masks
from .rounding import ceil_count, floor_count, share_out
from .schedules import annealed_fraction, cosine_fraction, cubic, pruning_densities
from .scores import magnitudes
from .selection import top_k, top_k_of_all

__all__ = [
    "Allocation",
    "DenseLayers",
    "LayerBudgets",
    "annealed_fraction",
    "ceil_count",
    "cosine_fraction",
    "cubic",
    "floor_count",
    "magnitudes",
    "pruning_densities",
    "random_masks",
    "share_out",
    "top_k",
    "top_k_of_all",
]
