"""Results of runs: loading, comparison, tables and figures. Never imports torch."""

from .runs.store import load

__all__ = ["load"]
