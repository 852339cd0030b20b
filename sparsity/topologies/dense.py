"""Every weight exists."""

from sparsity.registry import register_topology
from sparsity.topology import Topology


@register_topology("dense")
class Dense(Topology):
    """No mask at all; with a representation such as STR the zeros come from there."""

    title = "Dense"
    uses_sparsity = False
