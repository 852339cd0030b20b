"""The weight itself."""

from ..registry import register_representation
from ..representation import Representation


@register_representation("plain")
class Plain(Representation):
    """θ is trained directly."""

    title = "plain"
