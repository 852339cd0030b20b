"""What the suite itself costs: measured, and shown beside the optimizer's step. Nothing is judged here."""

from .methods import Cost, Found, methods
from .optimizer import FoundOptimizer, Timing, optimizer
from .report import optimizer_table, table, to_json

__all__ = ["Cost", "Found", "FoundOptimizer", "Timing", "methods", "optimizer", "optimizer_table", "table", "to_json"]
