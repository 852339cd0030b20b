"""The representation protocol: how a weight θ is computed from the tensors that are trained.

A representation installs itself with `torch.nn.utils.parametrize`, so the network keeps its code, DDP sees ordinary
leaf parameters and `torch.compile` sees no hooks. Masks, scores and growth always act on θ.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .options import NoOptions, OptionError
from .roles import UnclearRole, layer_called
from .slots import Slot
from .state import Stateful
from .targets import targets, uncounted
from .topology import Context

_MARK = "_sparsity_representation"


class Representation(Stateful):
    """Base class. By itself it is the plain weight: θ is trained directly.

    A subclass overrides the algebra, and the hooks if it needs them. The trained tensors of a weight that have θ's
    shape are masked together.

    Example:
        >>> import sparsity
        >>> class Cubed(sparsity.Representation):
        ...     grad_at_zero = False
        ...     def factorise(self, weight):
        ...         return (weight.sign() * weight.abs() ** (1 / 3),)
        ...     def materialise(self, *factors):
        ...         return factors[0] ** 3

    Class attributes:
        name: Registered name (set by the decorator).
        title: Name in tables.
        paper: Citation, or an empty string.
        grad_at_zero: Whether a weight at θ = 0 has a gradient, so that it can move when it becomes active.
        uses_sparsity: Whether the representation itself makes zeros to reach the target sparsity.
        needs_epochs: Whether its hooks change the trained tensors once per epoch.
        needs_metrics: Metrics of an epoch that `after_epoch` reads, such as ``train_accuracy``.
        unstated_events: Kinds of its events whose number `expected_events` does not state.
        factor_names: Names of the trained tensors, in order.
        ham_factors: Which of them HAM acts on by default.
        state: Names of the attributes that checkpoints hold, see `Stateful`; trained tensors are the model's.
        Options: The method's options: a frozen dataclass of `option` fields.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    grad_at_zero: ClassVar[bool] = True
    uses_sparsity: ClassVar[bool] = False
    needs_epochs: bool = False
    needs_metrics: ClassVar[tuple[str, ...]] = ()
    unstated_events: ClassVar[tuple[str, ...]] = ()
    factor_names: ClassVar[tuple[str, ...]] = ("weight",)
    ham_factors: ClassVar[tuple[str, ...]] = ("weight",)

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any):
        self.options = options
        self.slots: dict[str, Slot] = {}
        self._called: dict[str, str] = {}  # role -> name, where it has been asked for
        self._attached: int | None = None  # identity of the network for which a training is under way
        self.uncounted: dict[str, int] = {}  # matrices that are neither pruned nor counted, see `targets.uncounted`
        # random initial factors are drawn from it; None except during `install`
        self.initial: torch.Generator | None = None

    # ---- the algebra ------------------------------------------------------------------------------------------------

    def factorise(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return trained tensors whose `materialise` is the given weight, up to rounding."""
        return (weight,)

    def materialise(self, *factors: Tensor) -> Tensor:
        """Compute θ from the trained tensors, differentiably; the first of them has θ's shape."""
        return factors[0]

    def grad(self, *factors: nn.Parameter) -> Tensor | None:
        """Compute dL/dθ from the gradients of the trained tensors; None before a backward pass."""
        return factors[0].grad

    @torch.enable_grad()
    def chain(self, factors: tuple[Tensor, ...], gradient: Tensor) -> tuple[Tensor, ...]:
        """Compute the gradient of each trained tensor from a gradient dL/dθ, at their present values."""
        leaves = [factor.detach().requires_grad_() for factor in factors]
        return torch.autograd.grad(self.materialise(*leaves), leaves, gradient)

    def zero_pruned(self, factors: tuple[nn.Parameter, ...], pruned: Tensor) -> None:
        """Set, in place, the entries where `pruned` is True to θ = 0, where `grad` still gives their dL/dθ."""
        factors[0].masked_fill_(pruned, 0.0)

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def before_step(self, ctx: Context) -> None:
        """Change the trained tensors before the optimizer moves, if necessary; gradients are dense and the loss's own.

        Called once per step that moves weights. Pruned weights are set to zero again after the step.
        """

    def penalty_grad(self, *factors: nn.Parameter) -> tuple[Tensor, ...] | None:
        """Return the gradient of a penalty with respect to each trained tensor, or None if there is no penalty.

        The engine adds it after the topology has read dL/dθ, and masks the sum; the loss does not contain the penalty.
        """
        return None

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Return the number of active weights after its own pruning; None if it sets no masks.

        Called if the topology leaves the target to the representation.
        """
        return None

    def expected_events(self, epochs: int, sparsity: float) -> dict[str, int]:
        """Return the number of events by kind that a complete run records.

        Args:
            epochs: Length of training in epochs.
            sparsity: Target that the representation must reach, `Context.sparsity_left`.
        """
        return {}

    def after_epoch(self, ctx: Context, metrics: Mapping[str, float]) -> None:
        """Act at the end of an epoch: change the trained tensors without changing θ, or prune weights.

        Args:
            ctx: The run.
            metrics: The epoch's metrics named in `needs_metrics`, the same on all ranks.
        """

    # ---- the contract with the optimizer ----------------------------------------------------------------------------

    @classmethod
    def check(cls, options: Any, lr: float) -> None:
        """Refuse options that are impossible at this peak learning rate.

        Raises:
            OptionError: with the option's name.
        """

    def check_run(self, epochs: int, sparsity: float) -> None:
        """Refuse a run in which the method could not do what it states; called before training starts.

        Args:
            epochs: Length of training in epochs.
            sparsity: Target that the representation must reach, `Context.sparsity_left`.

        Raises:
            OptionError: with the option's name.
        """

    def decay_of(self, factor: str, weight_decay: float) -> float:
        """Return the weight decay of one kind of trained tensor."""
        return weight_decay

    def install(self, model: nn.Module, seed: int = 0) -> None:
        """Replace each prunable weight of `model` by the trained tensors; a plain weight stays as it is."""
        self.initial = torch.Generator().manual_seed(seed)
        found = targets(model)
        self.uncounted = uncounted(model, found)
        for target in found:
            installed = parametrize.is_parametrized(target.module, target.tensor)  # by another part of it
            if type(self).materialise is not Representation.materialise and not installed:
                parametrize.register_parametrization(target.module, target.tensor, Parametrization(self))
            self.slots[target.name] = Slot(target, self.factor_names)
        self.initial = None
        self._model = model
        # inside a tuple nn.Module does not register it as a submodule, and deepcopy copies it with the layers
        setattr(model, _MARK, (self,))

    @property
    def attached(self) -> bool:
        """Whether a training of the network is under way; a copy of the network is not the network."""
        return self._attached == id(self._model)

    @attached.setter
    def attached(self, value: bool) -> None:
        self._attached = id(self._model) if value else None

    @property
    def model(self) -> nn.Module:
        """The network whose weights are represented."""
        return self._model

    def plain_copy(self) -> nn.Module:
        """Return an independent copy of the network, with θ as its plain weights and the same statistics."""
        network = copy.deepcopy(self._model)
        held = of(network)
        assert held is not None
        held.fold()
        return network

    def param_groups(self, weight_decay: float = 0.0, *, weight_decay_on: str = "weights") -> list[dict[str, Any]]:
        """Return parameter groups for any `torch.optim` optimizer.

        Args:
            weight_decay: Decay of the weights, per unit of learning rate.
            weight_decay_on: ``"weights"`` decays weights only; ``"all"`` also biases and normalisation (as AC/DC and
                STR do).

        Returns:
            One group per kind of tensor. ``"ham": False`` marks groups that HAM does not change: the factors of a
            product (which have HAM's geometry already) and learned thresholds.
        """
        if weight_decay_on not in ("weights", "all"):
            raise ValueError(f"weight_decay_on={weight_decay_on!r} is not one of weights, all")
        groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for index, factor in enumerate(self.factor_names):
            tensors = list(
                {id(slot.parameters[index]): slot.parameters[index] for slot in self.slots.values()}.values()
            )
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

    def shapes(self, roles: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by name, in the order of the modules.

        Args:
            roles: With ``first``, the layer that data reach first is put at the beginning; with ``last``, the one that
                makes the output at the end.

        Raises:
            OptionError: of `dense`, if a role is not that of one layer.
        """
        found = {name: tuple(slot.factors[0].shape) for name, slot in self.slots.items()}
        try:
            ends = {role: self.called(role) for role in roles}
        except UnclearRole as error:
            some = next(iter(found)).rpartition(".")[0]
            raise OptionError("dense", f"{error}; name the layers that stay dense, such as dense: [{some}]") from None
        if len(ends) > len(set(ends.values())) and len(found) > 1:
            raise OptionError(
                "dense", f"{ends['first']} is the first layer and the last: name the layers that stay dense"
            )
        inner = [name for name in found if name not in ends.values()]
        order = ([ends["first"]] if "first" in ends else []) + inner + ([ends["last"]] if "last" in ends else [])
        return {name: found[name] for name in dict.fromkeys(order)}

    def called(self, role: str) -> str:
        """Return the name of the weight that data reach first, or that makes the output, see `roles.layer_called`."""
        if role not in self._called:
            self._called[role] = layer_called(role, self._model, [slot.target for slot in self.slots.values()])
        return self._called[role]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and θ of every weight, detached; also after `fold`."""
        for name, slot in self.slots.items():
            yield name, slot.weight

    @torch.enable_grad()  # without it torch would leave a tensor that is no parameter
    def fold(self) -> None:
        """Replace the trained tensors of each weight by θ and remove the parametrisation."""
        for slot in self.slots.values():
            if parametrize.is_parametrized(slot.module, slot.target.tensor):
                # a parametrised layer shares its class with its deep copies, and torch changes that class on removal
                own = type(slot.module)
                slot.module.__class__ = type(own.__name__, own.__bases__, dict(vars(own)))  # pyright: ignore
                parametrize.remove_parametrizations(slot.module, slot.target.tensor, leave_parametrized=True)
        delattr(self._model, _MARK)
        self._attached = None


class Parametrization(nn.Module):
    """The module that `torch.nn.utils.parametrize` calls; it delegates the algebra to the representation."""

    def __init__(self, representation: Representation):
        super().__init__()
        # inside a tuple nn.Module does not register it as a submodule, and deepcopy still copies it
        self._owner = (representation,)

    @property
    def representation(self) -> Representation:
        """The representation that computes θ."""
        return self._owner[0]

    def forward(self, *factors: Tensor) -> Tensor:
        """Compute θ from the trained tensors."""
        return self.representation.materialise(*factors)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Compute the trained tensors from θ."""
        return self.representation.factorise(weight)


def of(model: nn.Module) -> Representation | None:
    """Return the representation of a model, also if it is wrapped; None if `represent` was not called."""
    for module in model.modules():
        if _MARK in vars(module):
            return vars(module)[_MARK][0]
    return None
