"""The representation protocol: how an existing weight θ is parametrised by the tensors that are trained.

A representation installs itself with `torch.nn.utils.parametrize`, so the network keeps its code, DDP sees ordinary
leaf parameters and `torch.compile` sees no hooks. Masks, scores and growth always act on θ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .options import NoOptions
from .slots import Slot
from .targets import Target, targets
from .topology import Context

_MARK = "_sparsity_representation"


class Representation:
    """Base class; itself the algebra of the plain weight.

    A subclass states the algebra on tensors and, where it needs them, the hooks. All tensors of one weight that have
    θ's shape are masked together.

    Class attributes:
        name: Registered name (set by the decorator).
        title: Name in tables.
        paper: Citation, or an empty string.
        grad_at_zero: Whether a weight parked at θ = 0 has a gradient and so can move again.
        uses_sparsity: Whether the representation itself aims at the run's sparsity.
        needs_epochs: Whether its hooks change the trained tensors once an epoch.
        needs_metrics: Metrics of an epoch that `after_epoch` reads, such as ``train_accuracy``.
        factor_names: Names of the trained tensors, in order.
        ham_factors: Which of them HAM may act on by default.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    grad_at_zero: ClassVar[bool] = True
    uses_sparsity: ClassVar[bool] = False
    needs_epochs: bool = False
    needs_metrics: ClassVar[tuple[str, ...]] = ()
    factor_names: ClassVar[tuple[str, ...]] = ("weight",)
    ham_factors: ClassVar[tuple[str, ...]] = ("weight",)

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any):
        self.options = options
        self.slots: dict[str, Slot] = {}
        # what random initial factors are drawn from; there during `install` alone
        self.initial: torch.Generator | None = None

    # ---- the algebra ------------------------------------------------------------------------------------------------

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Trained tensors whose `materialise` is (to rounding) the given initial weight."""
        return (weight,)

    def materialise(self, *factors: Tensor) -> Tensor:
        """θ as a differentiable function of the trained tensors; same shape as θ."""
        return factors[0]

    def grad(self, *factors: nn.Parameter) -> Tensor | None:
        """dL/dθ from the gradients of the trained tensors, or None before a backward pass."""
        return factors[0].grad

    def zero_pruned(self, factors: tuple[nn.Parameter, ...], pruned: Tensor) -> None:
        """Set, in place, the entries where `pruned` is True to θ = 0 such that dL/dθ still reaches them."""
        factors[0].masked_fill_(pruned, 0.0)

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def before_step(self, ctx: Context) -> None:
        """Gradients are those of the loss, dense, and the optimizer is about to move; may change the trained tensors.

        Called once a step that moves weights. What does not exist is parked again after the step.
        """

    def penalty_grad(self, *factors: nn.Parameter) -> tuple[Tensor, ...] | None:
        """Gradient, by each trained tensor, of what is minimised besides the loss, or None.

        The engine adds it once the topology has read dL/dθ, and masks the sum; it is no part of the loss.
        """
        return None

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Number of weights that its own cut leaves; None where it makes none. Asked if the topology has no target."""
        return None

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Number of events by kind that a run records.

        Args:
            epochs: Length of training.
            sparsity: What it must reach by itself, `Context.sparsity_left`.
        """
        return {}

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """An epoch ended; may rewrite the trained tensors without changing θ, or cut weights.

        Args:
            ctx: The run.
            metrics: The epoch's metrics named in `needs_metrics`, the same on all ranks.
        """

    # ---- the contract with the optimizer ----------------------------------------------------------------------------

    @classmethod
    def check(cls, options: Any, lr: float) -> None:
        """Refuse options that do not go with a peak learning rate.

        Raises:
            OptionError: with the option's name.
        """

    def decay_of(self, factor: str, weight_decay: float) -> float:
        """Weight decay of one kind of trained tensor."""
        return weight_decay

    def install(self, model: nn.Module, seed: int = 0) -> None:
        """Replace each prunable weight of `model` by the trained tensors (nothing to do for the plain weight)."""
        self.initial = torch.Generator().manual_seed(seed)
        for target in targets(model):
            if type(self).materialise is not Representation.materialise:
                parametrize.register_parametrization(target.module, "weight", Parametrization(self))
            self._add(target)
        self.initial = None
        self._model = model
        # in a tuple, so that nn.Module takes it for no submodule; deepcopy takes it along, with the copied layers
        setattr(model, _MARK, (self,))

    @property
    def model(self) -> nn.Module:
        """The network whose weights are represented."""
        return self._model

    def plain_copy(self) -> nn.Module:
        """An independent copy of the network, with θ as its plain weights and all statistics as they are."""
        network = copy.deepcopy(self._model)
        held = of(network)
        assert held is not None
        held.fold()
        return network

    def _add(self, target: Target) -> None:
        self.slots[target.name] = Slot(target.name, target.module, self.factor_names)

    def param_groups(self, weight_decay: float = 0.0, *, weight_decay_on: str = "weights") -> list[dict[str, Any]]:
        """Parameter groups for any `torch.optim` optimizer.

        Args:
            weight_decay: Decay of the weights, per unit of learning rate.
            weight_decay_on: ``"weights"`` decays weights alone; ``"all"`` also biases and normalisation (as AC/DC and
                STR do).

        Returns:
            One group a kind of tensor. ``"ham": False`` marks groups that HAM leaves alone: the factors of a product
            (they already are its geometry) and learned thresholds.
        """
        if weight_decay_on not in ("weights", "all"):
            raise ValueError(f"weight_decay_on={weight_decay_on!r} is not one of weights, all")
        groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for index, factor in enumerate(self.factor_names):
            tensors = [slot.factors[index] for slot in self.slots.values()]
            seen |= {id(tensor) for tensor in tensors}
            value = self.decay_of(factor, weight_decay)
            groups.append({"params": tensors, "weight_decay": value, "ham": factor in self.ham_factors})
        rest = [p for p in self._model.parameters() if id(p) not in seen and p.requires_grad]
        matrices = [p for p in rest if p.ndim >= 2]
        vectors = [p for p in rest if p.ndim < 2]
        if matrices:
            groups.append({"params": matrices, "weight_decay": weight_decay, "ham": True})
        if vectors:
            groups.append(
                {"params": vectors, "weight_decay": weight_decay if weight_decay_on == "all" else 0.0, "ham": True}
            )
        return groups

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """θ of every slot, detached; also after `fold`."""
        for name, slot in self.slots.items():
            yield name, slot.weight

    def fold(self) -> None:
        """Make the network plain again: θ in one tensor, no parametrisation left."""
        for slot in self.slots.values():
            if parametrize.is_parametrized(slot.module, "weight"):
                # torch gives each parametrised layer a class, which its deep copies share, and takes it apart here
                own = type(slot.module)
                slot.module.__class__ = type(own.__name__, own.__bases__, dict(vars(own)))  # pyright: ignore
                parametrize.remove_parametrizations(slot.module, "weight", leave_parametrized=True)
        delattr(self._model, _MARK)

    def state_dict(self) -> dict[str, Any]:
        """What the hooks need beyond the trained tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""


class Parametrization(nn.Module):
    """The module that `torch.nn.utils.parametrize` calls; all algebra is the representation's."""

    def __init__(self, representation: Representation):
        super().__init__()
        # inside a tuple, so that nn.Module does not look into it and deepcopy still copies it along
        self._owner = (representation,)

    @property
    def representation(self) -> Representation:
        """The representation whose algebra this is."""
        return self._owner[0]

    def forward(self, *factors: Tensor) -> Tensor:
        """θ from the trained tensors."""
        return self.representation.materialise(*factors)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The trained tensors from θ."""
        return self.representation.factorise(weight)


def of(model: nn.Module) -> Representation | None:
    """The representation of a model (also through DDP or compile wrappers), or None if `represent` was not called."""
    for module in model.modules():
        if _MARK in vars(module):
            return vars(module)[_MARK][0]
    return None
