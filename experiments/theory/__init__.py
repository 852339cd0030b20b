"""HAM's theory as experiments that are exact on a CPU: each measures numbers and holds them to bars.

An experiment is a module here whose `EXPERIMENT` says what it is, a file ``configs/theory/NAME.yaml`` with all its
settings, and its name in `NAMES`.
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
    """The experiment of a name in `NAMES`; imports its module, and so torch."""
    return import_module(f"{__name__}.{name}").EXPERIMENT
