"""Benchmarks of the suite's own cost, in relation to an optimizer's step. They report and do not judge."""

from .methods import Cost, Found, methods
from .optimizer import FoundOptimizer, Timing, optimizer
from .report import optimizer_table, table, to_json

__all__ = ["Cost", "Found", "FoundOptimizer", "Timing", "methods", "optimizer", "optimizer_table", "table", "to_json"]
