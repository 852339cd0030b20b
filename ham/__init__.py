"""HAM, Hyperbolic Aware Minimization: a multiplicative step after the step of any torch optimizer.

Needs torch and nothing else of this suite::

    from ham import HAM
    optimizer = HAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), alpha=20.0)

alpha depends on the network: 20 is where to begin, `Watch` says within a hundred steps whether it is too large or idle,
and ``scale_free=True`` makes it relative to the gradients. 200 is the paper's, for a ResNet-50 on ImageNet.

`SAM` wraps it, or any other optimizer. In the order of reading:

- `ham.reference`: the algorithm literally, one weight at a time, in the paper's symbols;
- `ham.rule`: the same step for a tensor and for lists of tensors, with the helpers `ham.lists` and `ham.compiled`;
- `ham.optimizer`: the optimizer `HAM`, with `ham.wrapper` (how it wraps its base) and `ham.base` (what it asks of it);
- `ham.scale_free`: an alpha relative to the size of the gradients;
- `ham.diagnostics`: `Watch`, which says whether alpha is right;
- `ham.sam`: sharpness-aware minimization around HAM or another optimizer;
- `ham.geometry` and `ham.curves`: the geometry in which HAM moves, for theory and its tests.
"""

from . import geometry
from .diagnostics import Watch
from .optimizer import HAM
from .rule import bound_norms_, hyperbolic_step_
from .sam import SAM
from .wrapper import OptimizerWrapper

__all__ = ["HAM", "SAM", "OptimizerWrapper", "Watch", "bound_norms_", "geometry", "hyperbolic_step_"]
