"""A network with random weights and gradients on which the mask work of a method is run step by step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import sparsity
from experiments.models import zoo
from sparsity import registry

SPARSITY = 0.9
CLASSES, IMAGE = 10, (3, 32, 32)


def build_network(name: str, device: torch.device) -> nn.Module:
    """Build a network for a thousand classes of small colour images, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo.build(name, num_classes=1000, in_channels=IMAGE[0], image_size=IMAGE[1]).to(device)


def probe(device: torch.device) -> sparsity.Probe:
    """Return random images for topologies that read data, with ten classes in turn.

    The images are small, since the cost of evaluating them is not that of the masks.
    """

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(100):
            images = torch.randn((20, *IMAGE), generator=generator)
            yield images.to(device), (torch.arange(20) % CLASSES).to(device)

    return sparsity.Probe(batches, nn.functional.cross_entropy, IMAGE, num_classes=CLASSES)


class Trial:
    """One method on one network, whose gradients are set, not computed.

    Args:
        topology: A registered topology.
        representation: A registered representation.
        network: The network; it is changed.
        steps: Length of a training in steps.
        steps_per_epoch: Steps per epoch.

    Attributes:
        sparse: The sparse training of the network.
        initial_seconds: Seconds that `attach` took, including initial masks.
    """

    def __init__(self, topology: str, representation: str, network: nn.Module, *, steps: int, steps_per_epoch: int):
        self.device = next(network.parameters()).device
        self.rep = sparsity.represent(network, representation)
        generator = torch.Generator().manual_seed(2)
        self._gradients = {
            name: torch.randn(theta.shape, generator=generator).mul_(1e-3).to(self.device)
            for name, theta in self.rep.weights()
        }
        self._rest = [p for p in network.parameters() if p.ndim < 2]
        # torch.optim.SGD as a configuration builds it, with the weight decay in its groups
        optimizer = torch.optim.SGD(self.rep.param_groups(weight_decay=1e-4), lr=1e-3, momentum=0.9)
        needs = registry.topology(topology).needs_probe
        begun = self.clock()
        self.sparse = sparsity.attach(
            topology,
            network,
            optimizer,
            sparsity=SPARSITY,
            total_steps=steps,
            steps_per_epoch=steps_per_epoch,
            batch_size=512,
            probe=probe(self.device) if needs else None,
        )
        self.initial_seconds = self.clock() - begun

    def clock(self) -> float:
        """Wait until the device is idle and return the time in seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, work: Callable[[], Any]) -> float:
        """Run some work and return the seconds that it takes."""
        begun = self.clock()
        work()
        return self.clock() - begun

    def backward(self) -> float:
        """Set the gradients of the trained tensors from dL/dθ; return the seconds beyond those of a plain one."""
        for parameter in self._rest:
            parameter.grad = torch.zeros_like(parameter)
        if type(self.rep).materialise is sparsity.Representation.materialise:
            for name, slot in self.rep.slots.items():
                slot.factors[0].grad = self._gradients[name].clone()  # the engine masks it in place
            return 0.0
        for slot in self.rep.slots.values():
            for factor in slot.factors:
                factor.grad = None
        return self.timed(self._through_parametrisation)

    def _through_parametrisation(self) -> None:
        for name, slot in self.rep.slots.items():
            slot.module.weight.backward(self._gradients[name])  # pyright: ignore

    def step(self) -> tuple[float, list[str]]:
        """Take one step; return its seconds and its events.

        The seconds include the representation's part of the forward and backward pass.
        """
        before = len(self.sparse.events)
        seconds = self.backward() + self.timed(self._step)
        if self.sparse.level_ended:
            seconds += self.timed(self.sparse.next_level)
        return seconds, [str(event["event"]) for event in self.sparse.events[before:]]

    def _step(self) -> None:
        self.sparse.step(metrics=lambda: {"train_accuracy": 0.5})

    def save(self) -> tuple[Any, Any]:
        """Return the state of network, masks and method, for `load`."""
        network = {key: tensor.clone() for key, tensor in self.rep.model.state_dict().items()}
        return network, copy.deepcopy(self.sparse.state_dict())

    def load(self, saved: tuple[Any, Any]) -> None:
        """Restore the state that `save` returned; the optimizer's momenta stay as they are."""
        self.rep.model.load_state_dict(saved[0])
        self.sparse.load_state_dict(saved[1])

    def jump(self, step: int) -> None:
        """Continue at another step, as if the steps in between had been taken without an event."""
        state: Mapping[str, Any] = self.sparse.state_dict()
        level = min(step // self.sparse.levels.steps, self.sparse.levels.count - 1)
        self.sparse.load_state_dict({**state, "step": step, "levels": {**state["levels"], "index": level}})
