"""The weight itself."""

from sparsity.registry import register_representation
from sparsity.representation import Representation


@register_representation("plain")
class Plain(Representation):
    """θ is trained directly."""

    title = "plain"
