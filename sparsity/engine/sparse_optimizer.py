"""`SparseOptimizer`: a sparse training that training frameworks take for an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from .passes import needs_closure
from .sparse_training import SparseTraining


class SparseOptimizer(Optimizer):
    """Let a framework train sparsely by itself: its `step` is that of the training, its state holds the masks, too.

    Parameter groups and moments are those of the training's optimizer, whose `load_state_dict` accepts a checkpoint of
    this one and leaves the masks out. Loss scalers leave the skipping of a step to the training, for which it counts.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = sparsity.attach("set", model, optimizer, sparsity=0.9, total_steps=100, update_every=10)
        >>> framework_gets = sparsity.SparseOptimizer(sparse)
        >>> model(torch.ones(4, 10)).square().mean().backward()
        >>> framework_gets.step()

    Args:
        sparse: What `attach` returned.
        metrics: As for `SparseTraining.step`.

    Attributes:
        sparse: The training, on which `finalize` and `next_level` are called.

    Raises:
        TypeError: if ``sparse`` is something else.
    """

    _step_supports_amp_scaling = True  # a scaler then sets grad_scale and found_inf, and calls `step` in any case

    def __init__(self, sparse: SparseTraining, *, metrics: Callable[[], Mapping[str, float]] | None = None):
        if not isinstance(sparse, SparseTraining):
            raise TypeError(f"SparseOptimizer takes what attach() returned, not a {type(sparse).__name__}")
        self.sparse = sparse
        self._metrics = metrics
        # all that torch's own __init__ does, except that it would make other groups and another state
        self.__setstate__({"defaults": sparse.optimizer.defaults})

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The groups of the training's optimizer."""
        return self.sparse.optimizer.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The state of the training's optimizer, by parameter."""
        return self.sparse.optimizer.state

    @property
    def needs_closure(self) -> bool:
        """Whether `step` needs a closure, since the optimizer evaluates the batch more than once (SAM)."""
        return needs_closure(self.sparse.optimizer)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the training's optimizer; its parameters are not pruned."""
        self.sparse.optimizer.add_param_group(param_group)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do one step of sparse training, see `SparseTraining.step`."""
        found_inf = getattr(self, "found_inf", None)
        scaled = None if found_inf is None else _Scaled(getattr(self, "grad_scale", None), found_inf)
        return self.sparse.step(closure, scaler=scaled, metrics=self._metrics)  # pyright: ignore[reportArgumentType]

    def train(self) -> None:
        """Switch an optimizer that has modes (a schedule-free one) to training."""
        getattr(self.sparse.optimizer, "train", lambda: None)()

    def eval(self) -> None:
        """Switch an optimizer that has modes to evaluation."""
        getattr(self.sparse.optimizer, "eval", lambda: None)()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state with that of the sparse training as a further entry."""
        return {**self.sparse.optimizer.state_dict(), "sparse": self.sparse.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the model may be loaded before or after.

        Raises:
            ValueError: if it has no masks, since it was saved by another optimizer.
        """
        if "sparse" not in state_dict:
            raise ValueError(
                "this state holds no masks, so it was not saved by a SparseOptimizer: to begin a sparse training with "
                "its moments, load it into the optimizer before attach()"
            )
        self.sparse.optimizer.load_state_dict({key: state_dict[key] for key in state_dict if key != "sparse"})
        self.sparse.load_state_dict(state_dict["sparse"])

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "sparse": self.sparse, "_metrics": self._metrics}

    def __repr__(self) -> str:
        return f"SparseOptimizer({self.sparse.topology.name}) around {self.sparse.optimizer!r}"


class _Scaled:
    """What a training asks of its loss scaler, while another one is within its own step."""

    def __init__(self, scale: Tensor | None, found_inf: Tensor):
        self._scale = scale  # None: the gradients have been unscaled
        self._skip = bool(found_inf)

    def unscale_(self, optimizer: Optimizer) -> None:
        if self._scale is None or self._skip:
            return
        inverse = self._scale.double().reciprocal().float()  # as torch's scalers do it
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(inverse.to(parameter.grad.device))

    def step(self, optimizer: Optimizer) -> None:
        if not self._skip:
            optimizer.step()

    def update(self) -> None:
        pass  # by whoever called the scaler's step
