"""HAM, Hyperbolic Aware Minimization: a multiplicative step after any torch optimizer.

Needs torch and nothing else of this suite::

    from ham import HAM
    optimizer = HAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), alpha=200.0, beta=1e-3)

`SAM` goes around it, or around any other optimizer.
"""

from . import geometry
from .diagnostics import Watch
from .optimizer import HAM
from .rule import bound_norms_, hyperbolic_step_
from .sam import SAM
from .wrapper import OptimizerWrapper

__all__ = ["HAM", "SAM", "OptimizerWrapper", "Watch", "bound_norms_", "geometry", "hyperbolic_step_"]
