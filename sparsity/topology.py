"""The topology protocol: which weights exist, and when that changes.

A topology reads a `Context` and may set masks through it. The engine does the rest: zeroing weights and moments,
masking gradients, the order of a step, checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .masks import MaskSet
from .options import NoOptions
from .probe import Probe


class Context(Protocol):
    """What the engine shows a topology and a representation."""

    @property
    def steps_done(self) -> int:
        """Number of steps done, which before the weights move is the index of the step under way."""
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
        """The training under way, from 0, of a run that consists of several."""
        ...

    @property
    def progress(self) -> float:
        """Share of the training under way that is done before this step, in [0, 1)."""
        ...

    @property
    def sparsity(self) -> float:
        """Target share of zeros, in [0, 1)."""
        ...

    @property
    def sparsity_left(self) -> float:
        """Target that the topology leaves to the representation; 0 where it aims at the target itself."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every prunable weight by name."""
        ...

    @property
    def masks(self) -> MaskSet:
        """The masks in force."""
        ...

    @property
    def probe(self) -> Probe | None:
        """Data and loss to score weights with; within `initial_masks` alone, and where the topology `needs_probe`."""
        ...

    def plain_copy(self) -> nn.Module:
        """A copy of the network with plain weights θ, to compute scores on; nothing done to it reaches the network."""
        ...

    def weight(self, name: str) -> Tensor:
        """θ, detached."""
        ...

    def grad(self, name: str) -> Tensor:
        """Dense dL/dθ of this step (before masking); zeros where nothing reached the weight."""
        ...

    def active_grad(self, name: str) -> Tensor:
        """dL/dθ of this step where weights exist, zero elsewhere: a sparse backward pass has it already."""
        ...

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator that is a pure function of the mask seed, the purpose and the step."""
        ...

    def set_masks(
        self,
        masks: MaskSet,
        event: str,
        *,
        reset_all_moments: bool = False,
        restart: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put new masks in force and record the event.

        Weights that no longer exist become zero; moments restart where old and new masks differ, or everywhere. Where
        `restart` is True, a weight that exists before and after begins anew too, at zero: it went in between.
        """
        ...

    def record(self, event: str, *, changed: int, **details: int | float) -> None:
        """Record an event without a change of masks; `changed` counts the entries it rewrote."""
        ...

    def zero_pruned(self) -> None:
        """Put the weights that do not exist back to exactly zero."""
        ...

    def reset_moments(self, parameter: nn.Parameter) -> None:
        """Put the optimizer's state of a parameter to what a fresh optimizer has."""
        ...

    def learning_rate(self, parameter: nn.Parameter) -> float | Tensor:
        """The optimizer's present rate of a parameter."""
        ...

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor | None:
        """One tensor of the optimizer's state of a parameter, or None."""
        ...


@dataclass(frozen=True)
class Plan:
    """How a run divides into levels, each a training of its own with its schedule and optimizer from the start.

    Attributes:
        levels: Number of trainings, at least 1.
        rewind: None lets each level go on from the weights of the one before. A share of the first level, in [0, 1),
            lets each begin with the weights that the first had there; 0 is the initial weights.
    """

    levels: int = 1
    rewind: float | None = None


class Topology:
    """Base class; itself the protocol's no-op: all weights exist, for ever.

    Class attributes:
        name: Registered name (set by the decorator).
        title: Name in tables.
        family: PaI (pruning at init), DtS (dense to sparse), DST (dynamic sparse training) or dense.
        paper: Citation, or an empty string.
        regrows: Whether weights can come back at zero.
        uses_sparsity: Whether the target sparsity means anything to it.
        needs_probe: Whether it scores weights before training, which takes a `Probe`.
        repeats: Whether a run consists of several trainings, see `plan`.
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
        """Options in which times are steps of this run, as far as the sizes given say how long they are.

        Args:
            options: Options as the user gave them.
            batch_size: Images a step, for times that are given at another batch size.
            steps_per_epoch: Steps an epoch, for times that are given in epochs.
        """
        return options

    @classmethod
    def check(cls, options: Any, sparsity: float) -> None:
        """Refuse options that do not go with a target sparsity above 0.

        Raises:
            OptionError: with the option's name.
        """

    def check_run(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float, total_steps: int) -> None:
        """Refuse a run in which the method could not do what it states; called before anything starts.

        Args:
            shapes: Shape of every prunable weight by name.
            sparsity: Target share of zeros.
            total_steps: Steps of one training.

        Raises:
            OptionError: with the option's name.
            Infeasible: if the network cannot have that sparsity.
        """
        self.expected_active(shapes, sparsity)
        self.expected_events(total_steps, sparsity)

    def initial_masks(self, ctx: Context) -> MaskSet | None:
        """Masks at the start, or None for all ones."""
        return None

    def after_backward(self, ctx: Context) -> bool:
        """Gradients are final, the optimizer has not moved yet. Return False to leave out the weight step."""
        return True

    def after_step(self, ctx: Context) -> None:
        """The optimizer has moved; `ctx.steps_done` counts this step."""

    def plan(self, sparsity: float) -> Plan:
        """How many trainings a run consists of, and from which weights the later ones begin."""
        return Plan()

    def next_level(self, ctx: Context) -> None:
        """Training `ctx.level` is about to begin with the weights the one before has left; set its masks.

        Weights are rewound after this, if the plan says so, and the optimizer forgets everything.
        """

    def finalize(self, ctx: Context) -> None:
        """Training has ended."""

    def expected_active(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int | None:
        """Number of weights that the method's rule leaves (barring ties in its scores); None: not its to say."""
        return None

    def ties_lost(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many weights fewer than `expected_active` ties in the scores may leave; 0 where ties are broken."""
        return 0

    def expected_events(self, total_steps: int, sparsity: float) -> dict[str, int]:
        """Number of events by kind that a full run records."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the hooks remember; masks are the engine's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
