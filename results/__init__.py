"""Results of runs: loading, comparison, tables and figures. Never imports torch."""

from .runs.frames import curves, layers, load

__all__ = ["curves", "layers", "load"]
