"""The topology protocol: which weights are active, and when that changes.

A topology reads a `Context` and sets masks through it. The engine does everything else: it zeroes pruned weights and
their moments, masks gradients, orders the parts of a step and saves checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .masks import MaskSet
from .options import Infeasible, NoOptions
from .probe import Probe
from .state import Stateful


class Context(Protocol):
    """What a topology and a representation can read of a run, and what they can do to it.

    Example:
        >>> import sparsity, torch
        >>> class HalfOfEach(sparsity.Topology):
        ...     def initial_masks(self, ctx: sparsity.Context):
        ...         draw = ctx.generator("half")  # a function of seed, purpose and step
        ...         keep = {n: torch.rand(shape, generator=draw) < 0.5 for n, shape in ctx.prunable.items()}
        ...         return sparsity.MaskSet(keep)
    """

    @property
    def steps_done(self) -> int:
        """Number of steps done; before the optimizer has moved, that is the index of the present step."""
        ...

    @property
    def total_steps(self) -> int:
        """Length of training in steps."""
        ...

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        ...

    @property
    def total_epochs(self) -> int:
        """Length of training in epochs."""
        ...

    @property
    def level(self) -> int:
        """Index of the present training, from 0, in a run that consists of several."""
        ...

    @property
    def progress(self) -> float:
        """Fraction of the present training that was done before this step, in [0, 1)."""
        ...

    @property
    def sparsity(self) -> float:
        """Target fraction of zeros, in [0, 1)."""
        ...

    @property
    def sparsity_left(self) -> float:
        """Target that the representation must reach; 0 if the topology reaches it."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every weight that sparsity is counted over, by name, in network order: what budgets are made of."""
        ...

    @property
    def prunable(self) -> Mapping[str, tuple[int, ...]]:
        """The part of `shapes` that the topology may prune: without the layers that its options leave dense."""
        ...

    @property
    def masks(self) -> MaskSet:
        """The present masks."""
        ...

    @property
    def probe(self) -> Probe | None:
        """Data and loss to score weights with; only in `initial_masks`, and only if the topology `needs_probe`."""
        ...

    def plain_copy(self) -> nn.Module:
        """Return an independent copy of the network with plain weights θ, to compute scores on."""
        ...

    def weight(self, name: str) -> Tensor:
        """Return θ, detached."""
        ...

    def grad(self, name: str) -> Tensor:
        """Return the dense dL/dθ of this step, before masking; zeros if the backward pass did not reach the weight."""
        ...

    def active_grad(self, name: str) -> Tensor:
        """Return dL/dθ of this step for active weights, zero elsewhere: what a sparse backward pass computes anyway."""
        ...

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator whose seed is a pure function of the mask seed, the purpose and the step."""
        ...

    def set_masks(
        self,
        masks: MaskSet,
        event: str,
        *,
        reset_all_moments: bool = False,
        restart: Mapping[str, Tensor] | None = None,
        momentum: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Replace the masks, zero newly pruned weights and restart moments; record the event.

        Args:
            masks: New masks by weight name; a layer that is left out keeps its mask.
            event: Kind of the event, as `expected_events` names it.
            reset_all_moments: Restart the moments of all parameters instead of only where the masks change.
            restart: True marks weights that are active before and after, and restart at zero with fresh moments all
                the same, because they were pruned in between.
            momentum: Momentum of θ by weight name, from which SGD with momentum moves newly active weights on; without
                it, and under other optimizers, they start with fresh moments.

        Raises:
            ValueError: if a layer that the options leave dense would be pruned.
        """
        ...

    def record(self, event: str, *, changed: int, **details: int | float) -> None:
        """Record an event that changes no mask; `changed` is the number of entries it rewrote."""
        ...

    def note_drawn(self, number: int) -> None:
        """Note that so many weights of the masks to come were drawn, since scores said nothing; the event holds it."""
        ...

    def zero_pruned(self) -> None:
        """Set pruned weights to exactly zero again."""
        ...

    def reset_moments(self, parameter: nn.Parameter) -> None:
        """Set the optimizer's state of a parameter to that of a fresh optimizer."""
        ...

    def learning_rate(self, parameter: nn.Parameter) -> float | Tensor:
        """Return the optimizer's present learning rate of a parameter."""
        ...

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor | None:
        """Return one tensor of the optimizer's state of a parameter, or None."""
        ...


@dataclass(frozen=True)
class Plan:
    """How a run divides into levels: complete trainings, each with the whole schedule and a fresh optimizer.

    Example:
        >>> import sparsity
        >>> sparsity.Plan(levels=3, rewind=0.0)  # three trainings, each from the initial weights
        Plan(levels=3, rewind=0.0)

    Attributes:
        levels: Number of trainings, at least 1.
        rewind: None: each level continues from the weights of the one before. A fraction of the first level, in
            [0, 1): each level starts from the weights that the first one had at that point; 0 is the initial weights.
    """

    levels: int = 1
    rewind: float | None = None


class Topology(Stateful):
    """Base class. By itself it prunes nothing: all weights stay active.

    A subclass overrides the hooks it needs and lists in `state` the attributes that they change.

    Example:
        >>> import sparsity, torch
        >>> class Quarter(sparsity.Topology):
        ...     title = "First quarter"
        ...     def initial_masks(self, ctx):
        ...         keep = {n: torch.zeros(shape, dtype=torch.bool) for n, shape in ctx.prunable.items()}
        ...         for mask in keep.values():
        ...             mask.view(-1)[: mask.numel() // 4] = True
        ...         return sparsity.MaskSet(keep)

    Class attributes:
        name: Registered name (set by the decorator).
        title: Name in tables.
        family: PaI (pruning at init), DtS (dense to sparse), DST (dynamic sparse training) or dense.
        paper: Citation, or an empty string.
        regrows: Whether pruned weights can become active again, at zero.
        uses_sparsity: Whether it reaches the target sparsity; if not, that is left to the representation.
        needs_probe: Whether it scores weights before training, for which it needs a `Probe`.
        repeats: Whether a run consists of several trainings, see `plan`.
        state: Names of the attributes that checkpoints hold, see `Stateful`; the engine saves masks by itself.
        Options: The method's options: a frozen dataclass of `option` fields.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    family: ClassVar[str] = "dense"
    paper: ClassVar[str] = ""
    regrows: ClassVar[bool] = False
    uses_sparsity: ClassVar[bool] = True
    needs_probe: ClassVar[bool] = False
    repeats: ClassVar[bool] = False

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any):
        self.options = options

    @classmethod
    def in_steps(cls, options: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None) -> Any:
        """Convert times in the options to steps of this run, as far as the given sizes allow it.

        Args:
            options: Options as the user gave them.
            batch_size: Images per step, for times that are given at another batch size.
            steps_per_epoch: Steps per epoch, for times that are given in epochs.
        """
        return options

    @classmethod
    def check(cls, options: Any, sparsity: float) -> None:
        """Refuse options that are impossible at this target sparsity; called for targets above 0.

        Raises:
            OptionError: with the option's name.
        """

    def dense_layers(self, shapes: Mapping[str, tuple[int, ...]]) -> Collection[str]:
        """Return the names of layers that must stay dense: those that the options name, if they can name any.

        The engine leaves them out of `Context.prunable` and refuses masks that prune them.
        """
        named = getattr(self.options, "dense_layers", None)
        return () if named is None else named(shapes)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of layers that are treated apart, for which the order of calls must be known: first, last."""
        return getattr(self.options, "roles", ())

    def check_run(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, total_steps: int) -> None:
        """Refuse a run in which the method could not do what it states; called before training starts.

        Args:
            shapes: Shape of every prunable weight by name.
            sparsity: Target fraction of zeros.
            total_steps: Steps of all trainings of the run together.

        Raises:
            OptionError: with the option's name.
            Infeasible: if the network cannot have that sparsity.
        """
        active = self.expected_active(shapes, sparsity)
        if active is not None and active < 1:
            total = sum(math.prod(shape) for shape in shapes.values())
            raise Infeasible(f"no weight of {total:,} is left at sparsity {sparsity!r}; a lower one leaves some")
        self.expected_events(total_steps, sparsity)

    def check_probe(self, probe: Probe) -> None:
        """Refuse a probe that holds less than the method reads; called before training starts.

        Raises:
            OptionError: with the option's name.
        """

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Return the masks at the start, or None if all weights are active; a layer that is left out is dense."""
        return None

    def after_backward(self, ctx: Context) -> bool:
        """Act on final gradients, before the optimizer moves. Return False to skip the optimizer's step."""
        return True

    def after_step(self, ctx: Context) -> None:
        """Act after the optimizer has moved; `ctx.steps_done` includes this step."""

    def plan(self, sparsity: float) -> Plan:
        """Return how many trainings a run consists of, and from which weights the later ones start."""
        return Plan()

    def next_level(self, ctx: Context) -> None:
        """Set the masks of training `ctx.level`, which is about to start from the weights of the one before.

        Afterwards weights are rewound, if the plan says so, and the optimizer's state is cleared.
        """

    def finalize(self, ctx: Context) -> None:
        """Act after training has ended."""

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Return the number of active weights after training, barring ties in scores; None if the method sets none.

        The engine compares it with the masks at the end of every run.
        """
        return None

    def ties_lost(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return how many weights fewer than `expected_active` may be left because of ties; 0 if ties are broken."""
        return 0

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Return the number of events by kind that a complete run records; it is compared with what happened."""
        return {}
