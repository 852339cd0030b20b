"""`Course`: where a training stands, in steps, epochs and levels, and what its methods state of its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim import Optimizer

from sparsity.masking.selection import NotFinite
from sparsity.masks import NotMasks
from sparsity.options import MaskError, TrainingError
from sparsity.representation import Representation
from sparsity.topology import Topology

from .levels import Levels
from .masked import MaskedNetwork
from .settings import RunSettings
from .summary import NetworkSummary, summarised


class Course(MaskedNetwork):
    """The part of the `Context` protocol that concerns time.

    Attributes:
        topology: The topology.
        sparsity: Target fraction of zeros.
        levels: The trainings that the run consists of; one for most topologies.
        total_steps: Steps of all of them.
    """

    def __init__(self, topology: Topology, representation: Representation, optimizer: Optimizer, settings: RunSettings):
        super().__init__(representation, optimizer, settings)
        self.topology = topology
        self.sparsity = settings.sparsity
        self.levels = Levels(topology.plan(self.sparsity), settings.total_steps, representation.model)
        self.total_steps = settings.total_steps * self.levels.count

    @property
    def epoch(self) -> int:
        """Number of completed epochs; the last one may be shorter."""
        return self.total_epochs if self._step >= self.total_steps else self._step // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Length of training in whole epochs."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def level(self) -> int:
        """Index of the present training, from 0."""
        return self.levels.index

    @property
    def step_in_level(self) -> int:
        """Number of steps done in the present training, of which a learning-rate schedule is a function."""
        return self._step - self.levels.index * self.levels.steps

    @property
    def progress(self) -> float:
        """Fraction of the present training that is done."""
        return self.step_in_level / self.levels.steps

    @property
    def level_ended(self) -> bool:
        """Whether a training has ended and another one follows, so that `next_level` must be called."""
        return self.levels.ended(self._step)

    @property
    def sparsity_left(self) -> float:
        """Target that the representation must reach; 0 if the topology reaches it."""
        return 0.0 if self.topology.uses_sparsity else self.sparsity

    def expected_active(self) -> int | None:
        """Return the number of active weights at the end, as stated by the method that reaches the sparsity."""
        if self.sparsity_left > 0:
            return self.representation.expected_active(self.shapes, self.sparsity_left)
        return self.topology.expected_active(self.shapes, self.sparsity)

    def expected_events(self) -> dict[str, int]:
        """Return the number of events by kind that a complete run records."""
        expected = self.topology.expected_events(self.total_steps, self.sparsity)
        return {**expected, **self.representation.expected_events(self.total_epochs, self.sparsity_left)}

    def summary(self) -> NetworkSummary:
        """Return each layer with its share of all parameters, its density, and why it is not pruned; print it."""
        reason = "left dense by the topology" if self.sparsity > 0 else "the target sparsity is 0"
        free = self.prunable if self.sparsity > 0 else ()
        return summarised(self.representation, self.densities(), {n: reason for n in self.shapes if n not in free})

    @contextmanager
    def _selecting(self, method: Topology | Representation | None = None) -> Iterator[None]:
        """Name the method whose masks are wrong, and say where values came from by which no weights can be chosen.

        Args:
            method: The method that acts, by default the topology.
        """
        try:
            yield
        except (MaskError, NotMasks) as error:
            kind = "topology" if method is None else "representation"
            raise MaskError(f"{kind} {(method or self.topology).name!r}: {error}") from error
        except NotFinite as error:
            kinds = {"gradients": self._grad, "weights": self.weight}
            found = [
                f"{kind} of {name}"
                for name in self.shapes
                for kind, read in kinds.items()
                if not bool(torch.isfinite(read(name)).all())
            ]
            cause = f": the {found[0]} hold NaN or infinity{' (and others)' if len(found) > 1 else ''}" if found else ""
            raise TrainingError(
                f"step {self._step}: masks are due, but {error}{cause}; the training has diverged"
            ) from None
