"""Checks of what every method must do, for methods inside and outside this package.

    from sparsity.testing import check_topology
    check_topology(MyTopology, {"update_every": 4})

`check_topology` trains a small network for 20 steps with every representation that the topology may be combined with,
and under several optimizers; `check_representation` does the same with every topology. What the method states
(`expected_active`, `expected_events`, `state`, `regrows` and so on) is compared with what happens. The first difference
raises an `AssertionError` that says what was stated, what happened, and which hook to look at.
"""

from .methods import check_algebra, check_declaration, check_representation, check_topology
from .pair import check_pair
from .short_run import (
    OPTIMIZERS,
    SHORT,
    SPARSITY,
    STEPS,
    STEPS_PER_EPOCH,
    MakeOptimizer,
    ShortRun,
    input_shape,
    small_net,
)

__all__ = [
    "OPTIMIZERS",
    "SHORT",
    "SPARSITY",
    "STEPS",
    "STEPS_PER_EPOCH",
    "MakeOptimizer",
    "ShortRun",
    "check_algebra",
    "check_declaration",
    "check_pair",
    "check_representation",
    "check_topology",
    "input_shape",
    "small_net",
]
