"""What the suite itself costs: measured, and shown beside the optimizer's step. Nothing is judged here."""

from .methods import Cost, Found, methods
from .report import table, to_json

__all__ = ["Cost", "Found", "methods", "table", "to_json"]
