"""How many weights a layer keeps, and which ones: budgets, scores, selection and schedules for topologies."""

from .budgets import Allocation, DenseLayers, LayerBudgets, random_masks
from .draws import drawn, drawn_of_all, random_scores
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
    "drawn",
    "drawn_of_all",
    "floor_count",
    "magnitudes",
    "pruning_densities",
    "random_masks",
    "random_scores",
    "share_out",
    "top_k",
    "top_k_of_all",
]
