"""Results of finished runs: load them, compare them, draw them. Never imports torch."""

from .runs.store import load

__all__ = ["load"]
