"""Dense training: all weights stay active."""

from sparsity.registry import register_topology
from sparsity.topology import Topology


@register_topology("dense")
class Dense(Topology):
    """Training without masks. Zeros can still come from the representation, such as STR."""

    title = "Dense"
    uses_sparsity = False
