"""`ShortRun`: 20 steps of a small network with any two methods."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsity import registry
from sparsity.attach import attach, represent
from sparsity.probe import Probe

STEPS, STEPS_PER_EPOCH, SPARSITY = 20, 5, 0.7
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, MakeOptimizer] = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.01),
}

# options under which the built-in methods act several times within 20 steps
SHORT: Mapping[str, dict[str, Any]] = {
    "rigl": {"update_every": 4},
    "set": {"update_every": 4},
    "granet": {"update_every": 3, "initial_sparsity": 0.2, "ramp_end": 0.5},
    "mest": {"update_every": 1, "mutation": 0.1},
    "imp": {"prune_fraction": 0.5},
    "wr": {"prune_fraction": 0.5},
    "lrr": {"prune_fraction": 0.5},
    "cyclic": {"cycles": 1},
    "gmp": {"update_every": 3},
    "one_shot": {"at": 0.5},
    "grasp": {"per_class": 4},
    "synflow": {"rounds": 10},
    "sign_in": {"reset_every": 2},
    "str": {"initial_threshold": -3.5},
    "pilot": {"penalty": 1e-3, "multiplier": 1.5},
    "spred": {"cut_at": 0.75},
    "bar": {"mu": 2.0},
}


class ShortRun:
    """A small network with a topology, a representation and an optimizer, and its data.

    Example:
        >>> from sparsity import testing
        >>> run = testing.ShortRun("set", "plain")
        >>> for index in range(testing.STEPS):
        ...     run.step(index)
        >>> run.sparse.event_counts
        {'initial': 1, 'update': 4}

    Args:
        topology: A registered topology.
        representation: A registered representation.
        make_optimizer: Function from parameter groups to an optimizer.
        network: Function that makes the network; by default `small_net`.
        wrap: Function that wraps it, as DDP or `torch.compile` does.
        dtype: Type of the weights.
        options: Method to options, for methods whose options are not those of `SHORT`.

    Attributes:
        network: The network.
        rep: Its representation.
        model: The network, wrapped.
        optimizer: Its optimizer.
        sparse: What `attach` returned.

    Raises:
        UnknownMethodError, OptionError, ValueError: as `attach` does.
    """

    def __init__(
        self,
        topology: str,
        representation: str,
        make_optimizer: MakeOptimizer = OPTIMIZERS["SGD"],
        *,
        network: Callable[[], nn.Module] | None = None,
        wrap: Callable[[nn.Module], Any] = lambda model: model,
        dtype: torch.dtype = torch.float32,
        options: Mapping[str, Mapping[str, Any]] = SHORT,
    ):
        self._again = lambda: ShortRun(
            topology, representation, make_optimizer, network=network, wrap=wrap, dtype=dtype, options=options
        )
        options = {**SHORT, **options}
        torch.manual_seed(3)
        self.network = (network or small_net)().to(dtype)
        self.dtype = dtype
        self.rep = represent(self.network, representation, **options.get(representation, {}))
        self.model = wrap(self.network)
        self.optimizer = make_optimizer(self.rep.param_groups(weight_decay=1e-3))
        self.sparse = attach(
            topology,
            self.model,
            self.optimizer,
            sparsity=SPARSITY,
            total_steps=STEPS,
            steps_per_epoch=STEPS_PER_EPOCH,
            seed=1,
            probe=_probe(self.network, dtype) if registry.topology(topology).needs_probe else None,
            **options.get(topology, {}),
        )

    def step(self, index: int, part: slice = slice(None)) -> None:
        """Do one training step on the batch of that index, or on a part of it."""
        generator = torch.Generator().manual_seed(index)
        shape = (8, *input_shape(self.network))
        x, y = torch.randn(shape, generator=generator).to(self.dtype), torch.randint(5, (8,), generator=generator)
        torch.manual_seed(index)  # for optimizers that draw random numbers, as Kron does

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x[part]), y[part])
            loss.backward()
            return loss

        self.sparse.step(closure, metrics=lambda: {"train_accuracy": index / STEPS})
        if self.sparse.level_ended:
            self.sparse.next_level()

    def thetas(self) -> dict[str, Tensor]:
        """Return a copy of all θ."""
        return {name: theta.clone() for name, theta in self.sparse.representation.weights()}

    def save(self) -> bytes:
        """Save the run as a checkpoint does."""
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in (self.network, self.optimizer, self.sparse)], buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        """Load what `save` returned."""
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for part, state in zip((self.network, self.optimizer, self.sparse), states, strict=True):
            part.load_state_dict(state)

    def again(self) -> ShortRun:
        """Return the run at its start."""
        return self._again()


def small_net() -> nn.Sequential:
    """Make a network of a convolution, batch normalisation and a classifier.

    Example:
        >>> from sparsity import testing
        >>> sum(p.numel() for p in testing.small_net().parameters())
        373
    """
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))


def input_shape(network: Any) -> tuple[int, ...]:
    """Return the shape of one input of a network that begins with a convolution or a linear layer.

    Example:
        >>> from sparsity import testing
        >>> testing.input_shape(testing.small_net())
        (1, 6, 6)

    Args:
        network: A network whose first layer is ``network[0]``: one input channel of 6 × 6, or 12 features.

    Raises:
        TypeError: if the network has no ``network[0]``.
    """
    return (1, 6, 6) if network[0].weight.ndim == 4 else (12,)


def _probe(network: nn.Module, dtype: torch.dtype) -> Probe:
    """Data to score weights with: always the same images, labels 0 to 4 in turn."""
    shape = input_shape(network)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(77)
        for _ in range(4):
            yield torch.randn((8, *shape), generator=generator).to(dtype), torch.arange(8) % 5

    return Probe(batches, nn.functional.cross_entropy, shape, num_classes=5)
