"""Sparse training: topologies (which weights are active) and representations (how a weight is parametrised).

In a loop::

    rep = sparsity.represent(model, "plain")
    optimizer = torch.optim.SGD(rep.param_groups(weight_decay=1e-4), lr=0.1, momentum=0.9)
    sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.9, total_steps=steps)
    ...                                    # per step: zero_grad(), loss.backward(), sparse.step()
    sparse.finalize()

Authors of methods find base classes here, what a method that updates its masks needs in `sparsity.dynamic`, budgets,
scores and schedules for other topologies in `sparsity.masking`, and the test of a method in `sparsity.testing`.
"""

from .attach import attach, plain_copy, prepare, represent
from .engine.sparse_optimizer import SparseOptimizer
from .engine.sparse_training import SparseTraining
from .masking import distributions
from .masks import MaskSet
from .options import Infeasible, MaskError, NoOptions, OptionError, TrainingError, option
from .probe import Probe
from .registry import register_representation, register_topology
from .representation import Representation
from .topology import Context, Plan, Topology

__all__ = [
    "Context",
    "Infeasible",
    "MaskError",
    "MaskSet",
    "NoOptions",
    "OptionError",
    "Plan",
    "Probe",
    "Representation",
    "SparseOptimizer",
    "SparseTraining",
    "Topology",
    "TrainingError",
    "attach",
    "distributions",
    "option",
    "plain_copy",
    "prepare",
    "register_representation",
    "register_topology",
    "represent",
]
