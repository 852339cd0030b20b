"""The plain weight."""

from sparsity.registry import register_representation
from sparsity.representation import Representation


@register_representation("plain")
class Plain(Representation):
    """The weight θ is trained directly."""

    title = "plain"
