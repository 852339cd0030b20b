"""Experiments that measure HAM's theory, exactly and on a CPU, and check each number against a bound.

An experiment consists of a module in this package with an `EXPERIMENT`, a file ``configs/theory/NAME.yaml`` with all
its settings, and an entry in `NAMES`.
"""

from __future__ import annotations

from importlib import import_module

from .base import Experiment

NAMES = (
    "one_step",
    "metric",
    "flow",
    "projection",
    "rate",
    "sign_flips",
)


def experiment(name: str) -> Experiment:
    """Return the experiment of a name in `NAMES`; this imports its module, and thereby torch."""
    return import_module(f"{__name__}.{name}").EXPERIMENT
