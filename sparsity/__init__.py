"""Sparse training: topologies (which weights exist) and representations (how a weight is parametrised).

rep = sparsity.represent(model, "plain")
optimizer = torch.optim.SGD(rep.param_groups(weight_decay=1e-4), lr=0.1, momentum=0.9)
sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.9, total_steps=steps)
...                                    # a step: zero_grad(), loss.backward(), sparse.step()
sparse.finalize()
"""

from .attach import attach, prepare, represent
from .engine.sparse_training import SparseTraining
from .masking import distributions
from .masks import MaskSet
from .options import OptionError, option
from .probe import Probe
from .registry import register_representation, register_topology
from .representation import Representation
from .topology import Context, Plan, Topology

__all__ = [
    "Context",
    "MaskSet",
    "OptionError",
    "Plan",
    "Probe",
    "Representation",
    "SparseTraining",
    "Topology",
    "attach",
    "distributions",
    "option",
    "prepare",
    "register_representation",
    "register_topology",
    "represent",
]
