"""How many optimizer steps a run has, from its specification alone."""

from __future__ import annotations

from experiments.config.schema import Spec
from experiments.data import Outline
from sparsity import registry


def steps(spec: Spec, data: Outline) -> int:
    """Return the number of optimizer steps of a run, all of its trainings counted.

    Args:
        spec: The resolved specification.
        data: Its data, `experiments.data.outline`.
    """
    cls = registry.topology(spec.topology.name)
    options = cls.in_steps(spec.topology.options, steps_per_epoch=data.steps_per_epoch)
    levels = cls(options).plan(spec.topology.sparsity).levels
    return spec.schedule.epochs * data.steps_per_epoch * levels
